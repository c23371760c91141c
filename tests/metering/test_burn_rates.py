"""When a missed objective matters, and when it is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.metering.burn_rates import (
    BUCKET_SECONDS,
    CALM_SECONDS,
    KEPT_BUCKETS,
    RULES,
    Counts,
    MissLog,
    burning,
    is_calm,
)

HOUR = 3600.0


def log_of(*spans: tuple[float, int, int], ends: float = 0.0) -> MissLog:
    """Of (minutes, judged a minute, missed a minute), oldest first, up to `ends` (monotonic seconds)."""
    log = MissLog()
    minute = ends / 60 - sum(span for span, _, _ in spans)
    for span, judged, missed in spans:
        for _ in range(int(span)):
            minute += 1
            log.add(minute * 60 - 1, judged, missed)
    return log


def severity(log: MissLog, attainment: float = 0.99, now: float = -1.0) -> str | None:
    burn = burning(attainment, log, now)
    return burn and burn.rule.severity


@pytest.mark.parametrize(
    ("spans", "attainment", "expected"),
    [
        ([(360, 100, 1)], 0.99, None),  # exactly what is allowed
        ([(360, 100, 5)], 0.99, None),  # five times: below both rules
        ([(360, 100, 6)], 0.99, "warning"),
        ([(360, 1000, 143)], 0.99, "warning"),
        ([(60, 1000, 144)], 0.99, "critical"),
        ([(60, 100, 15)], 0.99, "critical"),
        ([(300, 100, 0), (60, 100, 15)], 0.99, "critical"),  # six hours are not needed for it
        ([(352, 100, 0), (8, 100, 100)], 0.99, None),  # of an outage, 8 minutes of the hour are less than 14.4 %
        ([(351, 100, 0), (9, 100, 100)], 0.99, "critical"),
        ([(351, 100, 0), (3, 100, 100), (6, 100, 0)], 0.99, None),  # it is over, as the short window says
        ([(55, 100, 100), (5, 100, 0)], 0.99, "warning"),  # the last half hour still is bad enough for it
        ([(330, 100, 20), (30, 100, 0)], 0.99, None),
        ([(2, 6, 6), (1, 7, 7)], 0.99, None),  # too few requests
        ([(2, 6, 6), (1, 8, 8)], 0.99, "critical"),
        ([(2, 1000, 1000)], 0.99, None),  # a burst
        ([(5, 100, 1), (1, 100, 0)], 0.999, "warning"),
        ([(5, 30, 1)], 0.999, "critical"),
        ([(4, 30, 1)], 0.999, None),  # four misses
        ([(60, 100, 54)], 0.9, "warning"),  # 14.4 times would be more than all
        ([(60, 100, 55)], 0.9, "critical"),
        ([(360, 100, 32)], 0.9, None),
        ([(360, 100, 33)], 0.9, "warning"),
        ([(60, 100, 75)], 0.5, "critical"),
        ([(60, 100, 62)], 0.5, None),
        ([(60, 1000, 625)], 0.5, "warning"),
        ([], 0.99, None),
    ],
)
def test_a_rule_holds_where_both_windows_burn(
    spans: list[tuple[float, int, int]], attainment: float, expected: str | None
) -> None:
    assert severity(log_of(*spans), attainment) == expected


def test_a_burn_tells_what_it_saw() -> None:
    burn = burning(0.99, log_of((55, 100, 0), (5, 200, 200)), -1.0)
    assert burn is not None
    assert (burn.long, burn.short) == (Counts(6500, 1000, 5), Counts(1000, 1000, 5))
    assert burn.long.miss_share == pytest.approx(0.1538, abs=1e-4)


def test_an_episode_is_over_when_what_is_allowed_was_not_exceeded_for_half_an_hour() -> None:
    log = log_of((60, 100, 100))
    calm = [minute for minute in range(60) if is_calm(0.99, log, minute * 60 - 1.0)]
    assert calm == list(range(CALM_SECONDS // 60, 60)), "nobody asks any more: nothing is missed"
    log = log_of((60, 100, 100), (30, 100, 1))
    assert is_calm(0.99, log, -1.0)
    assert not is_calm(0.99, log_of((60, 100, 100), (29, 100, 1)), -1.0)
    assert not is_calm(0.99, log_of((60, 100, 100), (30, 100, 2)), -1.0)


def test_what_was_kept_is_taken_up_at_another_time() -> None:
    log, later = log_of((360, 100, 6)), MissLog()
    later.restore(log.kept(-1.0), 10_000_000.0 + 30)
    assert severity(later, now=10_000_000.0 + 30) == "warning"
    assert later.counts(10_000_030.0, 21_600).judged in (35_900, 36_000)
    assert severity(later, now=10_000_000.0 + 1900) is None


def test_a_time_that_is_earlier_counts_as_of_the_last() -> None:
    log = MissLog()
    log.add(600.0, 10, 1)
    log.add(60.0, 5, 5)
    assert log.counts(600.0, 300) == Counts(15, 6, 1)


_minutes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 60)).map(lambda t: (t[0], t[1], min(t[1], t[2]))),
    max_size=400,
)
_attainments = st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999, 0.9999])


@given(_minutes, _attainments)
def test_a_log_is_bounded_and_counts_what_a_window_holds(steps: list[tuple[int, int, int]], attainment: float) -> None:
    log, minute, kept = MissLog(), 0, list[tuple[int, int, int]]()
    for gap, judged, missed in steps:
        minute += gap
        log.add(minute * 60.0, judged, missed)
        if judged:
            kept.append((minute, judged, missed))
    now = minute * 60.0
    assert len(log.kept(now)) <= KEPT_BUCKETS
    for seconds in {each for rule in RULES for each in (rule.long_seconds, rule.short_seconds)}:
        inside = [each for each in kept if each[0] > minute - seconds // BUCKET_SECONDS]
        assert log.counts(now, seconds) == Counts(
            sum(e[1] for e in inside), sum(e[2] for e in inside), len({e[0] for e in inside if e[2]})
        )
    burn = burning(attainment, log, now)
    if burn is not None:
        assert burn.long.missed >= burn.short.missed > 0
        assert burn.long.miss_share > 1 - attainment


@given(_minutes, _attainments)
def test_what_attains_never_fires_and_one_that_fires_is_not_calm(
    steps: list[tuple[int, int, int]], attainment: float
) -> None:
    log, good, minute = MissLog(), MissLog(), 0
    for gap, judged, missed in steps:
        minute += gap
        log.add(minute * 60.0, judged, missed)
        good.add(minute * 60.0, judged, int(judged * (1 - attainment)))
    now = minute * 60.0
    assert burning(attainment, good, now) is None
    assert is_calm(attainment, good, now)
    burn = burning(attainment, log, now)
    if burn is not None and burn.rule.severity == "warning":  # its short window is what calm is judged by
        assert not is_calm(attainment, log, now)


@given(_minutes, st.integers(1, 30))
def test_more_misses_never_make_it_less_severe(steps: list[tuple[int, int, int]], more: int) -> None:
    log, worse, minute = MissLog(), MissLog(), 0
    for gap, judged, missed in steps:
        minute += gap
        log.add(minute * 60.0, judged, missed)
        worse.add(minute * 60.0, judged, min(judged, missed + more))
    ranks = {None: 0, "warning": 1, "critical": 2}
    assert ranks[severity(worse, now=minute * 60.0)] >= ranks[severity(log, now=minute * 60.0)]
