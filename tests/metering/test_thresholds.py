"""Which thresholds are due, once each whatever happens, and how good the forecast behind some of them is."""

import math
import random
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.metering.periods import period_at, zone_of
from swell.metering.thresholds import LEAST_HOURS, Forecast, due, forecast_spend
from swell.spec.thresholds import Threshold, parse_threshold
from swell.units import MAX_USD_NANOS, NANOS_PER_USD

DOLLAR = NANOS_PER_USD
CAP = 100 * DOLLAR
HOUR, DAY = 3600, 86_400
USUAL = ("50%", "80%", "100%", "forecast 100%")
BERLIN = zone_of("Europe/Berlin")


def thresholds(*texts: str) -> tuple[Threshold, ...]:
    return tuple(map(parse_threshold, texts or USUAL))


def certain(dollars: int) -> Forecast:
    return Forecast(dollars * DOLLAR, dollars * DOLLAR, dollars * DOLLAR)


def texts_due(
    spent: int, forecast: Forecast | None = None, fired: Sequence[str] = (), cap: int = CAP, of: Sequence[str] = USUAL
) -> list[str]:
    return [threshold.text for threshold in due(thresholds(*of), cap, spent, forecast, fired)]


class Alerts:
    """A budget by the day whose alerts are rows, unique by period and threshold, as the store keeps them."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.spent: dict[str, int] = {}

    def turn(self, at: str, spend: int = 0, forecast: Forecast | None = None, cap: int = CAP) -> list[str]:
        """Spend at a time, and what fires then."""
        day = period_at("day", BERLIN, datetime.fromisoformat(at).timestamp()).label
        self.spent[day] = self.spent.get(day, 0) + spend
        fired = [text for period, text in self.rows if period == day]  # read anew: each turn is as after a restart
        new = texts_due(self.spent[day], forecast, fired, cap)
        self.rows += [(day, text) for text in new]
        return new


@pytest.mark.parametrize(
    ("text", "threshold", "canonical"),
    [
        ("50%", Threshold(50, False), "50%"),
        ("actual 80%", Threshold(80, False), "80%"),
        ("80 %", Threshold(80, False), "80%"),
        ("  Actual\t080 % ", Threshold(80, False), "80%"),
        ("forecast 100%", Threshold(100, True), "forecast 100%"),
        ("Forecasted 100 %", Threshold(100, True), "forecast 100%"),
        ("1%", Threshold(1, False), "1%"),
        ("FORECAST 1000%", Threshold(1000, True), "forecast 1000%"),
    ],
)
def test_what_a_threshold_can_be_written_as(text: str, threshold: Threshold, canonical: str) -> None:
    assert parse_threshold(text) == threshold
    assert threshold.text == canonical


@pytest.mark.parametrize(
    "text", ["", "%", "50", "half", "50.5%", "-5%", "forecast100%", "predicted 5%", "5% 6%", "\u0665%"]
)
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a threshold; write whole percent, such as 80%, or forecast 100%"):
        parse_threshold(text)


@pytest.mark.parametrize("text", ["0%", "forecast 0%", "1001%", "9" * 5000 + "%"])
def test_a_share_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be from 1% to 1000% of the budget"):
        parse_threshold(text)


@given(share=st.integers(1, 1000), is_forecast=st.booleans())
def test_the_canonical_text_is_read_back(share: int, is_forecast: bool) -> None:
    threshold = Threshold(share, is_forecast)
    assert parse_threshold(threshold.text) == threshold


@pytest.mark.parametrize(
    ("spent", "forecast", "fired", "expected"),
    [
        (0, None, (), []),
        (50 * DOLLAR - 1, None, (), []),
        (50 * DOLLAR, None, (), ["50%"]),
        (50 * DOLLAR, None, ("50%",), []),
        (80 * DOLLAR, None, ("50%",), ["80%"]),
        (99 * DOLLAR, certain(99), ("50%", "80%"), []),
        (60 * DOLLAR, certain(100), ("50%",), ["forecast 100%"]),
        (60 * DOLLAR, certain(100), ("50%", "forecast 100%"), []),
        (100 * DOLLAR, None, ("50%", "80%"), ["100%"]),
        (100 * DOLLAR, certain(150), (), ["50%", "80%", "100%", "forecast 100%"]),
        (150 * DOLLAR, certain(150), USUAL, []),
        (10 * DOLLAR, Forecast(99 * DOLLAR, 20 * DOLLAR, 300 * DOLLAR), (), []),  # not by the interval's upper bound
    ],
)
def test_what_is_due(spent: int, forecast: Forecast | None, fired: Sequence[str], expected: list[str]) -> None:
    assert texts_due(spent, forecast, fired) == expected


def test_they_come_in_rising_order_and_each_once_however_they_are_listed() -> None:
    listed = ("forecast 80%", "100%", "80%", "5%", "actual 5 %", "forecast 60%")
    found = texts_due(CAP, certain(100), of=listed)
    assert found == ["5%", "forecast 60%", "80%", "forecast 80%", "100%"]


def test_shares_are_compared_exactly_where_floats_would_round() -> None:
    cap = MAX_USD_NANOS - 1
    just = -(-cap * 33 // 100)
    assert texts_due(just - 1, cap=cap, of=["33%"]) == []
    assert texts_due(just, cap=cap, of=["33%"]) == ["33%"]


def test_a_cap_lowered_below_what_was_spent_makes_all_due_at_once() -> None:
    assert texts_due(30 * DOLLAR, cap=CAP) == []
    assert texts_due(30 * DOLLAR, certain(40), cap=20 * DOLLAR) == ["50%", "80%", "100%", "forecast 100%"]


def test_a_cap_raised_after_firing_does_not_fire_again_in_the_period() -> None:
    alerts = Alerts()
    assert alerts.turn("2026-06-01T10:00+02:00", 80 * DOLLAR) == ["50%", "80%"]
    assert alerts.turn("2026-06-01T11:00+02:00", cap=2 * CAP) == []
    assert alerts.turn("2026-06-01T12:00+02:00", 90 * DOLLAR, cap=2 * CAP) == []  # 85% of the new cap
    assert alerts.turn("2026-06-01T13:00+02:00", 30 * DOLLAR, cap=2 * CAP) == ["100%"]
    assert alerts.turn("2026-06-02T10:00+02:00", 100 * DOLLAR, cap=2 * CAP) == ["50%"]


def test_a_cap_of_zero_is_exceeded_by_the_first_spend_and_quiet_before() -> None:
    assert texts_due(0, certain(0), cap=0) == []
    assert texts_due(0, certain(1), cap=0) == ["forecast 100%"]
    assert texts_due(1, None, cap=0) == ["50%", "80%", "100%"]


def test_each_fires_once_in_each_period_over_restarts() -> None:
    alerts = Alerts()
    for day in ("2026-06-01", "2026-06-02"):
        fired = [text for hour in range(24) for text in alerts.turn(f"{day}T{hour:02d}:30+02:00", 5 * DOLLAR)]
        assert fired == ["50%", "80%", "100%"]
    assert len(alerts.rows) == len(set(alerts.rows)) == 6


def test_a_clock_that_steps_back_and_forth_over_the_end_of_a_period_fires_nothing_twice() -> None:
    alerts = Alerts()
    assert alerts.turn("2026-06-01T23:59+02:00", 60 * DOLLAR) == ["50%"]
    assert alerts.turn("2026-06-02T00:01+02:00", 85 * DOLLAR) == ["50%", "80%"]
    assert alerts.turn("2026-06-01T23:58+02:00", 0) == []  # back: the old period's rows are still there
    assert alerts.turn("2026-06-01T23:59+02:00", 25 * DOLLAR) == ["80%"]  # and what is still missing in it fires
    assert alerts.turn("2026-06-02T00:01+02:00", 0) == []
    assert alerts.turn("2027-06-02T00:01+02:00", 0) == []  # a year ahead by mistake
    assert alerts.turn("2026-06-02T00:02+02:00", 15 * DOLLAR) == ["100%"]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)],
)
def test_days_of_daylight_saving_fire_once_and_are_forecast_to_their_own_end(day: str, hours: int) -> None:
    alerts = Alerts()
    period = period_at("day", BERLIN, datetime.fromisoformat(f"{day}T12:00+02:00").timestamp())
    assert period.end_unix is not None
    length = period.end_unix - period.start_unix
    assert length == hours * HOUR
    fired = []
    for hour in range(hours):
        forecast = forecast_spend([4 * DOLLAR] * 25, hour * HOUR, length, hour * 4 * DOLLAR)
        assert forecast == certain(4 * hours)
        at = datetime.fromtimestamp(period.start_unix + hour * HOUR, BERLIN).isoformat()
        fired += alerts.turn(at, 4 * DOLLAR if hour else 0, forecast)
    expected = ["50%", "80%"] if hours < 25 else ["forecast 100%", "50%", "80%"]  # 92, 96 and 100 dollars
    assert fired == expected


@given(
    shares=st.lists(st.builds(Threshold, st.integers(1, 1000), st.booleans()), max_size=8),
    cap=st.integers(0, MAX_USD_NANOS),
    spends=st.lists(st.integers(0, MAX_USD_NANOS // 8), max_size=8),
)
def test_whatever_is_spent_each_fires_at_most_once_and_when_it_is_reached(
    shares: list[Threshold], cap: int, spends: list[int]
) -> None:
    fired: list[str] = []
    spent = 0
    for spend in spends:
        spent += spend
        fired += [threshold.text for threshold in due(shares, cap, spent, Forecast(spent, spent, spent), fired)]
    assert len(fired) == len(set(fired))
    reached = {t.text for t in shares if spent and spent * 100 >= t.share_percent * cap}
    assert set(fired) == reached


# The forecast.

Draw = Callable[[random.Random, int], float]


def steady(dice: random.Random, hour: int) -> float:
    return dice.gauss(10, 3)


def bursty(dice: random.Random, hour: int) -> float:
    return dice.expovariate(0.1)


def daily(dice: random.Random, hour: int) -> float:
    return dice.gauss(1, 0.3) * (10 + 9 * math.sin(hour / 24 * math.tau))


def spends_of(draw: Draw, dice: random.Random, hours: range) -> list[int]:
    return [max(0, int(draw(dice, hour) * DOLLAR)) for hour in hours]


@pytest.mark.parametrize(
    ("draw", "history", "least", "bias"),
    [
        (steady, 24, 0.7, 0.02),
        (steady, 336, 0.7, 0.02),
        (bursty, 24, 0.65, 0.08),
        (bursty, 336, 0.7, 0.05),
        (daily, 48, 0.65, 0.03),
        (daily, 336, 0.65, 0.03),
    ],
)
def test_the_interval_holds_about_four_of_five_outcomes(draw: Draw, history: int, least: float, bias: float) -> None:
    dice = random.Random(7)
    rounds, inside, errors = 300, 0, 0.0
    for _ in range(rounds):
        forecast = forecast_spend([*spends_of(draw, dice, range(history)), 0], 0, 60 * HOUR, 0)
        came = sum(spends_of(draw, dice, range(history, history + 60)))
        assert forecast is not None
        inside += forecast.low_usd_nanos <= came <= forecast.high_usd_nanos
        errors += forecast.expected_usd_nanos / came - 1
    assert least <= inside / rounds <= 0.9
    assert abs(errors / rounds) <= bias


@pytest.mark.parametrize("outlier", [0, 100_000 * DOLLAR])
@pytest.mark.parametrize(("hours", "place"), [(24, 5), (24, 23), (72, 40)])
def test_one_outlier_hour_moves_little(hours: int, place: int, outlier: int) -> None:
    history = spends_of(steady, random.Random(3), range(hours + 1))
    usual = forecast_spend(history, 0, 10 * DAY, 0)
    moved = forecast_spend([*history[:place], outlier, *history[place + 1 :]], 0, 10 * DAY, 0)
    assert usual is not None
    assert moved is not None
    assert (
        abs(moved.expected_usd_nanos / usual.expected_usd_nanos - 1) < 0.1
    )  # at most what two large hours differ by, over 24
    assert moved.high_usd_nanos < 1.3 * usual.high_usd_nanos


def night_and_day(hours: int) -> list[int]:
    """Ten dollars an hour for the first twelve of each day, nothing for the rest."""
    return [10 * DOLLAR if hour % 24 < 12 else 0 for hour in range(hours)]


@pytest.mark.parametrize(
    ("elapsed_hours", "coming"),
    [(0, 120), (6, 60), (11.5, 5), (12, 0), (18, 0)],
)
def test_hours_of_the_day_are_told_apart_from_two_days_on(elapsed_hours: float, coming: int) -> None:
    running = int(elapsed_hours)
    history = night_and_day(48 + running + 1)
    forecast = forecast_spend(history, elapsed_hours * HOUR, DAY, 7 * DOLLAR)
    assert forecast == certain(7 + coming)


def test_a_daily_burst_in_one_hour_is_no_outlier() -> None:
    history = [24 * DOLLAR if hour % 24 == 3 else 0 for hour in range(72)]
    assert forecast_spend([*history, 0], 0, 7 * DAY, 0) == certain(7 * 24)


def test_with_one_day_of_history_it_goes_on_as_it_was_on_average() -> None:
    forecast = forecast_spend([*night_and_day(47), 0], 0, 2 * DAY, 0)  # the last 24 of the 47
    assert forecast is not None
    assert forecast.expected_usd_nanos == 240 * DOLLAR
    assert forecast.low_usd_nanos < 200 * DOLLAR
    assert forecast.high_usd_nanos > 280 * DOLLAR


@pytest.mark.parametrize(
    ("history", "hours_left"),
    [
        ([], 1),
        ([DOLLAR], 1),
        ([DOLLAR] * LEAST_HOURS, 1),  # of them, one is not over
        ([0] * 100, 24),
        ([0] * 50 + [9 * DOLLAR] + [0] * 50, 24),  # one hour could be an accident
        ([0] * 100 + [9 * DOLLAR], 24),  # the running hour says nothing
        ([DOLLAR] * 13, 13),  # half a day tells of half a day
    ],
)
def test_too_little_history_is_no_forecast(history: list[int], hours_left: int) -> None:
    assert forecast_spend(history, 0, hours_left * HOUR, 5 * DOLLAR) is None


@pytest.mark.parametrize(("history", "hours_left"), [([DOLLAR] * (LEAST_HOURS + 1), 6), ([DOLLAR] * 13, 12)])
def test_just_enough_history_is_one(history: list[int], hours_left: int) -> None:
    assert forecast_spend(history, 0, hours_left * HOUR, 5 * DOLLAR) == certain(5 + hours_left)


@pytest.mark.parametrize("running", [0, 3 * DOLLAR, 500 * DOLLAR])
def test_the_running_hour_does_not_count_as_a_whole_one(running: int) -> None:
    forecast = forecast_spend([4 * DOLLAR] * 30 + [running], 20.25 * HOUR, DAY, running)
    assert forecast == Forecast(*(running + 15 * DOLLAR,) * 3)


@pytest.mark.parametrize(("elapsed", "hours_left"), [(DAY, 0), (3 * DAY, 0), (-DAY, 24)])
def test_a_clock_outside_the_period_stays_within_it(elapsed: int, hours_left: int) -> None:
    assert forecast_spend([DOLLAR] * 30, elapsed, DAY, 9 * DOLLAR) == certain(9 + hours_left)


@given(
    history=st.lists(st.integers(0, 10**15), max_size=120),
    elapsed=st.floats(-1e9, 1e9),
    period=st.floats(1, 4e7),
    spent=st.integers(0, MAX_USD_NANOS),
)
def test_a_forecast_is_in_order_and_never_below_what_was_spent(
    history: list[int], elapsed: float, period: float, spent: int
) -> None:
    forecast = forecast_spend(history, elapsed, period, spent)
    if forecast is None:
        assert len(history) <= 24 or sum(value > 0 for value in history[:-1][-24:]) < 2
        return
    assert spent <= forecast.low_usd_nanos <= forecast.expected_usd_nanos <= forecast.high_usd_nanos
    assert max(history[:-1]) > 0


@given(history=st.lists(st.integers(0, 10**12), min_size=50, max_size=120), scale=st.integers(1, 1000))
def test_a_forecast_is_the_same_in_any_currency(history: list[int], scale: int) -> None:
    plain = forecast_spend(history, 0, 3 * DAY, 0)
    scaled = forecast_spend([value * scale for value in history], 0, 3 * DAY, 0)
    assert (plain is None) == (scaled is None)
    if plain is not None and scaled is not None:
        assert scaled.expected_usd_nanos == pytest.approx(plain.expected_usd_nanos * scale, rel=1e-9, abs=scale)
