"""Shapes keep what they promise to keep: requests, order, the clock, the mix, and who shares a prefix with whom."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import UserError
from swell.simulator.traffic import between, describe, scale_rate, superpose, time_warp
from swell.simulator.traffic.prefixes import PrefixColumn
from swell.state.traffic import Traffic

Request = tuple[float, int, int, tuple[int, ...]]

requests = st.tuples(
    st.floats(0.0, 1e6),
    st.integers(1, 10**6),
    st.integers(1, 10**5),
    st.lists(st.integers(0, 50), max_size=4).map(tuple),
)


def of(rows: list[Request], start_unix: float | None = 1e9) -> Traffic:
    rows = sorted(rows, key=lambda row: row[0])
    return Traffic(
        np.array([row[0] for row in rows], dtype=np.float64),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array([row[2] for row in rows], dtype=np.int32),
        tuple(row[3] for row in rows),
        start_unix=start_unix,
        name="some",
    )


traffics = st.lists(requests, min_size=1, max_size=30).map(of)


def mix(traffic: Traffic) -> Counter[tuple[int, int]]:
    return Counter(zip(traffic.prompt_tokens.tolist(), traffic.output_tokens.tolist(), strict=True))


def rows_of(traffic: Traffic) -> list[Request]:
    return list(
        zip(
            traffic.arrival_seconds.tolist(),
            traffic.prompt_tokens.tolist(),
            traffic.output_tokens.tolist(),
            traffic.prefix_blocks,
            strict=True,
        )
    )


@given(traffics, st.floats(1e-3, 1e3))
def test_warping_keeps_all_but_the_speed_and_can_be_undone(traffic: Traffic, factor: float) -> None:
    warped = time_warp(traffic, factor)
    assert mix(warped) == mix(traffic)
    assert warped.seconds == pytest.approx(traffic.seconds / factor)
    back = time_warp(warped, 1 / factor)
    assert back.arrival_seconds.tolist() == pytest.approx(traffic.arrival_seconds.tolist())


@given(traffics, st.integers(1, 6), st.floats(0.0, 1e6), st.integers(0, 2**32))
def test_superposing_multiplies_every_request_and_keeps_the_period(
    traffic: Traffic, copies: int, shift: float, seed: int
) -> None:
    total = superpose(traffic, copies, shift_seconds=shift, seed=seed)
    assert len(total) == copies * len(traffic)
    assert mix(total) == Counter({kind: copies * count for kind, count in mix(traffic).items()})
    gap = traffic.seconds / max(len(traffic) - 1, 1)
    assert total.seconds <= traffic.seconds + gap * (1 + 1e-9)
    assert total.start_unix == traffic.start_unix
    again = superpose(traffic, copies, shift_seconds=shift, seed=seed)
    assert rows_of(again) == rows_of(total)


@given(traffics, st.integers(2, 5))
def test_copies_share_prefixes_among_themselves_only(traffic: Traffic, copies: int) -> None:
    total = superpose(traffic, copies, shift_seconds=0.0)
    once = {block for blocks in traffic.prefix_blocks for block in blocks}
    assert len({block for blocks in total.prefix_blocks for block in blocks}) == copies * len(once)


@given(traffics, st.floats(0.01, 5.0), st.integers(0, 2**32))
def test_scaling_the_rate_keeps_whole_copies_and_thins_the_rest(traffic: Traffic, factor: float, seed: int) -> None:
    scaled = scale_rate(traffic, factor, seed=seed)
    whole = int(factor)
    assert whole * len(traffic) <= len(scaled) <= (whole + 1) * len(traffic)
    assert all(whole * count <= mix(scaled)[kind] <= (whole + 1) * count for kind, count in mix(traffic).items())


@given(traffics)
def test_a_factor_of_one_changes_nothing(traffic: Traffic) -> None:
    assert rows_of(scale_rate(traffic, 1.0)) == rows_of(traffic)
    assert rows_of(superpose(traffic, 1)) == rows_of(traffic)
    assert rows_of(time_warp(traffic, 1.0)) == rows_of(traffic)


def test_thinning_hits_its_rate() -> None:
    traffic = of([(float(n), 10, 10, ()) for n in range(20_000)])
    for factor in (0.1, 0.9, 1.5, 3.25):
        assert len(scale_rate(traffic, factor)) == pytest.approx(20_000 * factor, rel=0.05)


@given(traffics, st.floats(0.0, 1e6), st.floats(1.0, 1e6))
def test_cuts_that_meet_hold_every_request_once(traffic: Traffic, at: float, more: float) -> None:
    parts = [between(traffic, 0.0, at)] if at > 0 else []
    parts += [between(traffic, at, at + more), between(traffic, at + more, 1e7)]
    assert sum((mix(part) for part in parts), Counter()) == mix(traffic)
    middle = parts[-2]
    assert middle.start_unix == (traffic.start_unix or 0.0) + at
    assert ((middle.arrival_seconds >= 0) & (middle.arrival_seconds <= more)).all()


def test_the_start_of_a_cut_becomes_zero_even_where_nothing_arrives() -> None:
    cut = between(of([(0.0, 1, 1, (1,)), (10.0, 2, 2, (1, 2)), (20.0, 3, 3, ())]), 5.0, 20.0)
    assert rows_of(cut) == [(5.0, 2, 2, (1, 2))]
    assert cut.start_unix == 1e9 + 5


def test_shifted_copies_keep_the_shape_of_the_day() -> None:
    day = np.sort(np.random.default_rng(3).beta(4, 4, 50_000)) * 86_400
    lengths = np.ones(len(day), dtype=np.int32)
    total = superpose(Traffic(day, lengths, lengths), 20)
    before, after = (np.histogram(arrivals, 24, (0, 86_400))[0] for arrivals in (day, total.arrival_seconds))
    assert np.abs(after / 20 - before).max() < 0.05 * before.max()


def test_describing_counts_rates_lengths_and_peaks() -> None:
    busy = [(600.0 + n / 10, 100, 7, ()) for n in range(600)]
    calm = [(float(n), 300, 9, ()) for n in range(0, 1201, 2)]
    found = describe(of(busy + calm))
    assert (found["requests"], found["seconds"]) == (1201, 1200.0)
    assert found["requests_per_second"] == pytest.approx(1201 / 1200)
    assert found["prompt_mean"] == pytest.approx((600 * 100 + 601 * 300) / 1201)
    assert (found["prompt_p50"], found["output_p99"]) == (300, 9)
    assert found["peak_over_mean_1m"] == pytest.approx(630 / 60 * 1200 / 1201)
    assert found["peak_over_mean_10m"] == pytest.approx(900 / 600 * 1200 / 1201)
    assert "peak_over_mean_1h" not in found


def test_describing_little_or_nothing() -> None:
    assert describe(of([])) == {"requests": 0, "seconds": 0.0}
    assert "requests_per_second" not in describe(of([(0.0, 1, 1, ())]))
    assert describe(of([(float(n), 1, 1, ()) for n in range(5)]))["burst_cv"] == 0


def test_what_cannot_be_is_refused() -> None:
    traffic = of([(0.0, 1, 1, ()), (1.0, 1, 1, ())])
    for attempt in (
        lambda: time_warp(traffic, 0.0),
        lambda: time_warp(traffic, float("nan")),
        lambda: scale_rate(traffic, -1.0),
        lambda: scale_rate(traffic, 1e6),
        lambda: superpose(traffic, 0),
        lambda: superpose(traffic, 2, shift_seconds=-1.0),
        lambda: between(traffic, 3.0, 3.0),
        lambda: between(traffic, -1.0, 3.0),
    ):
        with pytest.raises(UserError, match="give"):
            attempt()


block_lists = st.lists(st.lists(st.integers(0, 2**62), max_size=5), max_size=12)


@given(block_lists, st.data())
def test_a_prefix_column_is_a_sequence_of_tuples(blocks: list[list[int]], data: st.DataObject) -> None:
    column, plain = PrefixColumn.of(blocks), [tuple(row) for row in blocks]
    assert list(column) == plain
    assert len(column) == len(plain)
    assert list(PrefixColumn.joined([column, column])) == plain * 2
    low, high = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 12))
    assert list(column[low:high]) == plain[low:high]
    order = data.draw(st.permutations(range(len(plain))))
    assert list(column.take(np.array(order, dtype=np.int64))) == [plain[place] for place in order]
    if plain:
        assert (column[-1], column[0]) == (plain[-1], plain[0])
    with pytest.raises(IndexError):
        column[len(plain)]
