"""What a load client may ask, drawn by seed, and what an ask came to."""

import json
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from swell.testing.upstream_script import Script, encode_script

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
DEFAULT_MAX_TOKENS = 100  # as the spec of `kill_world` says
_MOST_CHUNKS = 48


class End(StrEnum):
    """How an ask ended, as its client saw it."""

    COMPLETE = "complete"
    ERROR_EVENT = "error event"  # a stream that Swell ended with an error
    REFUSED = "refused"  # an error answer
    LEFT = "left"  # the client itself closed its connection
    BROKEN = "broken"  # the connection was lost
    UNREACHABLE = "unreachable"  # there was nobody to connect to
    HUNG = "hung"  # no end in time


@dataclass(frozen=True)
class Ask:
    """One request. `leave_after` content events the client goes away; None: it stays."""

    path: str
    key: str = field(repr=False)
    stream: bool = False
    prompt: str = "hello"
    script: Script = field(default_factory=Script)
    max_tokens: int | None = None
    choices: int = 1
    include_usage: bool = False
    leave_after: int | None = None

    @property
    def completion_bound(self) -> int:
        """The most tokens the answer can have."""
        if self.path == EMBEDDINGS:
            return 0
        return (self.max_tokens or DEFAULT_MAX_TOKENS) * self.choices

    def encode(self) -> bytes:
        """The request as bytes."""
        body: dict[str, Any] = {"model": "m", "user": encode_script(self.script)}
        if self.path == CHAT:
            body["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            body["prompt" if self.path == COMPLETIONS else "input"] = self.prompt
        if self.stream:
            body["stream"] = True
        if self.include_usage:
            body["stream_options"] = {"include_usage": True}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.choices > 1:
            body["n"] = self.choices
        data = json.dumps(body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: swell\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


@dataclass
class Outcome:
    """What became of an ask. `content_events` counts what the client received."""

    ask: Ask
    end: End = End.BROKEN
    request_id: str = ""
    status: int = 0
    code: str = ""
    content_events: int = 0
    usage: tuple[int, int] | None = None


def draw(dice: random.Random, key: str) -> Ask:
    """A seeded mixture: half streams, some of which are left, cut or counted; the rest whole answers."""
    path = dice.choices((CHAT, COMPLETIONS, EMBEDDINGS), (6, 3, 1))[0]
    stream = path != EMBEDDINGS and dice.random() < 0.6
    chunks = dice.randint(1, _MOST_CHUNKS)
    shape = Script(
        chunks=chunks,
        head_delay_ms=dice.choice((0.0, 0.0, 5.0, 30.0)),
        delay_ms=dice.choice((0.0, 1.0, 4.0)) if stream else 0.0,
        die_after=dice.randint(0, chunks) if stream and dice.random() < 0.05 else None,
    )
    return Ask(
        path=path,
        key=key,
        stream=stream,
        prompt="word " * dice.randint(1, 60),
        script=shape,
        max_tokens=dice.choice((None, 64)) if path != EMBEDDINGS else None,
        choices=2 if path == CHAT and dice.random() < 0.1 else 1,
        include_usage=stream and dice.random() < 0.3,
        leave_after=dice.randint(0, chunks) if stream and dice.random() < 0.12 else None,
    )
