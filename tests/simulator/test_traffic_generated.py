"""Generated traffic has the rates, shapes, bursts and lengths it was asked for, and one seed gives it bit for bit."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic import GeneratedTraffic, describe, generate
from swell.simulator.traffic.generated import MONDAY_UNIX, lognormal_of
from swell.state.traffic import Traffic

DAY = 86_400.0
FLAT = GeneratedTraffic(seconds=DAY, requests_per_second=2.0, day_amplitude=0.0)

wanted = st.builds(
    GeneratedTraffic,
    seconds=st.floats(600.0, 2 * DAY),
    requests_per_second=st.floats(1e-3, 0.5),
    day_amplitude=st.floats(0.0, 1.0),
    peak_hour=st.floats(0.0, 24.0),
    weekend_factor=st.floats(0.1, 3.0),
    trend_per_week=st.floats(-0.9, 2.0),
    drift_deviation=st.floats(0.0, 1.0),
    spikes_per_day=st.floats(0.0, 20.0),
    burst_cv=st.floats(0.0, 5.0),
    prompt_p95=st.floats(1000.0, 3800.0),
    output_p95=st.floats(200.0, 760.0),
    start_unix=st.floats(0.0, 2e9),
)


def digest(traffic: Traffic) -> str:
    columns = (traffic.arrival_seconds, traffic.prompt_tokens, traffic.output_tokens)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def hourly(traffic: Traffic) -> NDArray[np.int64]:
    return np.bincount((traffic.arrival_seconds / 3600).astype(np.int64))


@given(wanted, st.integers(0, 2**63))
def test_a_seed_gives_the_same_requests_and_they_are_traffic(what: GeneratedTraffic, seed: int) -> None:
    traffic = generate(what, seed)
    assert digest(traffic) == digest(generate(what, seed))
    assert traffic.seconds < what.seconds
    assert traffic.start_unix == what.start_unix
    assert traffic.prompt_tokens.max(initial=1) <= what.max_prompt_tokens


def test_seeds_differ_and_lengths_do_not_move_arrivals() -> None:
    assert digest(generate(FLAT, 1)) != digest(generate(FLAT, 2))
    longer = generate(replace(FLAT, prompt_mean=2000.0, prompt_p95=5000.0), 1)
    assert longer.arrival_seconds.tolist() == generate(FLAT, 1).arrival_seconds.tolist()
    assert longer.output_tokens.tolist() == generate(FLAT, 1).output_tokens.tolist()


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0])
def test_the_mean_rate_and_the_bursts_are_those_asked_for(cv: float) -> None:
    found = describe(generate(replace(FLAT, burst_cv=cv), 5))
    assert found["requests_per_second"] == pytest.approx(2.0, rel=0.03)
    assert found["burst_cv"] == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_the_mean_rate_holds_whatever_the_shape() -> None:
    what = GeneratedTraffic(
        seconds=7 * DAY + 3, weekend_factor=0.4, trend_per_week=0.5, drift_deviation=0.4, spikes_per_day=3.0,
        spike_seconds=1200.0, burst_cv=1.5,
    )  # fmt: skip
    assert len(generate(what, 7)) == pytest.approx(7 * DAY, rel=0.02)


def test_the_day_swings_around_its_peak_hour() -> None:
    hours = hourly(generate(replace(FLAT, day_amplitude=0.8, peak_hour=14.5, requests_per_second=5.0), 3))
    assert int(np.argmax(hours)) in (13, 14, 15)
    assert hours.max() / hours.mean() == pytest.approx(1.8, rel=0.05)
    assert hours.min() / hours.mean() == pytest.approx(0.2, abs=0.05)


def test_a_start_in_the_afternoon_shifts_the_day() -> None:
    what = replace(FLAT, day_amplitude=0.8, peak_hour=14.5, start_unix=MONDAY_UNIX + 12 * 3600, requests_per_second=5.0)
    assert int(np.argmax(hourly(generate(what, 3)))) in (1, 2, 3)


def test_weekends_and_trends() -> None:
    week = replace(FLAT, seconds=7 * DAY, weekend_factor=0.25)
    days = np.bincount((generate(week, 4).arrival_seconds / DAY).astype(np.int64))
    assert days[5:].mean() / days[:5].mean() == pytest.approx(0.25, rel=0.05)
    rising = np.bincount(
        (generate(replace(week, weekend_factor=1.0, trend_per_week=1.0), 4).arrival_seconds / DAY).astype(int)
    )
    assert rising[6] / rising[0] == pytest.approx((1 + 6.5 / 7) / (1 + 0.5 / 7), rel=0.03)


def test_spikes_and_drift_raise_the_peaks() -> None:
    calm = describe(generate(FLAT, 6))["peak_over_mean_10m"]
    assert describe(generate(replace(FLAT, spikes_per_day=6.0, spike_factor=4.0), 6))["peak_over_mean_10m"] > 1.5 * calm
    assert describe(generate(replace(FLAT, drift_deviation=0.5), 6))["peak_over_mean_10m"] > 1.5 * calm


def test_lengths_have_the_mean_and_the_95th_percentile_asked_for() -> None:
    found = describe(generate(replace(FLAT, requests_per_second=5.0), 8))
    assert found["prompt_mean"] == pytest.approx(FLAT.prompt_mean, rel=0.02)
    assert found["prompt_p95"] == pytest.approx(FLAT.prompt_p95, rel=0.02)
    assert found["output_mean"] == pytest.approx(FLAT.output_mean, rel=0.02)
    assert found["output_p95"] == pytest.approx(FLAT.output_p95, rel=0.02)
    same = generate(replace(FLAT, prompt_mean=512.0, prompt_p95=512.0), 8)
    assert set(same.prompt_tokens.tolist()) == {512}


@given(st.floats(1.0, 1e5), st.floats(1.0, 3.8))
def test_a_lognormal_is_found_for_every_mean_and_95th_percentile(mean: float, ratio: float) -> None:
    centre, deviation = lognormal_of(mean, mean * ratio)
    assert np.exp(centre + deviation**2 / 2) == pytest.approx(mean)
    assert np.exp(centre + 1.6448536269514722 * deviation) == pytest.approx(mean * ratio)


@pytest.mark.parametrize(
    "change",
    [
        {"requests_per_second": 0.0}, {"requests_per_second": 1e9}, {"seconds": 1.0}, {"day_amplitude": 1.5},
        {"burst_cv": -1.0}, {"burst_cv": float("nan")}, {"prompt_p95": 900.0}, {"prompt_p95": 5000.0},
        {"prompt_mean": 0.5}, {"trend_per_week": -1.0}, {"drift_seconds": 0.0},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_are_refused_with_their_range(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(change))} .*; give "):
        replace(FLAT, **change)


def test_traffic_without_any_moment_is_refused() -> None:
    saturday = replace(FLAT, start_unix=MONDAY_UNIX + 5 * DAY, weekend_factor=0.0)
    with pytest.raises(UserError, match="raise weekend_factor"):
        generate(saturday)
