"""`swell profile`: known delays are found again, fits are what they claim, and what cannot be measured is said."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripted_upstream import UpstreamThread
from swell.clock import ManualClock, SystemClock
from swell.errors import UserError
from swell.server.profile_client import Prompts, Replica, StreamRefusedError, TimedStream
from swell.server.profile_fit import PrefillSample, StepSample, fit_prefill, fit_step
from swell.server.profiling import Measurement, Point, Sweep, measure, window_sample
from swell.state.catalogue import load_profiles
from swell.state.scaling import LatencyProfile
from swell.testing.upstream_script import Script

BLANK = LatencyProfile("m", "local", 1, 0, 0, 0, 0, 0, 0, 0)
TRUE = LatencyProfile("m", "local", 1, 20, 0.1, 0, 6, 1.0, 0.002, 0)
coefficient = st.floats(0.001, 100)


@given(coefficient, st.floats(0, 1), st.floats(0, 1e-4))
def test_prefill_coefficients_are_found_again(fixed: float, linear: float, square: float) -> None:
    samples = [PrefillSample(n, fixed + linear * n + square * n * n) for n in (32, 128, 512, 2048, 4096)]
    fit = fit_prefill(samples)
    assert fit.worst_error < 1e-6
    assert all(value >= 0 for value in fit.coefficients)


@given(coefficient, st.floats(0, 10), st.floats(0, 0.01), st.lists(st.floats(0.9, 1.1), min_size=8, max_size=8))
def test_a_noisy_step_is_fitted_within_its_noise(
    fixed: float, per_sequence: float, per_token: float, noise: list[float]
) -> None:
    batches = [(b, b * context) for b in (1, 2, 8, 32) for context in (64, 1024)]
    samples = [
        StepSample(b, s, (fixed + per_sequence * b + per_token * s) * factor)
        for (b, s), factor in zip(batches, noise, strict=True)
    ]
    fit = fit_step(samples)
    assert all(value >= 0 for value in fit.coefficients)
    assert fit.median_error <= fit.worst_error < 0.4


def test_too_few_points_are_refused() -> None:
    with pytest.raises(UserError, match="three prompt lengths"):
        fit_prefill([PrefillSample(10, 1), PrefillSample(10, 2), PrefillSample(20, 3)])
    with pytest.raises(UserError, match="three batches"):
        fit_step([StepSample(1, 10, 1), StepSample(2, 20, 2)])


def _stream(first: float, step: float, count: int, *, prompt: int = 100, per_event: int = 1) -> TimedStream:
    return TimedStream(prompt, count * per_event, 0.0, tuple(first + step * index for index in range(count)))


def test_a_step_is_timed_only_while_all_decode() -> None:
    alone = window_sample([_stream(1.0, 0.01, 30)])
    assert alone is not None
    assert (alone.sequences, round(alone.milliseconds, 6)) == (1, 10)
    assert alone.context_tokens == pytest.approx(115)
    # The first one decodes faster before the other joins: that part does not count.
    early = TimedStream(
        100, 60, 0.0, tuple([index * 0.001 for index in range(30)] + [1 + index * 0.01 for index in range(30)])
    )
    both = window_sample([early, _stream(1.0, 0.01, 30)])
    assert both is not None
    assert both.milliseconds == pytest.approx(10)
    assert both.context_tokens == pytest.approx(100 + 45 + 100 + 15)
    assert window_sample([_stream(0.0, 0.01, 30), _stream(0.28, 0.01, 30)]) is None


def test_an_event_may_carry_several_tokens() -> None:
    sample = window_sample([_stream(0.0, 0.04, 20, per_event=4)])
    assert sample is not None
    assert sample.milliseconds == pytest.approx(10)


def test_a_sweep_grows_by_doubling_up_to_its_bounds() -> None:
    sweep = Sweep(max_prompt_tokens=4096, max_streams=24)
    assert sweep.prompt_tokens == (32, 64, 128, 256, 512, 1024, 2048, 4096)
    assert sweep.streams == (1, 2, 4, 8, 16, 24)
    assert len(Sweep(max_prompt_tokens=64).prompt_tokens) >= 3


def test_prompts_come_to_the_length_that_was_wanted() -> None:
    prompts = Prompts()
    assert prompts.write(100) != prompts.write(100)
    counted = [(text, 12 + 2 * len(text.split())) for text in (prompts.write(30), prompts.write(300))]
    prompts.learn(counted)
    assert 12 + 2 * len(prompts.write(500).split()) == pytest.approx(500, abs=2)


class SlotReplica:
    """A replica in virtual time: as TRUE says, but only two streams decode at a time, and none has a long context."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._open = 0

    async def check(self) -> None:
        """It answers."""

    async def cache_tokens(self) -> tuple[int, None]:
        return 8192, None

    async def stream(self, prompt: str, tokens: int) -> TimedStream:
        length = len(prompt.split())
        if length > self.longest:
            raise StreamRefusedError(400, "the context is too short")
        turn, self._open = self._open, self._open + 1
        await asyncio.sleep(0)  # so that all of a batch are here
        batch = min(self._open, 2)
        await asyncio.sleep(0)
        self._open -= 1
        step = TRUE.step_ms(batch, batch * (length + tokens / 2)) / 1000
        first = TRUE.prefill_ms(length) / 1000 + (turn // 2) * tokens * step
        return TimedStream(length, tokens, 0.0, tuple(first + index * step for index in range(tokens)))


async def test_the_largest_batch_and_the_longest_prompt_are_found() -> None:
    sweep = Sweep(4096, 16, repetitions=2, seconds=60)
    found = await measure(SlotReplica(1500), BLANK, sweep, ManualClock())  # type: ignore[arg-type]
    assert found.profile.max_sequences == 2
    assert found.profile.kv_tokens == 8192
    assert found.prefill_samples[-1].prompt_tokens < 1500
    assert [note.split(":")[0] for note in found.notes] == [
        "refused at prompts of 2048 tokens", "of 4 streams 2 decode at a time",
    ]  # fmt: skip
    assert found.prefill.worst_error < 0.01
    assert found.step.worst_error < 0.01
    assert found.profile.step_ms(2, 1000) == pytest.approx(TRUE.step_ms(2, 1000), rel=0.02)


async def test_a_replica_that_refuses_everything_is_named() -> None:
    with pytest.raises(UserError, match="refuses to be measured: HTTP 400: the context"):
        await measure(SlotReplica(2), BLANK, Sweep(), ManualClock())  # type: ignore[arg-type]


async def _measure(upstream: UpstreamThread, sweep: Sweep) -> tuple[Measurement, list[Point]]:
    """Every point is answered as a replica with the profile TRUE would."""
    points: list[Point] = []

    def answer(point: Point, done: int, total: int) -> None:
        assert done < total
        points.append(point)
        batch = max(1, point.streams)
        step = TRUE.step_ms(batch, batch * (point.prompt_tokens + 16))
        first = TRUE.prefill_ms(point.prompt_tokens) - step  # a stream begins with an event without text
        upstream.set_script(Script(chunks=600, head_delay_ms=first, delay_ms=step))

    replica = Replica(upstream.url, "m", "", SystemClock(), connections=8)
    try:
        return await measure(replica, BLANK, sweep, SystemClock(), answer), points
    finally:
        await replica.close()


async def test_known_delays_are_found_again(upstream: UpstreamThread) -> None:
    found, points = await _measure(upstream, Sweep(512, 4, repetitions=1, seconds=30))
    assert [point.streams for point in points if point.streams] == [1, 2, 4, 1, 2, 4]
    # A busy machine adds to every delay; nothing is ever faster than what was scripted.
    for n in (64, 256, 512):
        assert 0.95 < found.profile.prefill_ms(n) / TRUE.prefill_ms(n) < 2.5, found
    for batch, context in ((1, 50), (4, 200), (4, 1100)):
        assert 0.9 < found.profile.step_ms(batch, context) / TRUE.step_ms(batch, context) < 2.5, found
    assert found.prefill.median_error < 0.5
    assert found.profile.kv_tokens > 1000
    assert any("KV cache" in note for note in found.notes)
    assert found.profile.max_sequences == BLANK.max_sequences


async def test_a_sweep_ends_in_time_with_what_it_has(upstream: UpstreamThread) -> None:
    with pytest.raises(UserError, match="time was over at 1 streams"):
        await _measure(upstream, Sweep(64, 4, repetitions=1, seconds=0.35))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "profile", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_writes_what_the_catalogue_reads(shared_upstream: UpstreamThread, tmp_path: Path) -> None:
    shared_upstream.set_script(Script(chunks=64, head_delay_ms=5, delay_ms=2))
    table = tmp_path / "own.csv"
    options = ["--url", f"{shared_upstream.url}/v1", "--model", "m", "--concurrency", "2", "--max-prompt-tokens", "64"]
    ended = run(*options, "--accelerator", "CPU", "--kv-tokens", "9000", "--write", str(table), "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["name"] == "m@CPU"
    assert said["step"]["fit"]["median_error"] < 1
    own = load_profiles(table, extend=False)["m@CPU"]
    assert (own.kv_tokens, own.step_fixed_ms) == (9000, said["profile"]["step_fixed_ms"])
    assert "measured with swell profile on 20" in own.source
    shown = run(*options, "--accelerator", "L4", "--write", str(table))
    assert shown.returncode == 0, shown.stderr
    assert "m@L4, measured in" in shown.stdout
    assert set(load_profiles(table, extend=False)) == {"m@CPU", "m@L4"}


def test_what_cannot_be_measured_is_said(shared_upstream: UpstreamThread, free_port: int) -> None:
    nobody = run("--url", f"http://127.0.0.1:{free_port}", "--model", "m")
    assert nobody.returncode == 2
    assert "does not answer" in nobody.stderr
    other = run("--url", shared_upstream.url, "--model", "n", "--json")
    assert "serves no model 'n'; it serves m" in json.loads(other.stderr)["error"]
    shared_upstream.set_script(Script(status=503))
    refused = run("--url", shared_upstream.url, "--model", "m")
    assert (refused.returncode, "HTTP 503" in refused.stderr) == (2, True)


class HangingUp:
    """A server that answers `answers` requests of a connection, and closes it when the next one has come."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.requests = 0
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        events = [
            {"choices": [{"delta": {"content": "a"}}]},
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}},
        ]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
        for number in range(self.answers + 1):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            self.requests += 1
            if number < self.answers:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
        writer.close()
        await writer.wait_closed()
        self.open -= 1


@pytest.mark.parametrize("answers", [1, 0])
async def test_a_replica_that_closes_a_kept_connection_is_asked_again(answers: int) -> None:
    """llama.cpp does so after every stream, whatever its headers promise."""
    hanging = HangingUp(answers)
    server = await asyncio.start_server(hanging.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replica = Replica(f"http://127.0.0.1:{port}", "m", "", SystemClock(), connections=2)
    try:
        if answers:
            streams = [await replica.stream("hello", 1) for _ in range(3)]
            assert [stream.prompt_tokens for stream in streams] == [7, 7, 7]
            assert hanging.requests == 5, "two of them were not answered"
        else:
            with pytest.raises(UserError, match="closed the connection"):
                await replica.stream("hello", 1)
            assert hanging.requests == 4
    finally:
        await replica.close()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(5):
            while hanging.open:  # noqa: ASYNC110 - turns of the loop are cheap
                await asyncio.sleep(0)
