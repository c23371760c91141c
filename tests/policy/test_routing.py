"""Routing functions: only replicas with room, least loaded, sticky, bounded, and stable when replicas come and go."""

from collections import Counter
from dataclasses import dataclass
from math import ceil

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swell.policy.routing import POLICIES, Request, View, build_view, fitting, key_hash
from swell.policy.routing.base import LOAD_BOUND


@dataclass
class Replica:
    replica_id: str
    in_flight: int = 0
    outstanding_tokens: int = 0
    has_room: bool = True
    speed: float = 1.0
    most_tokens: int = 10**6


replicas = st.lists(
    st.builds(
        Replica,
        st.uuids().map(str),
        st.integers(0, 20),
        st.integers(0, 10_000),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda replica: replica.replica_id,
)
keys = st.binary(min_size=1, max_size=20).map(key_hash)
requests = st.builds(Request, st.one_of(st.just(0), keys), st.one_of(st.just(0), keys), st.integers(0, 10**9))


def view_of(*names: str, **loads: int) -> View:
    return build_view(tuple(Replica(name, loads.get(name, 0)) for name in names))


@pytest.mark.parametrize("policy", list(POLICIES))
@given(candidates=replicas, request_=requests)
def test_a_choice_has_room_and_there_is_one_exactly_if_any_has(
    policy: str, candidates: list[Replica], request_: Request
) -> None:
    chosen = POLICIES[policy](build_view(tuple(candidates)), request_)
    assert (chosen is not None) == any(candidate.has_room for candidate in candidates)
    assert chosen is None or (chosen.has_room and chosen in candidates)


@pytest.mark.parametrize("policy", list(POLICIES))
@given(candidates=replicas, request_=requests)
def test_choosing_changes_nothing_and_repeats(policy: str, candidates: list[Replica], request_: Request) -> None:
    view = build_view(tuple(candidates))
    before = [Replica(c.replica_id, c.in_flight, c.outstanding_tokens, c.has_room) for c in candidates]
    assert POLICIES[policy](view, request_) is POLICIES[policy](view, request_)
    assert candidates == before


@given(candidates=replicas, turn=st.integers(0, 10**6))
def test_least_outstanding_tokens_picks_a_minimum(candidates: list[Replica], turn: int) -> None:
    chosen = POLICIES["least_outstanding_tokens"](build_view(tuple(candidates)), Request(turn=turn))
    open_ = [(c.outstanding_tokens, c.in_flight) for c in candidates if c.has_room]
    assume(open_)
    assert chosen is not None
    assert (chosen.outstanding_tokens, chosen.in_flight) == min(open_)


@pytest.mark.parametrize("policy", ["least_outstanding_tokens", "round_robin"])
def test_idle_replicas_share_evenly(policy: str) -> None:
    view = view_of("a", "b", "c", "d")
    counts = Counter(chosen.replica_id for turn in range(40) if (chosen := POLICIES[policy](view, Request(turn=turn))))
    assert set(counts.values()) == {10}


@pytest.mark.parametrize(("policy", "field"), [("prefix_affinity", "prefix_key"), ("session_affinity", "session_key")])
@given(key=keys, turns=st.lists(st.integers(0, 1000), min_size=2, max_size=5))
def test_what_belongs_together_goes_to_the_same_replica(policy: str, field: str, key: int, turns: list[int]) -> None:
    view = view_of("a", "b", "c", "d", "e")
    assert len({id(POLICIES[policy](view, Request(**{field: key, "turn": turn}))) for turn in turns}) == 1


@pytest.mark.parametrize("policy", ["prefix_affinity", "session_affinity"])
@given(candidates=replicas, turn=st.integers(0, 100))
def test_without_a_key_affinity_is_least_loaded(policy: str, candidates: list[Replica], turn: int) -> None:
    view = build_view(tuple(candidates))
    assert POLICIES[policy](view, Request(turn=turn)) is POLICIES["least_outstanding_tokens"](view, Request(turn=turn))


@given(candidates=replicas, key=keys)
def test_prefix_affinity_keeps_within_the_bound_while_anybody_is(candidates: list[Replica], key: int) -> None:
    chosen = POLICIES["prefix_affinity"](build_view(tuple(candidates)), Request(prefix_key=key))
    assume(chosen is not None)
    assert chosen is not None
    bound = ceil(LOAD_BOUND * (sum(c.in_flight for c in candidates) + 1) / len(candidates))
    within = [c for c in candidates if c.has_room and c.in_flight + 1 <= bound]
    assert chosen.in_flight + 1 <= bound or not within


@given(count=st.integers(2, 8), arrivals=st.lists(keys, min_size=1, max_size=120))
def test_bounded_loads_keep_every_replica_near_the_mean(count: int, arrivals: list[int]) -> None:
    candidates = tuple(Replica(f"r{index}") for index in range(count))
    view = build_view(candidates)
    for number, key in enumerate(arrivals, 1):
        chosen = POLICIES["prefix_affinity"](view, Request(prefix_key=key))
        assert isinstance(chosen, Replica)
        chosen.in_flight += 1
        assert chosen.in_flight <= ceil(LOAD_BOUND * number / count)


@pytest.mark.parametrize(("policy", "field"), [("prefix_affinity", "prefix_key"), ("session_affinity", "session_key")])
@given(names=st.sets(st.uuids().map(str), min_size=2, max_size=9), places=st.lists(keys, min_size=1, max_size=100))
def test_a_replica_that_joins_or_leaves_moves_only_what_is_its_own(
    policy: str, field: str, names: set[str], places: list[int]
) -> None:
    ordered = sorted(names)
    few, many = view_of(*ordered[1:]), view_of(*ordered)
    for key in places:
        before = POLICIES[policy](few, Request(**{field: key}))
        after = POLICIES[policy](many, Request(**{field: key}))
        assert before is not None
        assert after is not None
        assert after.replica_id in (before.replica_id, ordered[0])


def test_a_joining_replica_gets_about_its_share_and_the_order_does_not_matter() -> None:
    names = [f"replica-{index}" for index in range(10)]
    places = [key_hash(b"%d" % number) for number in range(4000)]
    view, backwards = view_of(*names), view_of(*reversed(names))
    chosen_by = [POLICIES["session_affinity"](view, Request(session_key=key)) for key in places]
    again = [POLICIES["session_affinity"](backwards, Request(session_key=key)) for key in places]
    assert [c.replica_id for c in chosen_by if c] == [c.replica_id for c in again if c]
    counts = Counter(c.replica_id for c in chosen_by if c)
    assert len(counts) == 10
    assert 400 * 0.5 < min(counts.values()) <= max(counts.values()) < 400 * 1.6


def test_a_session_returns_to_its_replica_when_it_has_room_again() -> None:
    view = view_of("a", "b", "c")
    request = Request(session_key=key_hash(b"someone"))
    home = POLICIES["session_affinity"](view, request)
    assert isinstance(home, Replica)
    home.has_room = False
    away = POLICIES["session_affinity"](view, request)
    assert away is not home
    home.has_room = True
    assert POLICIES["session_affinity"](view, request) is home


@given(data=st.binary(max_size=300))
def test_a_key_is_never_the_one_that_means_none(data: bytes) -> None:
    assert 0 < key_hash(data) < 2**64
    assert key_hash(data) == key_hash(memoryview(data))


def test_of_unlike_replicas_the_one_that_will_be_done_first_is_chosen() -> None:
    slow = Replica("slow", in_flight=1, outstanding_tokens=1000)
    fast = Replica("fast", in_flight=3, outstanding_tokens=2500, speed=3.0)
    choose = POLICIES["least_outstanding_tokens"]
    assert choose(build_view((slow, fast)), Request()) is fast
    fast.outstanding_tokens = 3500
    assert choose(build_view((slow, fast)), Request()) is slow
    idle = build_view((Replica("slow"), Replica("fast", speed=3.0)))
    assert {chosen.replica_id for turn in range(9) if (chosen := choose(idle, Request(turn=turn)))} == {"fast"}


@given(arrivals=st.lists(st.integers(1, 2000), min_size=200, max_size=400))
def test_unlike_replicas_are_loaded_by_their_speed(arrivals: list[int]) -> None:
    candidates = (Replica("one"), Replica("three", speed=3.0))
    view = build_view(candidates)
    for turn, tokens in enumerate(arrivals):
        chosen = POLICIES["least_outstanding_tokens"](view, Request(turn=turn))
        assert isinstance(chosen, Replica)
        chosen.outstanding_tokens += tokens
        chosen.in_flight += 1
    one, three = (candidate.outstanding_tokens / candidate.speed for candidate in candidates)
    assert abs(one - three) <= 2000


def test_a_fast_replica_may_hold_more_of_one_prefix() -> None:
    candidates = (Replica("slow"), Replica("fast", speed=3.0))
    view, key = build_view(candidates), key_hash(b"one prompt")
    for turn in range(40):
        chosen = POLICIES["prefix_affinity"](view, Request(prefix_key=key, turn=turn))
        assert isinstance(chosen, Replica)
        chosen.in_flight += 1
    slow, fast = candidates
    assert fast.in_flight > slow.in_flight


@given(limits=st.lists(st.integers(0, 5), min_size=1, max_size=6), tokens=st.integers(0, 7))
def test_a_long_prompt_goes_where_it_is_answered_in_time_while_anybody_can(limits: list[int], tokens: int) -> None:
    candidates = tuple(Replica(f"r{index}", most_tokens=limit) for index, limit in enumerate(limits))
    found = fitting(build_view(candidates), tokens).candidates
    able = tuple(candidate for candidate in candidates if candidate.most_tokens >= tokens)
    assert found == (able or candidates)
