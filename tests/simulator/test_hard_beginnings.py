"""A service that has just begun: few requests, or long answers of which none has ended yet."""

from typing import Any

import numpy as np
import pytest

from swell.policy.scaling.capacity import Mix, capacity
from swell.simulator.contenders import contender
from swell.simulator.result import Result, Scenario
from swell.simulator.run import replay
from swell.state.catalogue import default_pool
from swell.state.scaling import Objective
from swell.state.traffic import Traffic

Column = np.ndarray[Any, np.dtype[Any]]

POOL = default_pool()
OBJECTIVE = Objective(5000.0, 100.0, 0.99, beyond_prefill=True)


def replayed(arrivals: Column, prompt: int, output: Column) -> Result:
    """By Swell's policy as it is."""
    order = np.arange(len(arrivals))
    traffic = Traffic(arrivals, np.full(len(order), prompt, np.int32), output.astype(np.int32))
    scenario = Scenario(traffic, (POOL,), OBJECTIVE)
    return replay(scenario, contender("swell").make(scenario, None), name="swell")


# Twenty requests in a quarter of an hour, whose forecast cancelled to next to nothing: ten thousand replicas ordered.
_CANCELLING = (
    (
        0.0,
        8.317,
        23.106,
        79.255,
        87.266,
        87.857,
        389.504,
        392.83,
        429.355,
        493.46,
        498.993,
        504.233,
        529.174,
        626.101,
        633.829,
        655.336,
        832.59,
        843.951,
        882.595,
        918.304,
    ),
    (341, 237, 263, 83, 314, 255, 73, 307, 249, 625, 145, 245, 420, 74, 131, 90, 128, 587, 350, 277),
)


def test_errors_of_forecasts_near_nothing_are_not_divided_by_nothing() -> None:
    arrivals, outputs = _CANCELLING
    assert replayed(np.array(arrivals), 500, np.array(outputs)).starts <= 2


@pytest.mark.parametrize("seed", range(8))
def test_a_request_a_minute_orders_a_replica_or_two(seed: int) -> None:
    print(f"seed {seed}")
    dice = np.random.default_rng(seed)
    arrivals = np.cumsum(dice.exponential(60.0, 40))
    result = replayed(arrivals, 500, dice.integers(50, 600, 40))
    assert result.starts <= 3
    assert result.attainment >= 0.95


@pytest.mark.parametrize(("rate", "output"), [(5, 2000), (5, 8000)])
def test_long_answers_are_not_taken_for_endless_ones_when_the_first_has_ended(rate: int, output: int) -> None:
    dice = np.random.default_rng(1)
    arrivals = np.cumsum(dice.exponential(1 / rate, rate * 1200))
    need = rate / capacity(POOL.profile, OBJECTIVE, Mix.of_means(500, output))[0]
    result = replayed(arrivals, 500, np.full(len(arrivals), output))
    assert result.starts <= 5 * need
    assert result.attainment >= 0.95
