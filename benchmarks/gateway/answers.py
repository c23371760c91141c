"""Reads one connection's answers by scanning bytes, cheaply enough to share a core with the upstream."""

from benchmarks.gateway.work import STREAMED_WORD, WORD, Work

MAX_ANSWER_BYTES = 4 * 1024 * 1024
_CHUNKED_END = b"\r\n0\r\n\r\n"


class BadAnswerError(Exception):
    """The answer is not what the work asks for; the message is a short reason, counted in the report."""


class AnswerReader:
    """Feed it what arrives; it says when an answer is complete and refuses a wrong one."""

    __slots__ = ("_chunked", "_head_end", "_length", "_parts", "_size", "_tail", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next byte starts an answer."""
        self._parts: list[bytes] = []
        self._size = 0
        self._tail = b""
        self._head_end = 0
        self._length = -1
        self._chunked = False

    def feed(self, data: bytes) -> bool:
        """Whether the answer is now complete and right. Raises BadAnswerError."""
        parts = self._parts
        if not self._head_end:
            if parts:
                data = b"".join(parts) + data
                parts.clear()
                self._size = 0
            end = data.find(b"\r\n\r\n")
            if end < 0:
                parts.append(data)
                return False
            self._read_head(data[: end + 2], end + 4)
        parts.append(data)
        self._size += len(data)
        if self._chunked:
            self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
            if self._tail != _CHUNKED_END:
                if self._size > MAX_ANSWER_BYTES:
                    raise BadAnswerError("too long")
                return False
        elif self._size < self._head_end + self._length:
            return False
        self._check(b"".join(parts))
        self.reset()
        return True

    def _read_head(self, head: bytes, end: int) -> None:
        if not head.startswith(b"HTTP/1.1 200 "):
            raise BadAnswerError(f"status {head[9:12].decode('latin-1')}")
        lower = head.lower()
        self._head_end = end
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            self._chunked = True
            return
        start = lower.find(b"\r\ncontent-length:")
        if start < 0:
            raise BadAnswerError("no length and not chunked")
        self._length = int(lower[start + 17 : lower.index(b"\r\n", start + 2)])

    def _check(self, answer: bytes) -> None:
        body = answer[self._head_end :]
        if not self._work.stream:
            if body.count(WORD) != self._work.chunks:
                raise BadAnswerError("content missing")
            return
        # A proxy may lay its chunks across an event, so a first look that fails is not the verdict.
        if body.count(STREAMED_WORD) != self._work.chunks or b"[DONE]" not in body:
            whole = _joined(body) if self._chunked else body
            if whole.count(STREAMED_WORD) != self._work.chunks:
                raise BadAnswerError("chunks missing")
            if b"data: [DONE]" not in whole:
                raise BadAnswerError("no [DONE]")


def _joined(body: bytes) -> bytes:
    """A chunked body without its framing."""
    parts: list[bytes] = []
    at = 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line].split(b";")[0], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
