"""The engine-model benchmark: what it simulates are the requests that were asked, and errors are what they claim."""

import pytest
from benchmarks.engine_model import Compared, Loop, Round, compare, median_errors, simulate

from swell.server.profile_client import TimedStream
from swell.state.scaling import LatencyProfile

PROFILE = LatencyProfile("m", "CPU", 1, 20.0, 2.0, 0.0, 10.0, 5.0, 0.0, kv_tokens=100_000)


def stream(prompt: int, tokens: int, first: float, step: float) -> TimedStream:
    """As a replica would answer: times in seconds."""
    return TimedStream(prompt + 5, tokens, 0.0, tuple(first + step * index for index in range(tokens)), 5)


def test_a_single_client_is_simulated_by_the_formulas_of_its_profile() -> None:
    ttft, tpot = simulate(PROFILE, [[stream(100, 11, 1.0, 1.0), stream(200, 21, 1.0, 1.0)]])
    assert tpot == pytest.approx(15.0)
    assert ttft == pytest.approx(PROFILE.prefill_ms(150))


def test_clients_that_decode_together_share_each_step() -> None:
    clients = [[stream(10, 500, 1.0, 1.0)] for _ in range(4)]
    _, tpot = simulate(PROFILE, clients)
    assert tpot == pytest.approx(10.0 + 5.0 * 4, rel=0.05)


def test_a_replica_that_is_as_its_profile_says_has_no_error() -> None:
    loop = Loop(1, 100, 11)
    found = compare(PROFILE, loop, [[stream(100, 11, 0.22, 0.015)] * 3])
    assert (found.tpot_error, found.ttft_error) == (pytest.approx(0.0), pytest.approx(0.0))
    slow = compare(PROFILE, loop, [[stream(100, 11, 0.44, 0.03)] * 3])
    assert (slow.tpot_error, slow.ttft_error) == (pytest.approx(-0.5), pytest.approx(-0.5))


def test_the_median_is_over_all_loops_of_all_rounds_whatever_the_sign() -> None:
    def made(*errors: float) -> Round:
        loops = tuple(Compared(Loop(1, 1, 1), 1.0, 1 + error, 1.0, 1 - 2 * error) for error in errors)
        return Round(PROFILE, 8, loops, 0.0)

    assert median_errors([made(-0.5, 0.1), made(0.2)]) == (pytest.approx(0.2), pytest.approx(0.4))
