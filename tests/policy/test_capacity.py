"""What one replica carries, by the formulas and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.policy.scaling.capacity import Mix, batch_limit, capacity, chunk_limit, replica_seconds, requests_per_second
from swell.state.scaling import LatencyProfile, LengthSums, Objective

PROFILE = LatencyProfile("m", "X", 1, 10.0, 0.05, 0.0, 10.0, 0.1, 0.0, kv_tokens=100_000)


def test_worked_numbers() -> None:
    """B = 50: a step takes 15 ms; 1,000 prompt tokens take 60 ms; 100 tokens: r = 50 / (100·0.015 + 50·0.06) = 11.1."""
    objective = Objective(itl_ms=15 / (1 - 50 / (100 * 0.015 + 50 * 0.06) * 0.06) + 1e-9)
    rate, batch = capacity(PROFILE, objective, Mix.of_means(1000, 100))
    assert (batch, rate) == (50, pytest.approx(50 / 4.5))


def test_a_batch_ends_at_time_or_memory_or_the_engines_own_limit() -> None:
    assert batch_limit(PROFILE, Objective(itl_ms=20), 100) == 100  # 10 + 0.1·100 = 20 ms
    assert batch_limit(PROFILE, Objective(itl_ms=1000), 1000) == 100  # 100,000 tokens hold 100 contexts of 1,000
    assert batch_limit(PROFILE, Objective(itl_ms=1000), 10) == PROFILE.max_sequences
    assert batch_limit(PROFILE, Objective(itl_ms=1), 10) == 1  # one is always served


def test_chunks_leave_room_for_decoding() -> None:
    assert chunk_limit(PROFILE, Objective(itl_ms=100)) == 1000  # 10 + 0.05·1,000 = 60 ms
    assert chunk_limit(PROFILE, Objective(itl_ms=10)) == 256
    assert chunk_limit(PROFILE, Objective(itl_ms=10_000)) == PROFILE.chunk_tokens


def test_a_mix_of_one_kind_is_that_kind() -> None:
    n, o = np.full(7, 300.0), np.full(7, 40.0)
    sums = LengthSums(7, n.sum(), float(n @ n), o.sum(), float(o @ o), float(n @ o))
    assert Mix.of_sums(sums) == Mix.of_means(300, 40)
    assert Mix.of_sums(LengthSums()) is None


@given(st.floats(1, 20_000), st.floats(1, 2000), st.floats(15, 1000), st.floats(1.01, 3))
def test_more_is_never_carried_of_longer_requests_or_under_a_tighter_objective(
    prompt: float, output: float, itl_ms: float, factor: float
) -> None:
    objective = Objective(itl_ms=itl_ms)
    rate, batch = capacity(PROFILE, objective, Mix.of_means(prompt, output))
    whole = 1 + 1 / batch  # batches are whole numbers: what is lost by that differs from case to case
    assert requests_per_second(PROFILE, Objective(itl_ms=itl_ms * factor), prompt, output) >= rate * (1 - 1e-9)
    assert requests_per_second(PROFILE, objective, prompt * factor, output) <= rate * whole
    assert requests_per_second(PROFILE, objective, prompt, output * factor) <= rate * whole
    assert replica_seconds(PROFILE, objective, prompt, output) == pytest.approx(1 / rate)
