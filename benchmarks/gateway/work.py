"""The work that contenders are given: two requests, and what a right answer to each contains."""

import json
from dataclasses import dataclass

MODEL = "m"
PATH = "/v1/chat/completions"
CHUNKS = 64
BODY_BYTES = 1024  # about; of one request
WORD = b" token"
STREAMED_WORD = b'" token"'


@dataclass(frozen=True)
class Work:
    """One kind of request. `chunks` content chunks must arrive, as events or inside one document."""

    name: str
    stream: bool
    chunks: int = CHUNKS

    def body(self, script: str = "") -> bytes:
        """The request's body; `script` tells the scripted upstream to answer in another way."""
        request: dict[str, object] = {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant that answers in a few words."},
                {"role": "user", "content": ""},
            ],
            "max_tokens": self.chunks,
            "temperature": 0.7,
        }
        if self.stream:
            request["stream"] = True
        if script:
            request["user"] = script
        messages = request["messages"]
        assert isinstance(messages, list)
        messages[1]["content"] = "Tell me about gateways. " * ((BODY_BYTES - len(json.dumps(request))) // 24)
        return json.dumps(request).encode()


WORKS = {work.name: work for work in (Work("json", stream=False), Work("stream", stream=True))}


def request_bytes(work: Work, host: str, port: int, key: str, script: str = "") -> bytes:
    """The whole request as it goes over the wire."""
    body = work.body(script)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\nAccept: */*\r\n"
        f"User-Agent: swell-benchmark\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
