"""A client that sends exactly the bytes it is given, and reads answers strictly."""

import json
import socket
from dataclasses import dataclass
from typing import Any

READ_SECONDS = 8.0  # longer than every timeout in the specs of these tests


@dataclass(frozen=True)
class Answer:
    """One response, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Exchange:
    """Everything that came back on one connection."""

    answers: list[Answer]
    closed: bool  # by the gateway, before the reader gave up


def exchange(port: int, *parts: bytes, expected: int = 1, read_seconds: float = READ_SECONDS) -> Exchange:
    """Send `parts` one by one, then read until the gateway closes or `expected` final answers arrived."""
    with socket.create_connection(("127.0.0.1", port), timeout=read_seconds) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before everything was sent: the answer is what counts
        return _read(connection, expected)


def _read(connection: socket.socket, expected: int) -> Exchange:
    received, closed = b"", False
    while not closed:
        answers, _ = parse(received)
        final = [answer for answer in answers if answer.status >= 200]
        if len(final) >= expected and "close" not in final[-1].headers.get("connection", ""):
            break
        try:
            data = connection.recv(65536)
        except TimeoutError:
            break
        except ConnectionResetError:
            data = b""
        closed = not data
        received += data
    answers, rest = parse(received)
    assert rest == b"" or not closed, f"the connection ended inside an answer: {rest[:80]!r}"
    return Exchange(answers, closed)


def parse(data: bytes) -> tuple[list[Answer], bytes]:
    """The complete responses at the start of `data`, and the bytes after them."""
    answers: list[Answer] = []
    while b"\r\n\r\n" in data:
        head, rest = data.split(b"\r\n\r\n", 1)
        lines = head.decode("ascii").split("\r\n")
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = int(lines[0].split()[1])
        body = _body(status, headers, rest)
        if body is None:
            break
        answers.append(Answer(status, headers, body[0]))
        data = body[1]
    return answers, data


def _body(status: int, headers: dict[str, str], data: bytes) -> tuple[bytes, bytes] | None:
    """The body at the start of `data` and what follows it; None where it is not complete."""
    if status < 200 or status in (204, 304):
        return b"", data
    if headers.get("transfer-encoding") == "chunked":
        return _chunked(data)
    length = int(headers["content-length"])
    return (data[:length], data[length:]) if len(data) >= length else None


def _chunked(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
        if size == 0:
            return body, data


def request(
    key: str,
    body: bytes = b"",
    *,
    line: bytes = b"POST /v1/chat/completions HTTP/1.1",
    host: bytes = b"host: swell\r\n",
    extra: bytes = b"",
    length: bool = True,
) -> bytes:
    """A request with the key. `extra` are complete header lines; `length` adds a correct content-length."""
    framing = b"content-length: %d\r\n" % len(body) if length else b""
    return (
        line
        + b"\r\n"
        + host
        + b"authorization: Bearer "
        + key.encode()
        + b"\r\ncontent-type: application/json\r\n"
        + framing
        + extra
        + b"\r\n"
        + body
    )


def chat_body(**fields: Any) -> bytes:
    """A chat request as JSON."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}).encode()


def chunked(*chunks: bytes) -> bytes:
    """A body in chunked coding."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
