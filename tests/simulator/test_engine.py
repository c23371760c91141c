"""The simulated engine against a stepper that does every step by itself, and its corners."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.simulator.engine import Engine, Job
from swell.state.scaling import LatencyProfile


def profile(**changes: float) -> LatencyProfile:
    """Round numbers: 10 ms + 0.05 ms a prompt token; steps of 10 ms + 0.1 ms a sequence + 0.0001 ms a context token."""
    base = {
        "prefill_fixed_ms": 10.0, "prefill_ms_per_token": 0.05, "prefill_ms_per_token2": 0.0, "step_fixed_ms": 10.0,
        "step_ms_per_sequence": 0.1, "step_ms_per_context_token": 0.0001, "kv_tokens": 100_000, "chunk_tokens": 2048,
    }  # fmt: skip
    return LatencyProfile("m", "X", 1, **(base | changes))  # type: ignore[arg-type]


def run(engine: Engine, arrivals: list[Job]) -> dict[int, float]:
    """Submit each job at its arrival and run until all have ended; when each ended."""
    ends: dict[int, float] = {}
    waiting = sorted(arrivals, key=lambda job: job.arrival)
    for _ in range(100_000):
        happens = engine.next_event()
        if waiting and waiting[0].arrival <= happens:
            job = waiting.pop(0)
            engine.submit(job, job.arrival)
        elif happens != inf:
            for job in engine.run_to(happens):
                ends[job.index] = happens
        else:
            return ends
    raise AssertionError("it never came to an end")


def stepped(p: LatencyProfile, jobs: list[tuple[int, int]]) -> dict[int, float]:
    """All jobs at time 0, whole prompts in the first step: one engine step after another."""
    now = (max(p.prefill_fixed_ms, p.step_fixed_ms) + p.prefill_ms_per_token * sum(n for n, _ in jobs)) / 1000
    ends, running = {}, {}
    for index, (prompt, output) in enumerate(jobs):
        if output == 1:
            ends[index] = now
        else:
            running[index] = [prompt + 1, output - 1]
    while running:
        now += p.step_ms(len(running), sum(context for context, _ in running.values())) / 1000
        for index in list(running):
            running[index][0] += 1
            running[index][1] -= 1
            if not running[index][1]:
                del running[index]
                ends[index] = now
    return ends


def test_an_unloaded_replica_takes_what_its_profile_says() -> None:
    job = Job(0, 5.0, 1000, 101, 1.0)
    p = profile(prefill_ms_per_token2=1e-6)
    ends = run(Engine(p, 0.0), [job])
    assert job.first_at == pytest.approx(5.0 + p.prefill_ms(1000) / 1000)
    steps = sum(p.step_ms(1, 1001 + k) for k in range(100)) / 1000
    assert ends[0] == pytest.approx(job.first_at + steps, rel=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 300)), min_size=1, max_size=12))
def test_jumping_over_steps_gives_what_stepping_gives(lengths: list[tuple[int, int]]) -> None:
    p = profile()
    jobs = [Job(i, 0.0, prompt, output, 1.0) for i, (prompt, output) in enumerate(lengths)]
    engine = Engine(p, 0.0)
    engine.waiting.extend(jobs[:-1])  # they all go into the first step
    ends = run(engine, jobs[-1:])
    expected = stepped(p, lengths)
    assert ends.keys() == expected.keys()
    for index, at in expected.items():
        assert ends[index] == pytest.approx(at, rel=2e-3)


def test_a_long_prompt_goes_in_chunks_and_running_ones_get_a_token_with_each() -> None:
    p = profile(chunk_tokens=512)
    short, long = Job(0, 0.0, 10, 50, 1.0), Job(1, 0.1, 5000, 2, 5.0)
    engine = Engine(p, 0.0)
    ends = run(engine, [short, long])
    alone = run(Engine(p, 0.0), [Job(0, 0.0, 10, 50, 1.0)])[0]
    chunks = 5000 // 511 + 1
    delay = ends[0] - alone
    assert 0.9 * 0.05 * 5000 / 1000 < delay < 1.1 * (0.05 * 5000 + chunks) / 1000  # the prompt's own time, no more
    assert ends[1] > long.first_at > 0.1 + p.prefill_ms(5000) / 1000


def test_a_full_cache_puts_the_last_one_back_and_everybody_ends_all_the_same() -> None:
    p = profile(kv_tokens=1000)
    jobs = [Job(i, 0.0, 200, 400, 1.0) for i in range(4)]
    engine = Engine(p, 0.0)
    ends = run(engine, jobs)
    assert sorted(ends) == [0, 1, 2, 3]
    assert engine.preempted > 0
    assert all(job.output + job.tokens == 400 for job in jobs)
    assert engine.batch == 0
    assert engine.kv_used == pytest.approx(0, abs=1e-6)


def test_one_that_is_larger_than_the_cache_runs_alone() -> None:
    assert list(run(Engine(profile(kv_tokens=100), 0.0), [Job(0, 0.0, 300, 50, 1.0)])) == [0]


def test_a_known_prefix_is_not_computed_again() -> None:
    p = profile()
    engine = Engine(p, 0.0, block_tokens=512)
    first, second, other = (Job(i, 10.0 * i, 1100, 2, 5.0) for i in range(3))
    first.blocks = second.blocks = (7, 8)
    other.blocks = (9, 8)
    run(engine, [first, second, other])
    assert (first.cached, second.cached, other.cached) == (0, 1024, 0)
    assert second.first_at - second.arrival == pytest.approx(p.prefill_ms(1100 - 1024) / 1000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3000), st.integers(1, 200)), min_size=1, max_size=30),
    st.integers(1500, 20_000),
)
def test_every_request_ends_once_with_all_its_tokens(rows: list[tuple[float, int, int]], kv_tokens: int) -> None:
    engine = Engine(profile(kv_tokens=kv_tokens, chunk_tokens=700), 0.0)
    jobs = [Job(i, at, prompt, output, 1.0) for i, (at, prompt, output) in enumerate(rows)]
    ends = run(engine, jobs)
    assert len(ends) == len(jobs)
    assert engine.decoded == pytest.approx(sum(output for _, _, output in rows), rel=0.05, abs=len(rows) * 2)
    for job in jobs:
        assert job.arrival < job.first_at <= ends[job.index]
