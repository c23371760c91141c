"""From reports to windows: differences of sums, whatever is lost, doubled, restarted or silent."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.server.signals import FRESH_SECONDS, SILENT_SECONDS, STUTTER_SECONDS, Signals
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
    assert (later.arrivals, later.arrived_prompt_tokens, later.queued, later.seconds) == (1, 10, 0, 3.0)


def test_workers_and_adapters_add_up() -> None:
    made = signals("w", "x")
    made.report("w", Load(0, 0, (), (), (ModelLoad("m", arrivals=1), ModelLoad("adapter", arrivals=2, queued=1))), 5.0)
    made.report("x", Load(0, 0, (), (), (ModelLoad("m", arrivals=4), ModelLoad("stranger", arrivals=9))), 5.0)
    seen = window(made, 5.0, "w", "x")
    assert (seen.arrivals, seen.queued, made.queued("m")) == (7, 1, 1)


def test_what_a_worker_told_before_counting_began_is_not_counted_again() -> None:
    made = Signals({"m": "m"}, 0.0)
    made.report("adopted", load(arrivals=1000, open_seconds=5000.0, in_flight=10), 1.0)
    assert made.window("m", ["adopted"], 2.0, USUAL) is None, "one report tells of no time"
    made.report("adopted", load(arrivals=1003, open_seconds=5020.0, in_flight=10), 3.0)
    seen = window(made, 5.5, "adopted")
    assert (seen.arrivals, seen.seconds, seen.mean_in_flight) == (3, 2.0, 10.0)


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


@pytest.mark.parametrize("interval_seconds", [0.2, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_steady_load_reads_the_same_however_often_a_turn_comes(interval_seconds: float, workers: int) -> None:
    """100 in flight and 12 arrivals a second; each worker reports once a second, at a moment of its own."""
    names = [f"w{number}" for number in range(workers)]
    made, told, seen = Signals({"m": "m"}, 0.0), dict.fromkeys(names, 0), []
    for turn in range(1, round(60 / interval_seconds)):
        now = turn * interval_seconds
        for number, name in enumerate(names):
            while (at := told[name] + 0.55 + 0.11 * number) <= now:
                arrivals = 12 * told[name] // workers
                made.report(name, load(arrivals=arrivals, open_seconds=at * 100 / workers, in_flight=25), at)
                told[name] += 1
        if found := made.window("m", names, now, interval_seconds):
            seen.append(found)
    assert len(seen) >= 60 / max(1.0, interval_seconds) - 3
    assert {round(each.mean_in_flight, 6) for each in seen} == {100.0}
    assert {round(each.arrivals / each.seconds, 6) for each in seen} == {12.0}


def test_a_worker_that_told_nothing_new_makes_no_window() -> None:
    made = signals("w")
    made.report("w", load(arrivals=1, open_seconds=10.0, in_flight=10), 1.0)
    assert not made.is_awaited("m", ["w"], 1.1)
    assert window(made, 1.1, "w").mean_in_flight == 10.0
    assert made.window("m", ["w"], 1.3, USUAL) is None
    assert made.is_awaited("m", ["w"], 1.3), "it is about to speak"
    assert not made.is_awaited("m", ["w"], 1.2 + FRESH_SECONDS), "it is silent, and that is to be said"
    made.report("w", load(arrivals=1, open_seconds=20.0, in_flight=10), 2.0)
    assert window(made, 2.1, "w").mean_in_flight == 10.0


def test_two_reports_at_almost_the_same_moment_make_no_window() -> None:
    """What the second tells happened over a second; only it was read late."""
    made = signals("w")
    made.report("w", load(arrivals=10, open_seconds=10.0, in_flight=10), 1.0)
    window(made, 1.0, "w")
    made.report("w", load(arrivals=20, open_seconds=20.5, in_flight=10, queued=1), 1.001)
    assert made.window("m", ["w"], 1.001, 0.2) is None
    made.report("w", load(arrivals=30, open_seconds=30.5, in_flight=10, queued=1), 3.0)
    seen = window(made, 3.0, "w")
    assert (seen.arrivals, seen.seconds, seen.mean_in_flight) == (20, 2.0, pytest.approx(10.25))


def test_the_quiet_that_an_early_turn_takes_with_it_counts_for_what_was_in_flight_as_well() -> None:
    made = signals("w")
    made.report("w", load(), 5.0)
    window(made, 5.0, "w")
    made.report("w", load(arrivals=3, open_seconds=0.255, queued=3), 5.1)
    early = window(made, 5.1, "w")
    assert early.mean_in_flight == pytest.approx(0.05)
    assert early.mean_in_flight * early.seconds == pytest.approx(0.255)


def test_who_waits_after_some_quiet_does_not_wait_for_a_second_worker_to_speak() -> None:
    made = signals("w", "x")
    for worker in ("w", "x"):
        made.report(worker, load(), 5.0)
    window(made, 5.0, "w", "x")
    made.report("w", load(arrivals=1, queued=1), 5.2)
    assert window(made, 5.2, "w", "x").queued == 1
    made.report("w", load(arrivals=1, queued=1), 6.0)
    assert made.window("m", ["w", "x"], 6.0, USUAL) is None, "half of what happened says nothing of the rate"
    made.report("x", load(arrivals=4, open_seconds=3.0), 6.1)
    seen = window(made, 6.1, "w", "x")
    assert (seen.arrivals, seen.seconds) == (4, pytest.approx((0.8 + 1.1) / 2))


def test_a_worker_that_joins_counts_by_the_time_that_it_told_of() -> None:
    made = signals("w")
    made.report("w", load(open_seconds=40.0, in_flight=10), 4.0)
    window(made, 4.0, "w")
    made.report("x", load(arrivals=5, open_seconds=300.0, in_flight=5), 6.0)
    made.report("w", load(arrivals=10, open_seconds=90.0, in_flight=10), 9.0)
    made.report("x", load(arrivals=7, open_seconds=315.0, in_flight=5), 9.0)
    seen = window(made, 9.0, "w", "x")
    assert (seen.arrivals, seen.seconds, seen.mean_in_flight) == (12, 5.0, 15.0)


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
    made.report("w", load(arrivals=arrivals), now + 1.0)
    counted += window(made, now + FRESH_SECONDS / 2, "w").arrivals
    assert counted == arrivals


def test_what_batch_is_of_a_window_is_told_apart() -> None:
    made = signals("w", "x")
    part = ModelLoad("m", arrivals=3, completed=2, n_sum=20, o_sum=8, in_flight=1, queued=4, open_seconds=5.0)
    made.report("w", load(arrivals=5, completed=3, n_sum=50, o_sum=9, in_flight=2, queued=4, batch=part), 5.0)
    made.report("x", load(arrivals=7), 5.0)
    seen = window(made, 5.0, "w", "x")
    assert seen.batch is not None
    assert (seen.arrivals, seen.in_flight, seen.queued) == (12, 2, 4)
    assert (seen.batch.arrivals, seen.batch.in_flight, seen.batch.queued) == (3, 1, 4)
    assert seen.batch.completed == LengthSums(2, 20, 0, 8)
    assert (seen.of_others.arrivals, seen.of_others.in_flight, seen.of_others.queued) == (9, 1, 0)
    assert seen.of_others.running_share == 0.5
    made.report("w", load(arrivals=6, completed=3, n_sum=50, o_sum=9, batch=part), 10.0)
    made.report("x", load(arrivals=7), 10.0)
    later = window(made, 10.0, "w", "x")
    assert later.arrivals == 1
    assert later.batch is not None, "some of it runs"
    assert later.batch.arrivals == 0


def test_one_that_stays_silent_keeps_the_others_from_being_seen_no_longer_than_promised() -> None:
    made = signals("w", "x")
    made.report("x", load(arrivals=5, in_flight=3, queued=2), 1.0)
    seen: list[tuple[float, int, int, int, bool]] = []
    for second in range(1, 60):
        made.report("w", load(arrivals=2 * second, in_flight=1), float(second))
        if found := made.window("m", ("w", "x"), float(second), USUAL):
            seen.append((found.at, found.arrivals, found.in_flight, found.queued, found.is_partial))
    silent = 1.0 + FRESH_SECONDS + 1.0  # when it is noticed, in a turn a second
    whole = [each for each in seen if each[0] < silent]
    assert all(not partial for *_, partial in whole)
    after = [each for each in seen if each[0] >= silent + SILENT_SECONDS]
    assert {partial for *_, partial in after} == {True}
    assert [each[0] for each in after] == [float(second) for second in range(35, 60)], "as often as ever"
    assert {(arrivals, in_flight, queued) for _, arrivals, in_flight, queued, _ in after[1:]} == {(2, 1, 0)}


def test_one_that_speaks_again_begins_anew() -> None:
    made = signals("w", "x")
    for second in range(1, 100):
        made.report("w", load(arrivals=second), float(second))
        made.window("m", ("w", "x"), float(second), USUAL)
    for second in range(100, 103):
        made.report("w", load(arrivals=second), float(second))
        made.report("x", load(arrivals=1000 + 3 * second), float(second))
        seen = made.window("m", ("w", "x"), float(second), USUAL)
    assert seen is not None
    assert (seen.arrivals, seen.seconds, seen.is_partial) == (1 + 3, 1.0, False)


def test_one_that_was_never_heard_is_waited_for_as_long_and_forgotten_when_it_ends() -> None:
    made = signals("w")
    found = []
    for second in range(1, 80):
        made.report("w", load(arrivals=second), float(second))
        living = ("w", "found in the store") if second < 60 else ("w",)
        made.forget(living)
        if seen := made.window("m", living, float(second), USUAL):
            found.append((second, seen.is_partial))
    assert found == [*((second, True) for second in range(31, 60)), *((second, False) for second in range(60, 80))]


def test_those_who_stutter_in_turns_keep_the_others_from_being_seen_no_longer_than_promised() -> None:
    made = signals("w", "x", "y")
    seen: list[Window] = []
    for second in range(1, 200):
        made.report("w", load(arrivals=second, completed=second), float(second))
        for worker, turn in (("x", 0), ("y", 5)):
            if (second < 150 and second % 10 == turn) or second >= 150:  # never both within FRESH_SECONDS of each other
                made.report(worker, load(arrivals=2 * second, completed=2 * second), float(second))
        if found := made.window("m", ("w", "x", "y"), float(second), USUAL):
            seen.append(found)
    assert seen[0].at <= STUTTER_SECONDS + 1
    stuttered = [each for each in seen if each.at < 150]
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(stuttered)]
    assert max(gaps) <= FRESH_SECONDS + 1, "and soon again from then on"
    assert all(each.is_partial for each in stuttered), "so nobody is let go"
    assert not seen[-1].is_partial
    assert sum(each.completed.count for each in seen) == 199 + 2 * 2 * 199, "what they told is counted, if late"
    assert {round(each.arrivals / each.seconds) for each in seen} == {1 + 2 * 2}, "and what arrived by its pace"


def test_where_all_are_silent_nothing_is_known() -> None:
    made = signals("w", "x")
    assert all(made.window("m", ("w", "x"), float(second), USUAL) is None for second in range(4, 200))


@pytest.mark.parametrize("every", [8, 17, 24])  # seconds between the reports of one that stutters
def test_a_steady_demand_reads_the_same_while_the_one_that_has_it_stutters_and_when_that_ends(every: int) -> None:
    idle = [f"idle{i}" for i in range(9)]
    living = ["busy", "other", *idle]
    made = signals(*living)
    told: list[Window] = []
    for second in range(1, 500):
        stutters = 100 < second < 400
        for worker in idle:
            made.report(worker, load(), float(second))
        if not stutters or second % every == 0:
            sums = load(arrivals=10 * second, arrived_prompt_tokens=1000 * second, open_seconds=20.0 * second)
            made.report("busy", sums, float(second))
        if not stutters or second % every == every // 2:
            made.report("other", load(), float(second))
        found = made.window("m", living, float(second), USUAL) if second % 5 == 0 else None
        told += [found] if found is not None else []
    assert sum(each.is_partial for each in told) > 30
    assert {round(each.arrivals / each.seconds) for each in told} == {10}
    assert {round(each.arrived_prompt_tokens / each.seconds, -1) for each in told} == {1000}
    assert {round(each.mean_in_flight, 6) for each in told} == {20.0}


def test_few_requests_of_one_that_stutters_are_told_of() -> None:
    living = ["rare", "other", "w"]
    made = signals(*living)
    told = 0
    for second in range(1, 600):
        made.report("w", load(), float(second))
        if second % 24 == 0:
            made.report("rare", load(arrivals=second // 48), float(second))  # one in every second report
        if second % 24 == 12:
            made.report("other", load(), float(second))
        found = made.window("m", living, float(second), USUAL) if second % 5 == 0 else None
        told += found.arrivals if found is not None else 0
    assert told == 599 // 48, "each once"
