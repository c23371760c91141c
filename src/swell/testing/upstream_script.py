"""How a request to the scripted upstream says what the answer should be.

A gateway forwards the body but not every header, so the script travels inside the body, as compact
JSON in the OpenAI field `user` (Anthropic's messages: `metadata.user_id`):

    {"model": "m", "messages": [...], "stream": true, "user": "{\\"chunks\\":5,\\"die_after\\":3}"}

Speaking to the upstream directly, the header `x-upstream-script` says the same and wins. A request
without a script gets the upstream's default script. Token counts follow from the request alone:
a token per four UTF-8 bytes of prompt, and one per content chunk of the answer.
"""

from enum import StrEnum
from typing import Any

import msgspec

MAX_CHUNKS = 100_000
BYTES_PER_TOKEN = 4


class Writes(StrEnum):
    """How a stream's events are laid over HTTP chunks and socket writes."""

    EVENT = "event"  # one HTTP chunk and one write per event, as engines do
    RUSH = "rush"  # the same without a turn of the event loop between, one answer after the other
    BURST = "burst"  # one HTTP chunk per event, the whole answer in one write
    MERGED = "merged"  # many events in one HTTP chunk and one write
    SPLIT = "split"  # HTTP chunks of `split_bytes`, whatever the events
    DRIBBLE = "dribble"  # one HTTP chunk per event, written `split_bytes` at a time


class UsageMode(StrEnum):
    """When a stream reports usage; JSON answers report it unless NEVER."""

    ASKED = "asked"  # one last event with no choices, where stream_options.include_usage asks for it
    ALWAYS = "always"  # the same event without being asked
    NULL = "null"  # as ASKED, and `"usage": null` in every other event
    EVERY = "every"  # running counts in every event, and the last one where asked
    NEVER = "never"


class Framing(StrEnum):
    """How the answer's end is told."""

    AUTO = "auto"  # streams chunked, JSON by content-length
    CHUNKED = "chunked"
    LENGTH = "length"
    EOF = "eof"  # HTTP/1.1 with `connection: close` and no length
    HTTP10 = "http10"  # HTTP/1.0, ended by closing


class Garbage(StrEnum):
    """Where an answer stops being what it claims to be."""

    NONE = ""
    HEAD = "head"  # bytes that are not HTTP
    CHUNK = "chunk"  # a chunk size that is not a number, after the first content chunk
    JSON = "json"  # a body or events that are not JSON


class Cut(StrEnum):
    """How a connection is cut."""

    CLOSE = "close"  # FIN: what was written arrives
    RESET = "reset"  # RST: what was written may be lost on the way


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one answer is like. Counts of content chunks; -1 as a position means before the head."""

    chunks: int = 64
    head_delay_ms: float = 0.0
    delay_ms: float = 0.0  # between two writes
    status: int = 200
    retry_after: int = 0  # seconds, as a header of an error answer; 0 for none
    prompt_tokens: int = -1  # reported instead of the count that follows from the request
    completion_tokens: int = -1
    cached_tokens: int = -1  # of the prompt's, as found in a prefix cache; -1: the engine does not tell
    die_after: int | None = None  # cut the connection after so many content chunks
    die: Cut = Cut.CLOSE
    error_after: int | None = None  # an error event, then the regular end
    hang_after: int | None = None  # hold until released through the upstream or its control endpoint
    writes: Writes = Writes.EVENT
    split_bytes: int = 7
    crlf: bool = False  # events ended by CR LF pairs
    spaces: bool = False  # `"usage": {` instead of `"usage":{`
    usage: UsageMode = UsageMode.ASKED
    framing: Framing = Framing.AUTO
    close: bool = False  # say `connection: close` and do so
    silent_close: bool = False  # close after the answer without having said so
    interim: bool = False  # a 103 response before the real one
    garbage: Garbage = Garbage.NONE
    health: int = 200  # status of /health while this is the default script


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class Message(msgspec.Struct, frozen=True):
    content: Any = None


class Body(msgspec.Struct, frozen=True):
    """The part of a request's body that shapes the answer, for every endpoint."""

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    messages: list[Message] | None = None
    prompt: Any = None
    input: Any = None

    @property
    def token_limit(self) -> int | None:
        """The request's bound on completion tokens per choice, if it names one."""
        for limit in (self.max_completion_tokens, self.max_tokens, self.max_output_tokens):
            if limit is not None:
                return limit
        return None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def script_text(self) -> str:
        """The script inside the body; empty where `user` is an ordinary user name or absent."""
        text = self.user
        if not text and self.metadata:
            text = self.metadata.get("user_id")
        return text if isinstance(text, str) and text.startswith("{") else ""

    def prompt_tokens(self) -> int:
        """Deterministic: one per four UTF-8 bytes of text, rounded up; token lists count their items."""
        if self.messages is not None:
            size = sum(_text_bytes(message.content) for message in self.messages)
        else:
            size = _text_bytes(self.prompt if self.prompt is not None else self.input)
        return max(1, -(-size // BYTES_PER_TOKEN))

    def inputs(self) -> int:
        """How many embeddings are asked for."""
        many = isinstance(self.input, list) and self.input and not isinstance(self.input[0], int)
        return len(self.input) if many else 1


def _text_bytes(content: Any) -> int:
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode())
    if isinstance(content, int):
        return BYTES_PER_TOKEN
    if isinstance(content, list):
        return sum(_text_bytes(part) for part in content)
    if isinstance(content, dict):
        return _text_bytes(content.get("text") or content.get("content"))
    return 0


decode_body = msgspec.json.Decoder(Body).decode
decode_script = msgspec.json.Decoder(Script).decode


def encode_script(script: Script) -> str:
    """The text that goes into a request's `user` field."""
    return msgspec.json.encode(script).decode()
