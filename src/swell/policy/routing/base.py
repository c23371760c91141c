"""The contract of a routing policy: a view and a request in, a candidate or None out.

The view's membership is frozen; the load on a candidate is read, never written. Whoever acts on the
choice books the request on the candidate and keeps the release; a policy does neither.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from math import ceil
from typing import Protocol

POINTS_PER_CANDIDATE = 64  # on the ring: evens out shares to about 12 % (1/sqrt(64))
LOAD_BOUND = 1.25  # a candidate takes at most this multiple of the mean load before affinity yields


class Candidate(Protocol):
    """One replica as a policy sees it."""

    @property
    def replica_id(self) -> str:
        """Stable name; the ring is built from it."""

    @property
    def in_flight(self) -> int:
        """Requests running on it, as this gateway knows."""

    @property
    def outstanding_tokens(self) -> int:
        """Bounds of those requests, in tokens."""

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent to it."""

    @property
    def speed(self) -> float:
        """How much it works off in a time, as a multiple of any one replica of the model; positive."""

    @property
    def most_tokens(self) -> int:
        """The longest prompt that it can answer inside the objective."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a policy may know of a request. Keys are hashes from `key_hash`, 0 where there is none."""

    prefix_key: int = 0
    session_key: int = 0
    turn: int = 0  # rises by one with every request of the model
    prompt_tokens: int = 0  # where known


@dataclass(frozen=True, slots=True)
class View:
    """The routable replicas of a model, with the hash ring over them."""

    candidates: tuple[Candidate, ...]
    ring_points: tuple[int, ...] = ()
    ring_owners: tuple[Candidate, ...] = ()
    larger: tuple[tuple[int, "View"], ...] = ()  # for prompts over so many tokens: those that can answer them in time


Choose = Callable[[View, Request], Candidate | None]


def key_hash(data: bytes | memoryview) -> int:
    """Place of `data` on the ring: 64 bits, never 0 (0 means "no key")."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") | 1


def build_view(candidates: tuple[Candidate, ...], *, with_ring: bool = True) -> View:
    """A view with its ring (where the policy wants one). Called when membership changes, not per request."""
    limits = sorted({candidate.most_tokens for candidate in candidates})
    larger = tuple(
        (low, _plain_view(tuple(c for c in candidates if c.most_tokens >= high), (), with_ring=with_ring))
        for low, high in pairwise(limits)
    )
    return _plain_view(candidates, larger, with_ring=with_ring)


def fitting(view: View, prompt_tokens: int) -> View:
    """The part of the view that can answer so long a prompt inside the objective; all of it where nobody can."""
    found = view
    for over, part in view.larger:
        if prompt_tokens <= over:
            return found
        found = part
    return found if not view.larger or prompt_tokens <= _most(found) else view


def _most(view: View) -> int:
    return max(candidate.most_tokens for candidate in view.candidates)


def _plain_view(candidates: tuple[Candidate, ...], larger: tuple[tuple[int, View], ...], *, with_ring: bool) -> View:
    if not with_ring:
        return View(candidates, larger=larger)
    points = sorted(
        (
            (key_hash(f"{candidate.replica_id}#{index}".encode()), candidate)
            for candidate in candidates
            for index in range(POINTS_PER_CANDIDATE)
        ),
        key=lambda point: (point[0], point[1].replica_id),
    )
    return View(candidates, tuple(place for place, _ in points), tuple(owner for _, owner in points), larger)


def around_ring(view: View, key: int) -> Iterator[Candidate]:
    """Distinct candidates in ring order, starting at `key`."""
    start = bisect_left(view.ring_points, key)
    size = len(view.ring_owners)
    seen: set[str] = set()
    for step in range(size):
        owner = view.ring_owners[(start + step) % size]
        if owner.replica_id not in seen:
            seen.add(owner.replica_id)
            yield owner


def bounded_ring_choice(view: View, key: int) -> Candidate | None:
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016).

    The first candidate clockwise from `key` whose load stays within `LOAD_BOUND` times its share of all, the
    request itself included. Three idle candidates: bound = ceil(1.25 * 1/3) = 1, so the owner takes it. Shares are by
    speed: one of two that is three times as fast may have three quarters of the load, times 1.25.
    """
    load = (
        LOAD_BOUND * (sum(c.in_flight for c in view.candidates) + 1) / max(1e-9, sum(c.speed for c in view.candidates))
    )
    fallback: Candidate | None = None
    for candidate in around_ring(view, key):
        if not candidate.has_room:
            continue
        if candidate.in_flight + 1 <= ceil(load * candidate.speed):
            return candidate
        fallback = fallback or candidate
    return fallback
