"""Demand of one window, from what arrives and from what is in the system."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.policy.scaling.capacity import Mix, capacity, throughput
from swell.policy.scaling.demand import demand_of
from swell.state.scaling import LatencyProfile, Objective, Observation, ReplicaState, ReplicaView, Window

PROFILE = LatencyProfile("m", "X", 1, 10.0, 0.05, 0.0, 12.0, 0.05, 0.0001, 400_000, 256, 2048)
MIX = Mix.of_means(1000, 200)
RATE, BATCH = capacity(PROFILE, Objective(itl_ms=100.0), MIX)


def seen(window: Window, ready: int, draining: int = 0) -> Observation:
    """So many replicas; those that drain have a full batch each."""
    views = [ReplicaView(f"r{n}", "X", ReplicaState.READY, 0.0) for n in range(ready)]
    views += [ReplicaView(f"d{n}", "X", ReplicaState.DRAINING, 0.0, in_flight=BATCH) for n in range(draining)]
    return Observation(window.at, window, tuple(views))


def demand(window: Window, ready: int, draining: int = 0, *, is_young: bool = False) -> tuple[float, float]:
    found = demand_of(PROFILE, seen(window, ready, draining), window, MIX, RATE, BATCH, 10.0, is_young=is_young)
    return found.mean, found.peak


def steady(load: float, ready: int) -> Window:
    """Ten seconds of a fleet that is used to the share `load` of its capacity, as the capacity model has it."""
    low, high = 0.0, float(BATCH)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if throughput(PROFILE, MIX, middle) < load * RATE else (low, middle)
    arrivals = load * ready * RATE * 10.0
    # A thousand times as many of a thousandth: arrivals are whole numbers, their tokens say the same.
    return Window(
        10.0, 10.0, round(arrivals), round(arrivals) * 1000, mean_in_flight=low * ready, in_flight=round(low * ready)
    )


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8, 0.95])
def test_both_measures_agree_on_a_fleet_as_the_model_has_it(load: float) -> None:
    mean, peak = demand(steady(load, 40), 40)
    assert mean == pytest.approx(load * 40, rel=0.03)
    assert peak >= mean


def test_longer_answers_show_before_one_has_ended() -> None:
    usual = steady(0.4, 40)
    longer = replace(usual, mean_in_flight=usual.mean_in_flight * 2, in_flight=usual.in_flight * 2)
    assert demand(longer, 40)[0] > 1.15 * demand(usual, 40)[0]


def test_a_full_fleet_asks_for_what_arrives() -> None:
    window = Window(10.0, 10.0, round(90 * RATE), round(90 * RATE) * 1000, in_flight=30 * BATCH, queued=100 * BATCH)
    mean, _ = demand(window, 30)
    assert mean == 30.0  # nine of them for what arrives; the rest works off what waits
    assert demand(replace(window, arrivals=round(600 * RATE), arrived_prompt_tokens=round(600 * RATE) * 1000), 30)[
        0
    ] == pytest.approx(60.0, rel=0.05)


def test_the_young_and_the_uncounted_go_by_what_arrives() -> None:
    window = Window(10.0, 10.0, 100, 100_000, in_flight=1, mean_in_flight=0.5)
    arrives = 100 / RATE / 10
    assert demand(window, 10, is_young=True) == pytest.approx((arrives, arrives))
    assert demand(window, 0) == pytest.approx((arrives, arrives))
    nobody_counted = replace(window, in_flight=0, mean_in_flight=0.0)
    assert demand(nobody_counted, 10) == pytest.approx((arrives, arrives))


@given(
    arrivals=st.integers(0, 500),
    in_flight=st.integers(0, 2000),
    queued=st.integers(0, 500),
    ready=st.integers(0, 30),
    draining=st.integers(0, 3),
    earlier=st.integers(0, 2000),
)
def test_it_is_bounded_and_its_peak_is_not_below_its_mean(
    arrivals: int, in_flight: int, queued: int, ready: int, draining: int, earlier: int
) -> None:
    window = Window(
        10.0, 10.0, arrivals, arrivals * 1000, in_flight=in_flight, queued=queued, mean_in_flight=float(earlier)
    )
    mean, peak = demand(window, ready, draining)
    most = max(arrivals / RATE / 10 * 1.01, ready + draining, max(earlier, in_flight + queued) / BATCH)
    assert 0 <= mean <= peak <= most + 1e-6
