"""What `swell profile` asks a replica: streams whose tokens are timed as they arrive, and what it tells of itself."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from swell.clock import Clock
from swell.errors import SwellError, UserError
from swell.state.catalogue_rows import nearest_name

CONNECT_SECONDS = 5.0
HUNG_UP_TIMES = 3  # a kept connection may be closed just when it is used again; llama.cpp closes after every stream
_SHOWN_CHARACTERS = 200
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work night point home water room mother area money story "
    "fact month lot right study book eye job word business issue side kind head house service friend father power hour "
    "game line end member law car city name team minute idea body back face others level office door health art war"
)
_WORDS = _TEXT.split()


class StreamRefusedError(SwellError):
    """The replica refused one request, such as a prompt that is too long for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class _HungUpError(UserError):
    """The connection was closed before anything of an answer came."""


@dataclass(frozen=True, slots=True)
class TimedStream:
    """One answer. Times are seconds on one clock; an event may carry more than one token."""

    prompt_tokens: int
    tokens: int
    asked_at: float
    events_at: tuple[float, ...]  # when text arrived
    cached_tokens: int = 0  # of the prompt: a chat template's, say, since no two prompts begin alike

    @property
    def computed_tokens(self) -> int:
        """Of the prompt, those that were not found in a prefix cache."""
        return max(1, self.prompt_tokens - self.cached_tokens)

    @property
    def first_ms(self) -> float:
        """Time to the first token."""
        return (self.events_at[0] - self.asked_at) * 1000

    @property
    def tokens_per_event(self) -> float:
        return max(1.0, self.tokens / len(self.events_at))


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None

    @property
    def has_text(self) -> bool:
        return self.delta is not None and bool(self.delta.content or self.delta.reasoning_content)


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class Replica:
    """An OpenAI-compatible endpoint. No proxy is used: its time would be measured too."""

    def __init__(self, url: str, model: str, key: str, clock: Clock, *, connections: int) -> None:
        self._root = re.sub(r"/v1/?$", "", url.rstrip("/"))
        self._model = model
        self._clock = clock
        self._more: dict[str, Any] = {"ignore_eos": True}  # an answer that ends early would leave nothing to time
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            trust_env=False,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def check(self) -> None:
        """UserError with what to do where nobody answers, the key is refused or the model is not served."""
        response = await self._get("/v1/models")
        if response.status_code in (401, 403):
            raise UserError(f"{self._root} refuses the key; give one with --key or OPENAI_API_KEY")
        if response.status_code != httpx.codes.OK:
            return  # some engines list no models
        try:
            served = [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return
        if served and self._model not in served:
            near = nearest_name(self._model, served)
            hint = f"did you mean {near}?" if near else f"it serves {', '.join(served[:10])}"
            raise UserError(f"{self._root} serves no model {self._model!r}; {hint}")

    async def stream(self, prompt: str, tokens: int) -> TimedStream:
        """One answer of up to `tokens` tokens.

        StreamRefusedError; UserError where it cannot be timed or nobody answers.
        """
        try:
            return await self._answer(prompt, tokens)
        except StreamRefusedError as refused:
            if refused.status not in (400, 422) or not self._more:
                raise
            self._more = {}  # perhaps it was only this that it does not know
            return await self._answer(prompt, tokens)

    async def _answer(self, prompt: str, tokens: int) -> TimedStream:
        """The answer to a request of which the replica has seen anything at all; timed from when that one was sent."""
        for _ in range(HUNG_UP_TIMES):
            try:
                return await self._stream(prompt, tokens)
            except _HungUpError:
                continue
        return await self._stream(prompt, tokens)

    async def _stream(self, prompt: str, tokens: int) -> TimedStream:
        body = msgspec.json.encode(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **self._more,
            }
        )
        headers, url = {"content-type": "application/json"}, f"{self._root}/v1/chat/completions"
        events_at: list[float] = []
        usage: _Usage | None = None
        answers = False
        asked_at = self._clock.monotonic()
        try:
            async with self._client.stream("POST", url, content=body, headers=headers) as response:
                answers = True
                if response.status_code != httpx.codes.OK:
                    said = (await response.aread()).decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
                    raise StreamRefusedError(response.status_code, said)
                async for line in response.aiter_lines():
                    now = self._clock.monotonic()
                    if not line.startswith("data:") or line.endswith("[DONE]"):
                        continue
                    event = _decode_event(line[5:])
                    usage = event.usage or usage
                    if any(choice.has_text for choice in event.choices):
                        events_at.append(now)
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
            if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) and not answers:
                raise _HungUpError(f"{self._root} closed the connection ({_name(error)}); see its log") from error
            raise UserError(f"{self._root} broke off an answer ({_name(error)}); see its log") from error
        if usage is None or not usage.prompt_tokens:
            raise UserError(f"{self._root} reports no usage in streams, so prompts cannot be counted")
        if not events_at:
            raise UserError(f"{self._root} streamed no text; is {self._model!r} a model that chats?")
        times = asked_at, tuple(events_at)
        return TimedStream(usage.prompt_tokens, usage.completion_tokens, *times, usage.cached_tokens)

    async def cache_tokens(self) -> tuple[int | None, int | None]:
        """KV-cache tokens and the largest batch, where the engine tells (vLLM's metrics, llama.cpp's properties)."""
        metrics = await self._text("/metrics")
        info = re.search(r"^vllm:cache_config_info\{([^}]*)\}", metrics, re.MULTILINE)
        if info:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', info[1]))
            blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            if blocks.isdigit() and size.isdigit() and int(blocks):
                return int(blocks) * int(size), None
        properties = re.search(r'"n_ctx":\s*(\d+)', text := await self._text("/props"))
        slots = re.search(r'"total_slots":\s*(\d+)', text)
        if properties and slots:
            return int(properties[1]) * int(slots[1]), int(slots[1])
        return None, None

    async def _text(self, path: str) -> str:
        try:
            response = await self._get(path)
        except UserError:
            return ""
        return response.text if response.status_code == httpx.codes.OK else ""

    async def _get(self, path: str) -> httpx.Response:
        try:
            return await self._client.get(self._root + path, timeout=CONNECT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = f"{self._root} does not answer ({_name(error)})"
            raise UserError(f"{what}; is the URL right, and is the replica ready?") from error


class Prompts:
    """Prompts of about a wanted number of tokens, no two of which begin alike, so that no prefix cache helps."""

    def __init__(self, seed: int = 1) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - words, not secrets
        self._tokens_per_word = 1.3
        self._fixed_tokens = 0.0  # what the chat template adds

    def write(self, tokens: float) -> str:
        """Random words."""
        count = max(1, round((tokens - self._fixed_tokens) / self._tokens_per_word))
        return " ".join(self._dice.choices(_WORDS, k=count))

    def learn(self, counted: Sequence[tuple[str, int]]) -> None:
        """Take prompts and what they were counted as, of two lengths at least."""
        (short, few), (long, many) = counted[0], counted[-1]
        words = len(long.split()) - len(short.split())
        if words > 0 and many > few:
            self._tokens_per_word = (many - few) / words
            self._fixed_tokens = max(0.0, few - self._tokens_per_word * len(short.split()))


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
