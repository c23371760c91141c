"""From reports to windows: differences of sums, whatever is lost, doubled, restarted or silent."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.server.signals import FRESH_SECONDS, Signals
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import LengthSums, Window

USUAL = 5.0


def load(**sums: float) -> Load:
    return Load(0, 0, (), (), (ModelLoad("m", **sums),))  # type: ignore[arg-type]  # the test's own shorthand


def signals(*workers: str) -> Signals:
    made = Signals({"m": "m", "adapter": "m"}, 0.0)
    for worker in workers:
        made.report(worker, Load(0, 0, (), ()), 0.0)
    return made


def window(made: Signals, now: float, *living: str) -> Window:
    found = made.window("m", living, now, USUAL)
    assert found is not None
    return found


def test_what_happened_between_two_turns_is_in_the_window() -> None:
    made = signals("w")
    made.report(
        "w", load(arrivals=4, arrived_prompt_tokens=40, completed=2, n_sum=20, n2_sum=200, o_sum=6, o2_sum=18,
                  no_sum=60, decoded_tokens=9, judged=3, attained=2, ttft_ms_sum=300.0, itl_ms_sum=50.0,
                  open_seconds=10.0, in_flight=1, queued=2, oldest_queued_seconds=1.5), 5.0,
    )  # fmt: skip
    assert window(made, 5.0, "w") == Window(
        at=5.0, seconds=5.0, arrivals=4, arrived_prompt_tokens=40, completed=LengthSums(2, 20, 200, 6, 18, 60),
        decoded_tokens=9, judged=3, attained=2, ttft_ms_sum=300.0, itl_ms_sum=50.0, in_flight=1, queued=2,
        oldest_queued_seconds=1.5, mean_in_flight=2.0,
    )  # fmt: skip
    made.report("w", load(arrivals=5, arrived_prompt_tokens=50), 8.0)
    later = window(made, 10.0, "w")
    assert (later.arrivals, later.arrived_prompt_tokens, later.queued, later.seconds) == (1, 10, 0, 5.0)


def test_workers_and_adapters_add_up() -> None:
    made = signals("w", "x")
    made.report("w", Load(0, 0, (), (), (ModelLoad("m", arrivals=1), ModelLoad("adapter", arrivals=2, queued=1))), 5.0)
    made.report("x", Load(0, 0, (), (), (ModelLoad("m", arrivals=4), ModelLoad("stranger", arrivals=9))), 5.0)
    seen = window(made, 5.0, "w", "x")
    assert (seen.arrivals, seen.queued, made.queued("m")) == (7, 1, 1)


def test_what_a_worker_told_before_counting_began_is_not_counted_again() -> None:
    made = Signals({"m": "m"}, 0.0)
    made.report("adopted", load(arrivals=1000), 1.0)
    assert window(made, 2.0, "adopted").arrivals == 0
    made.report("adopted", load(arrivals=1003), 3.0)
    assert window(made, 7.0 - 1.5, "adopted").arrivals == 3


def test_without_a_report_of_a_living_worker_nothing_is_known() -> None:
    made = signals("w", "x")
    made.report("w", load(), 10.0)
    assert made.window("m", ("w", "x"), 10.0, USUAL) is None
    assert made.window("m", ("w", "never heard of"), 10.0, USUAL) is None
    assert made.window("m", (), 10.0, USUAL) is None
    made.report("x", load(arrivals=2), 10.5)
    assert window(made, 11.0, "w", "x").arrivals == 2


def test_a_silent_worker_does_not_keep_those_waiting_that_another_tells_of() -> None:
    made = signals("w", "x")
    made.report("w", load(arrivals=1, queued=1), 10.0)
    assert window(made, 10.0, "w", "x").queued == 1


def test_what_a_worker_told_before_it_died_stays_counted() -> None:
    made = signals("w", "x")
    made.report("w", load(arrivals=3, queued=2), 4.0)
    made.forget(["x"])
    made.report("x", load(arrivals=1), 4.5)
    seen = window(made, 5.0, "x")
    assert (seen.arrivals, seen.queued) == (4, 0)


def test_a_turn_before_its_time_takes_the_quiet_before_with_it() -> None:
    made = signals("w")
    made.report("w", load(), 5.0)
    assert window(made, 5.0, "w").seconds == 5.0
    made.report("w", load(arrivals=1, queued=1), 5.1)
    early = window(made, 5.1, "w")
    assert (early.arrivals, early.seconds) == (1, pytest.approx(5.1))
    made.report("w", load(arrivals=9), 6.0)
    assert window(made, 6.0, "w").seconds == pytest.approx(0.9), "there was no quiet before it"


def test_an_early_first_turn_counts_as_a_usual_one() -> None:
    made = signals("w")
    made.report("w", load(arrivals=1, queued=1), 0.02)
    assert window(made, 0.02, "w").seconds == pytest.approx(USUAL + 0.02)


@given(st.integers(0, 2**32 - 1))
def test_lost_and_doubled_reports_change_no_sum(seed: int) -> None:
    """Some reports are lost, some come twice; the last one arrives. The windows together hold what happened."""
    dice = random.Random(seed)
    made = signals("w")
    arrivals, counted, now = 0, 0, 0.0
    for _ in range(dice.randint(1, 30)):
        arrivals += dice.randint(0, 5)
        now += 1.0
        for _ in range(dice.choice([0, 1, 1, 2])):
            made.report("w", load(arrivals=arrivals), now)
        if dice.random() < 0.3:
            found = made.window("m", ["w"], now, 0.0)
            counted += found.arrivals if found else 0
    made.report("w", load(arrivals=arrivals), now)
    counted += window(made, now + FRESH_SECONDS / 2, "w").arrivals
    assert counted == arrivals
