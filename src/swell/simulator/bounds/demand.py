"""A scenario's requests as lots of work for the program: those that arrive in one tick and have equally long to go.

Work may run in any tick from a request's arrival to its deadline. Spans, in ticks, take a few lengths only. Where pools
have different profiles, a lot's requests take about the same ratio between them, and work counts in replica-seconds on
the first profile. What may be missed comes in pieces of about equally large requests.

Lots err to one side. For a bound, to the cheap one: spans are rounded up, a lot takes its least ratio, and missing one
request saves as much as the largest of its piece. For a plan that does the work, to the dear one: spans are rounded
down, and a lot takes its mean ratio.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.simulator.bounds.work import work_replica_seconds
from swell.simulator.result import Scenario
from swell.state.scaling import LatencyProfile, Objective
from swell.state.traffic import Traffic

RATIO_CLASSES = 4
RATIO_PROFILES = 2  # by how many profiles, those that differ most, requests are told apart
PIECE_BORDERS = (2, 1, 0.3)  # times the share that may be missed
SAMPLE = 100_000  # requests from which borders between classes are taken
LEAST_WORK = 1e-9  # replica-seconds, so that ratios exist

Limits = Mapping[str, NDArray[np.int64]]  # by pool: replicas that can be had, per tick
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Demand:
    """Lots and pieces, as columns."""

    ticks: int  # up to the last deadline
    profiles: tuple[LatencyProfile, ...]
    first_tick: Ints  # per lot
    last_tick: Ints
    work: Floats  # replica-seconds on the first profile
    ratios: Floats  # [profile, lot], of the work on that profile to the work on the first
    piece_lot: Ints  # per piece: its lot
    piece_work: Floats  # of all its requests
    piece_largest: Floats  # of its largest request


@dataclass(frozen=True)
class Requests:
    """What the bounds need to know of each request."""

    profiles: tuple[LatencyProfile, ...]
    works: tuple[Floats, ...]  # by profile: replica-seconds
    first_tick: Ints  # of its arrival
    last_tick: Ints  # of its deadline

    @property
    def ticks(self) -> int:
        """Up to the last deadline."""
        return int(self.last_tick.max()) + 1


def end_seconds(traffic: Traffic, objective: Objective, profile: LatencyProfile) -> Floats:
    """When each request is too late, at the latest: the last moment at which work on it may still attain."""
    n = traffic.prompt_tokens.astype(np.float64)
    ttft_ms = objective.ttft_ms + objective.ttft_ms_per_1k_prompt_tokens * n / 1000
    if objective.beyond_prefill:
        ttft_ms = ttft_ms + profile.prefill_fixed_ms
        ttft_ms += n * (profile.prefill_ms_per_token + profile.prefill_ms_per_token2 * n)
    return np.asarray(traffic.arrival_seconds + (ttft_ms + traffic.output_tokens * objective.itl_ms) / 1000)


def requests_of(scenario: Scenario, tick_seconds: float) -> Requests:
    """Work and windows of a scenario's requests. The first pool's profile sets the deadlines."""
    traffic, objective = scenario.traffic, scenario.objective
    profiles = tuple(dict.fromkeys(pool.profile for pool in scenario.pools))
    works = tuple(np.maximum(work_replica_seconds(traffic, profile, objective), LEAST_WORK) for profile in profiles)
    ends = end_seconds(traffic, objective, scenario.pools[0].profile)
    first, last = ((at // tick_seconds).astype(np.int64) for at in (traffic.arrival_seconds, ends))
    return Requests(profiles, works, first, last)


def build_lots(requests: Requests, takes_part: NDArray[np.bool_]) -> Demand:
    """Lots of the requests that take part, for a plan that does all their work."""
    chosen = np.flatnonzero(takes_part)
    works = [work[chosen] for work in requests.works]
    first = requests.first_tick[chosen]
    span, spans = _rounded(requests.last_tick[chosen] - first, up=False)
    keys, lot, first_tick, last_tick = _lots(first, span, spans, works)
    totals = [np.bincount(lot, weights=work, minlength=len(keys)).astype(np.float64) for work in works]
    ratios = np.stack([total / totals[0] for total in totals])
    none = np.zeros(0)
    return Demand(
        requests.ticks, requests.profiles, first_tick, last_tick, totals[0], ratios, none.astype(np.int64), none, none
    )


def build_optimistic_lots(requests: Requests, miss_share: float) -> Demand:
    """Lots of all requests, with pieces of what may be missed, for a bound.

    Pieces are finest where it is decided who is missed: around the largest `miss_share` of the requests.
    """
    work = requests.works[0]
    span, spans = _rounded(requests.last_tick - requests.first_tick, up=True)
    keys, lot, first_tick, last_tick = _lots(requests.first_tick, span, spans, list(requests.works))
    ratios = np.ones((len(requests.works), len(keys)))
    for index, other in enumerate(requests.works[1:], start=1):
        ratios[index] = np.inf
        np.minimum.at(ratios[index], lot, other / work)
    shares = np.array(PIECE_BORDERS) * miss_share
    borders = np.quantile(_sample(work), 1 - shares[shares < 1])
    pieces_a_lot = len(borders) + 1
    pieces, piece = _numbered(lot * pieces_a_lot + np.searchsorted(borders, work), len(keys) * pieces_a_lot)
    largest = np.zeros(len(pieces))
    np.maximum.at(largest, piece, work)
    return Demand(
        ticks=max(requests.ticks, int(last_tick.max(initial=0)) + 1),
        profiles=requests.profiles,
        first_tick=first_tick,
        last_tick=last_tick,
        work=np.bincount(lot, weights=work, minlength=len(keys)).astype(np.float64),
        ratios=ratios,
        piece_lot=pieces // pieces_a_lot,
        piece_work=np.bincount(piece, weights=work, minlength=len(pieces)).astype(np.float64),
        piece_largest=largest,
    )


def _lots(first: Ints, span: Ints, spans: Ints, works: list[Floats]) -> tuple[Ints, Ints, Ints, Ints]:
    """(keys, each request's lot, the lots' first ticks, their last ticks); `span` is an index into `spans`."""
    classes, class_count = _ratio_classes(works)
    key = (first * len(spans) + span) * class_count + classes
    keys, lot = _numbered(key, (int(first.max(initial=0)) + 1) * len(spans) * class_count)
    key_spans = keys // class_count
    first_tick = key_spans // len(spans)
    return keys, lot, first_tick, first_tick + spans[key_spans % len(spans)]


def _rounded(span: Ints, *, up: bool) -> tuple[Ints, Ints]:
    """To 0, 1, 2, 4, 8, … ticks: (each one's index into the lengths, the lengths)."""
    longest = int(span.max(initial=0))
    lengths = np.concatenate(([0], 1 << np.arange(longest.bit_length() + 1))).astype(np.int64)
    index = np.searchsorted(lengths, span) if up else np.searchsorted(lengths, span, side="right") - 1
    return index.astype(np.int64), lengths


def _numbered(keys: Ints, most: int) -> tuple[Ints, Ints]:
    """(the keys that occur, in order; the place of each one among them). Keys are below `most`."""
    occurs = np.zeros(most, dtype=bool)
    occurs[keys] = True
    found = np.flatnonzero(occurs)
    place = np.cumsum(occurs) - 1
    return found, place[keys]


def _ratio_classes(works: list[Floats]) -> tuple[Ints, int]:
    """(which requests take about the same ratios on the profiles, how many classes there may be)."""
    logs = sorted((np.log(other / works[0]) for other in works[1:]), key=lambda log: -float(np.ptp(log)))
    classes = np.zeros(len(works[0]), dtype=np.int64)
    for log in logs[:RATIO_PROFILES]:
        borders = np.quantile(_sample(log), np.linspace(0, 1, RATIO_CLASSES + 1)[1:-1])
        classes = classes * RATIO_CLASSES + np.searchsorted(borders, log)
    return classes, RATIO_CLASSES ** len(logs[:RATIO_PROFILES])


def _sample(values: Floats) -> Floats:
    """Every so many of them: borders need no more, and any borders are valid."""
    return values[:: max(1, len(values) // SAMPLE)]
