"""A long question that is asked in parts has the answer of the whole one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ledger, request

from swell.errors import UserError
from swell.metering.questions import LONGEST_MS, Answer, LedgerQuestions, is_short, parts
from swell.ports import store as store_port
from swell.state.records import UsageFilter
from swell.state.usage_groups import GROUP_COLUMNS
from swell.testing.memory_store import MemoryStore

DAY_MS = 86_400_000
NOON = "2026-11-{:02}T12:00:00+00:00"


def month(*, has_reader: bool = False) -> MemoryStore:
    store = ledger(*(request(f"r{day}", NOON.format(day), model=("chat", "embed")[day % 2]) for day in range(1, 31)))
    if has_reader:
        store._has_reader = True
    return store


@given(
    first=st.none() | st.integers(-DAY_MS, 40 * DAY_MS),
    length=st.integers(0, 45 * DAY_MS),
    span=st.tuples(st.integers(0, 40 * DAY_MS), st.integers(0, 40 * DAY_MS)).map(sorted),
    ends=st.booleans(),
)
def test_parts_follow_one_another_and_leave_out_nothing_that_the_ledger_has(first, length, span, ends) -> None:
    where = UsageFilter(tenant="search", since_unix_ms=first, until_unix_ms=(first or 0) + length if ends else None)
    found = list(parts(where, tuple(span)))
    begin = max(span[0], span[0] if first is None else first)
    end = min(span[1] + 1, span[1] + 1 if where.until_unix_ms is None else where.until_unix_ms)
    if is_short(where):
        assert found == [where]
        return
    assert all(part.tenant == "search" for part in found)
    edges = [(part.since_unix_ms, part.until_unix_ms) for part in found]
    assert all(start < stop and stop - start <= LONGEST_MS for start, stop in edges)
    if begin >= end:
        assert edges == []
    else:
        assert (edges[0][0], edges[-1][1]) == (begin, end)
        assert all(before[1] == after[0] for before, after in pairwise(edges))


@given(
    by=st.lists(st.sampled_from(GROUP_COLUMNS), unique=True),
    bucket=st.sampled_from([None, "hour", "day"]),
    until=st.none() | st.integers(1, 40),
)
def test_the_answer_is_that_of_the_whole_question(by, bucket, until) -> None:
    store = month()
    (first, _) = store.usage_span() or (0, 0)
    where = UsageFilter(until_unix_ms=None if until is None else first + until * DAY_MS + 1)
    assert LedgerQuestions(store).group_usage(where, by, bucket) == store.group_usage(where, by, bucket)


def test_a_second_way_in_is_asked_at_once_and_closed() -> None:
    store = month(has_reader=True)
    questions = LedgerQuestions(store)
    (reader,) = store.readers
    asked: list[UsageFilter] = []
    whole = reader.group_usage

    def noted(where, *rest):
        asked.append(where)
        return whole(where, *rest)

    reader.group_usage = noted
    (group,) = questions.group_usage(UsageFilter())
    assert (group.requests, asked) == (30, [UsageFilter()])
    questions.close()
    assert reader.is_closed


def test_too_many_groups_are_refused_as_soon_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_port, "MAX_GROUPS", 1)
    store, answer = month(), Answer(("model",), None)
    days = list(parts(UsageFilter(), store.usage_span()))
    assert len(days) == 30
    answer.add(store.group_usage(days[0], ("model",)))
    with pytest.raises(UserError, match="more than 1 groups; ask for a shorter period"):
        answer.add(store.group_usage(days[1], ("model",)))


def test_a_ledger_whose_clock_has_lied_is_not_asked_for_ever() -> None:
    with pytest.raises(UserError, match="spans more than 20,000 days; ask for one period after the other"):
        list(parts(UsageFilter(), (0, 30_000 * DAY_MS)))
