"""Measures a latency profile against a live replica, by a short sweep.

First prompts of growing length, one at a time: their times to the first token give the prefill terms. Then batches:
some streams at once, with short and with long prompts. A decode step is timed only while all of a batch's streams
decode, from the last one's first token to the first one's last, so that no prompt disturbs it. Medians over
repetitions; the sweep ends when its time is over, with what it has.
"""

import asyncio
import math
import statistics
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from swell.clock import Clock
from swell.errors import UserError
from swell.server.profile_client import Prompts, Replica, StreamRefusedError, TimedStream
from swell.server.profile_fit import Fit, PrefillSample, StepSample, fit_prefill, fit_step
from swell.state.scaling import LatencyProfile

MIN_WINDOW_STEPS = 6  # fewer steps of a whole batch say too little
DECODE_TOKENS = 32
MAX_DECODE_TOKENS = 512
LONG_PROMPT_SHARE = 0.4  # of the time that is left, for the prompts of batches with long contexts
MAX_POINT_SHARE = 0.06  # of the time: a point that took as long is not repeated
SHORT_PROMPT_TOKENS = 32
MIN_LENGTHS = 3
PREFILL_SHARE = 0.4  # of the time

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Sweep:
    """How much is measured."""

    max_prompt_tokens: int = 4096
    max_streams: int = 32
    repetitions: int = 3
    seconds: float = 120.0  # at most

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """Lengths of prompts: doubling, from short to the longest."""
        steps = max(3, math.ceil(math.log2(max(8, self.max_prompt_tokens) / SHORT_PROMPT_TOKENS)) + 1)
        ratio = (self.max_prompt_tokens / SHORT_PROMPT_TOKENS) ** (1 / (steps - 1))
        return tuple(round(SHORT_PROMPT_TOKENS * ratio**step) for step in range(steps))

    @property
    def streams(self) -> tuple[int, ...]:
        """Sizes of batches: doubling."""
        doubled = [2**power for power in range(16) if 2**power < self.max_streams]
        return (*doubled, self.max_streams)


@dataclass(frozen=True, slots=True)
class Point:
    """What is measured at once."""

    streams: int  # 0: the time to the first token of one prompt
    prompt_tokens: int


@dataclass(frozen=True)
class Measurement:
    """A profile, and how good it is."""

    profile: LatencyProfile
    prefill: Fit
    step: Fit
    prefill_samples: tuple[PrefillSample, ...]
    step_samples: tuple[StepSample, ...]
    seconds: float
    notes: tuple[str, ...]


OnPoint = Callable[[Point, int, int], None]
"""Told before each point: the point, how many are done, how many there are."""


async def measure(
    replica: Replica,
    blank: LatencyProfile,
    sweep: Sweep,
    clock: Clock,
    on_point: OnPoint = lambda point, done, total: None,
) -> Measurement:
    """The profile of `replica`, named as `blank` is, whose `kv_tokens` stand where they are above 0. UserError."""
    begun = clock.monotonic()
    await replica.check()
    sweeping = _Sweeping(replica, sweep, clock, on_point)
    try:
        await sweeping.run()
    except StreamRefusedError as refused:
        raise UserError(f"the replica refuses to be measured: {refused}") from refused
    try:
        prefill, step = fit_prefill(sweeping.prefill), fit_step(sweeping.steps)
    except UserError as error:
        raise UserError("; ".join([error.message, *sweeping.notes])) from None
    told_tokens, told_batch = await replica.cache_tokens()
    notes = list(sweeping.notes)
    kv_tokens = blank.kv_tokens or told_tokens
    if not kv_tokens:
        kv_tokens = math.ceil(max(sample.context_tokens for sample in sweeping.steps))
        notes.append(f"the engine tells nothing of its KV cache; {kv_tokens} tokens are the most it was seen to hold")
    largest = sweeping.batch_limit or told_batch
    if largest is None:
        seen = max(sample.sequences for sample in sweeping.steps)
        notes.append(f"batches of {seen} decode together; that {blank.max_sequences} do was not measured")
    profile = LatencyProfile(
        blank.model, blank.accelerator, blank.accelerator_count, *prefill.coefficients, *step.coefficients, kv_tokens,
        max_sequences=largest or blank.max_sequences, chunk_tokens=blank.chunk_tokens,
        source=blank.source or "measured with swell profile",
    )  # fmt: skip
    seconds = clock.monotonic() - begun
    return Measurement(profile, prefill, step, tuple(sweeping.prefill), tuple(sweeping.steps), seconds, tuple(notes))


class _Sweeping:
    """One sweep under way."""

    def __init__(self, replica: Replica, sweep: Sweep, clock: Clock, on_point: OnPoint) -> None:
        self._replica = replica
        self._sweep = sweep
        self._clock = clock
        self._on_point = on_point
        self._ends = clock.monotonic() + sweep.seconds
        self._prompts = Prompts()
        self._done = 0
        self._total = len(sweep.prompt_tokens) + 2 * len(sweep.streams)
        self.prefill: list[PrefillSample] = []
        self.steps: list[StepSample] = []
        self.notes: list[str] = []
        self.batch_limit: int | None = None

    async def run(self) -> None:
        """Measure every point for which there is time."""
        await self._learn()
        for length in self._sweep.prompt_tokens:
            if not self._has_time_for(length) or not await self._point(Point(0, length)):
                break
        if not self.prefill:
            raise UserError("no prompt was answered in time; give more --seconds")
        sizes = []
        for streams in self._sweep.streams:
            if not await self._point(Point(streams, SHORT_PROMPT_TOKENS)) or self.batch_limit is not None:
                break
            sizes.append(streams)
        long = self._long_prompt(sizes)
        for streams in sizes:
            if not await self._point(Point(streams, long)):
                break

    def _long_prompt(self, sizes: Sequence[int]) -> int:
        """As long as the time that is left allows for batches of all `sizes`; never so short that it tells nothing."""
        left = self._ends - self._clock.monotonic()
        lengths = [sample.prompt_tokens for sample in self.prefill]
        for length in reversed(lengths[:-1]):
            if _interpolated(self.prefill, length) / 1000 * sum(sizes) <= LONG_PROMPT_SHARE * left:
                return max(round(length), 4 * SHORT_PROMPT_TOKENS)
        return 4 * SHORT_PROMPT_TOKENS

    def _has_time_for(self, length: int) -> bool:
        """Whether prompts of that length leave enough time for the batches. The three shortest are always tried."""
        if len(self.prefill) < MIN_LENGTHS:
            return True
        last = self.prefill[-1]
        expected = last.milliseconds / 1000 * length / last.prompt_tokens
        if self._clock.monotonic() + expected <= self._ends - (1 - PREFILL_SHARE) * self._sweep.seconds:
            return True
        self.notes.append(f"prompts of {length} tokens and more were left out, to have time for the batches")
        return False

    async def _learn(self) -> None:
        """Warm the replica up and count its tokens per word."""
        counted = []
        for tokens in (SHORT_PROMPT_TOKENS, 4 * SHORT_PROMPT_TOKENS):
            prompt = self._prompts.write(tokens)
            counted.append((prompt, (await self._within(self._replica.stream(prompt, 2))).prompt_tokens))
        self._prompts.learn(counted)

    async def _point(self, point: Point) -> bool:
        """Whether to go on with larger ones."""
        self._on_point(point, self._done, self._total)
        self._done += 1
        try:
            return await (self._batch(point) if point.streams else self._first_token(point))
        except TimeoutError:
            self.notes.append(f"time was over at {_words(point)}")
        except StreamRefusedError as refused:
            if not self.prefill:
                raise
            self.notes.append(f"refused at {_words(point)}: {refused}")
        return False

    async def _first_token(self, point: Point) -> bool:
        found = []
        for _ in self._repetitions():
            found.append(await self._within(self._replica.stream(self._prompts.write(point.prompt_tokens), 2)))
        tokens = statistics.median(stream.computed_tokens for stream in found)
        self.prefill.append(PrefillSample(tokens, statistics.median(stream.first_ms for stream in found)))
        return True

    def _repetitions(self) -> Iterator[int]:
        """As many as were asked for, fewer where they take long."""
        begun = self._clock.monotonic()
        for number in range(self._sweep.repetitions):
            yield number
            if self._clock.monotonic() - begun > MAX_POINT_SHARE * self._sweep.seconds:
                return

    async def _batch(self, point: Point) -> bool:
        found: list[StepSample] = []
        together = 0
        for _ in self._repetitions():
            prompts = [self._prompts.write(point.prompt_tokens) for _ in range(point.streams)]
            asked = [self._replica.stream(prompt, self._tokens_for(point)) for prompt in prompts]
            streams = await self._within(_gather(asked))
            together = max(together, _most_at_once(streams))
            sample = window_sample(streams)
            if sample is not None:
                found.append(sample)
        if found:
            found.sort(key=lambda sample: sample.milliseconds)
            self.steps.append(found[len(found) // 2])
        elif together < point.streams and point.prompt_tokens == SHORT_PROMPT_TOKENS:
            self.batch_limit = together
            self.notes.append(f"of {point.streams} streams {together} decode at a time: that is its largest batch")
        else:
            self.notes.append(f"no undisturbed steps at {_words(point)}")
        return True

    def _tokens_for(self, point: Point) -> int:
        """So many that the first stream still decodes when the last one's prompt is done."""
        if not self.steps:
            return DECODE_TOKENS
        prefill = _interpolated(self.prefill, point.prompt_tokens) * point.streams
        return min(MAX_DECODE_TOKENS, DECODE_TOKENS + math.ceil(prefill / self.steps[0].milliseconds))

    async def _within(self, work: Awaitable[_Result]) -> _Result:
        async with asyncio.timeout(max(0.001, self._ends - self._clock.monotonic())):
            return await work


def window_sample(streams: Sequence[TimedStream]) -> StepSample | None:
    """The step's time while all of `streams` decode; None where that lasted too few steps."""
    begins = max(stream.events_at[0] for stream in streams)
    ends = min(stream.events_at[-1] for stream in streams)
    times, context = [], 0.0
    for stream in streams:
        inside = [at for at in stream.events_at if begins <= at <= ends]
        if len(inside) <= MIN_WINDOW_STEPS:
            return None
        times.append((inside[-1] - inside[0]) * 1000 / (len(inside) - 1) / stream.tokens_per_event)
        middle = stream.events_at.index(inside[0]) + len(inside) / 2
        context += stream.prompt_tokens + middle * stream.tokens_per_event
    return StepSample(len(streams), context, statistics.median(times))


async def _gather(asked: Sequence[Coroutine[object, object, TimedStream]]) -> list[TimedStream]:
    """All answers; the first failure ends the others."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _most_at_once(streams: Sequence[TimedStream]) -> int:
    """How many decoded at the same time, at most."""
    changes = [(stream.events_at[0], 1) for stream in streams] + [(stream.events_at[-1], -1) for stream in streams]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def _interpolated(samples: Sequence[PrefillSample], tokens: float) -> float:
    lengths = [sample.prompt_tokens for sample in samples]
    return float(np.interp(tokens, lengths, [sample.milliseconds for sample in samples]))


def _words(point: Point) -> str:
    prompts = f"prompts of {point.prompt_tokens} tokens"
    return f"{point.streams} streams with {prompts}" if point.streams else prompts
