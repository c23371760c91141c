"""A client that shows the bytes of what it gets: one raw HTTP/1.1 connection."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from swell.testing.upstream_script import Script, encode_script

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
STREAMED = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
ANSWER_SECONDS = 5.0
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """`raw` is the body as it came, framing included; `body` is its payload."""

    version: str
    status: int
    headers: dict[str, str]
    raw: bytes
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code of an OpenAI-shaped error."""
        code: str = self.json["error"]["code"]
        return code


class Connection:
    """One connection; requests go out as written, answers are read whole or piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self.reader = reader
        self.writer = writer
        self.token = token

    def send(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> None:
        """A POST; header names are given with underscores."""
        self.writer.write(post(path, body, self.token, **headers))

    async def ask(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> Answer:
        self.send(path, body, **headers)
        return await self.answer()

    async def answer(self) -> Answer:
        """One whole answer, within five seconds."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._answer()

    async def _answer(self) -> Answer:
        version, status, headers = parse_head(await self.reader.readuntil(b"\r\n\r\n"))
        if headers.get("transfer-encoding") == "chunked":
            raw = await self._chunks()
            return Answer(version, status, headers, raw, unchunk(raw))
        if "content-length" in headers:
            raw = await self.reader.readexactly(int(headers["content-length"]))
        else:
            raw = await self.reader.read()
        return Answer(version, status, headers, raw, raw)

    async def until(self, data: bytes) -> bytes:
        """What came up to and with `data`."""
        return await self.reader.readuntil(data)

    async def ended(self) -> bool:
        """Wait until the gateway has closed; whether nothing came before."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def _chunks(self) -> bytes:
        raw = b""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            rest = await self.reader.readexactly(int(line, 16) + 2)
            raw += line + rest
            if int(line, 16) == 0:
                return raw


def post(path: str, body: dict[str, Any] | bytes, token: str, *, version: str = "1.1", **headers: str) -> bytes:
    """The bytes of a POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"host": "gateway", "authorization": f"Bearer {token}", "content-length": str(len(data))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + data


def body_for(path: str, script: Script | None = None, **more: Any) -> dict[str, Any]:
    """A request of 41 prompt bytes for the scripted upstream; the script travels in it."""
    text = "x" * 41
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if path == COMPLETIONS:
        prompt = {"prompt": text}
    elif path in (RESPONSES, EMBEDDINGS):
        prompt = {"input": text}
    who: dict[str, Any] = {}
    if script is not None:
        who = {"metadata": {"user_id": encode_script(script)}} if path == MESSAGES else {"user": encode_script(script)}
    return {"model": "m", **prompt, **who, **more}


def parse_head(data: bytes) -> tuple[str, int, dict[str, str]]:
    """Version, status and headers, by lower-case name."""
    first, *lines = data.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    return version, int(status), {name.lower(): value.strip() for name, value in pairs}


def unchunk(raw: bytes) -> bytes:
    """The payload of a chunked body; fails where it is not one, or something follows it."""
    payload = b""
    while True:
        size, _, rest = raw.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        assert rest[length : length + 2] == b"\r\n"
        payload += rest[:length]
        raw = rest[length + 2 :]
        if length == 0:
            assert raw == b""
            return payload


def events_of(payload: bytes) -> list[bytes]:
    """The events of a stream, each with its end as written."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in payload else b"\n\n"
    *events, rest = payload.split(end)
    assert rest == b""
    return [event + end for event in events]


def is_usage_event(event: bytes) -> bool:
    """Whether an event exists for its usage alone."""
    squeezed = event.replace(b" ", b"")
    return b'"choices":[]' in squeezed and b'"usage":{' in squeezed
