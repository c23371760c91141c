"""What a model's tenants miss of its prefix caches because their requests are spread over replicas.

The ledger holds no prompts. It holds which replica answered a request and how many of its prompt tokens that replica's
prefix cache had, and that tells, for each tenant and whole hour, the share that was cached and over how many replicas
the tenant was spread: 1 / (sum of the squares of the replicas' shares of its prompt tokens). Hours on one replica are
compared with hours over several. Requests that begin alike and always go to the same replica find there what they would
find on a single one, so the share on one replica is the most that routing by prefix can come to. What it saves is
prefill, by the latency profile: with n prompt tokens a request, the cached share rising from x to y saves

    b·n·(y - x) + c·n²·(y² - x²)   milliseconds a request.

It is an upper bound: loads are bounded, so a prefix whose replica is busy goes elsewhere, and a new replica begins with
an empty cache whatever the routing. In the simulator routing by prefix reached 0.55 to 0.93 of it on four replicas, the
more the calmer they were. Besides, the hours on one replica are other hours than those they are compared with, mostly
quiet ones, so confidence is never high; medium takes a day of each kind. The interval holds 95 % of a bootstrap over
hours. An engine that does not tell says 0, as one does that found nothing; so an endpoint counts from the hour after
its first hit on, and where there never was one nothing is said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swell.server.review_saving import HOUR_SECONDS, MONTH_SECONDS, Saving, nanos
from swell.spec import ModelSpec, Routing
from swell.state.scaling import LatencyProfile, Pool
from swell.state.usage import UsageStatus

FEWEST_REQUESTS = 20  # of a tenant in an hour that is compared
FEWEST_HOURS = 3  # of either kind
FEWEST_POINTS = 0.05  # of its prompt tokens that a tenant must miss
ALONE = 1.05  # replicas: up to so many count as one, a straggler or a restart being no spread
SPREAD = 1.5  # replicas: from so many on requests are spread
MOST_TENANTS = 200  # that are compared: those with the most prompt tokens over several replicas
_SURE_HOURS = 24  # of either kind, for medium confidence
_HOUR_MS = 3_600_000
_DRAWS = 2000
_DRAWN_AT_ONCE = 200_000  # hours
_PERCENTILES = (2.5, 97.5)

_Row = Mapping[str, Any]
_Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hits:
    """What a prefix cache had, over some hours of a tenant."""

    hours: int
    prompt_tokens: int
    cached_tokens: int
    replicas: float  # over which its tokens were spread, as a mean of the hours

    @property
    def share(self) -> float:
        """Of the prompt tokens."""
        return self.cached_tokens / max(1, self.prompt_tokens)


@dataclass(frozen=True, slots=True)
class MissedHits:
    """What one tenant would save, at most, if its requests were routed by prefix. Of the time that was looked at."""

    tenant: str
    alone: Hits
    spread: Hits
    prefill_seconds: float
    saving: Saving  # that prefill at what a replica costs; real where fewer replicas do, else sooner first tokens


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """What is known of one model's prefix caches. `share` is of its prompt tokens, None where no engine told."""

    share: float | None = None
    is_spread: bool = False  # some tenant's requests were, for long enough, and routing does not follow prefixes
    is_compared: bool = False  # for some such tenant there are hours on one replica to compare with
    missed: tuple[MissedHits, ...] = ()  # the most first


class CacheUse:
    """Gathers, from pages of the ledger in any order, what of whose prompts was cached where."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int, str, str], list[int]] = {}  # endpoint, hour, tenant, replica
        self._first_hit: dict[str, int] = {}  # by endpoint, the hour

    def add(self, page: Iterable[_Row]) -> None:
        """Count what of a page an engine has told the tokens of."""
        sums, first = self._sums, self._first_hit
        for row in page:
            at, prompt, cached = row["reserved_at_unix_ms"], row["prompt_tokens"], row["cached_tokens"]
            if at is None or prompt <= 0 or row["status"] != UsageStatus.SETTLED or not row["replica_id"]:
                continue
            endpoint, hour = row["endpoint"], at // _HOUR_MS
            if cached and hour < first.get(endpoint, hour + 1):
                first[endpoint] = hour
            found = sums.setdefault((endpoint, hour, row["tenant"], row["replica_id"]), [0, 0, 0])
            found[0] += 1
            found[1] += prompt
            found[2] += cached

    def hours(self) -> dict[str, list["_Hour"]]:
        """Of every tenant, each hour in which an engine would have told of hits."""
        parts: dict[tuple[str, int], list[list[int]]] = {}
        replicas: dict[tuple[str, int], dict[str, int]] = {}
        for (endpoint, hour, tenant, replica), sums in self._sums.items():
            if hour > self._first_hit.get(endpoint, hour):
                parts.setdefault((tenant, hour), []).append(sums)
                tokens = replicas.setdefault((tenant, hour), {})
                tokens[replica] = tokens.get(replica, 0) + sums[1]
        found: dict[str, list[_Hour]] = {}
        for (tenant, hour), sums_of_parts in parts.items():
            requests, prompt, cached = map(sum, zip(*sums_of_parts, strict=True))
            spread = prompt * prompt / sum(tokens * tokens for tokens in replicas[tenant, hour].values())
            found.setdefault(tenant, []).append(_Hour(hour, requests, prompt, cached, spread))
        return found


@dataclass(frozen=True, slots=True)
class _Hour:
    """Of one tenant; `number` counts hours from 1970."""

    number: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    replicas: float


def prefix_cache_of(use: CacheUse, model: ModelSpec, pool: Pool) -> PrefixCache:
    """What routing by prefix would save each tenant of the model at most, on replicas of `pool`."""
    hours = use.hours()
    every = [hour for each in hours.values() for hour in each]
    if not every:
        return PrefixCache()
    share = _hits(every).share
    if model.routing is Routing.PREFIX_AFFINITY:
        return PrefixCache(share)
    numbers = [hour.number for hour in every]
    seconds = (max(numbers) - min(numbers) + 1) * HOUR_SECONDS
    kinds = {tenant: _kinds(each) for tenant, each in hours.items()}
    spread = {tenant: pair for tenant, pair in kinds.items() if len(pair[1]) >= FEWEST_HOURS}
    compared = {tenant: pair for tenant, pair in spread.items() if len(pair[0]) >= FEWEST_HOURS}
    largest = sorted(compared, key=lambda tenant: (-_hits(compared[tenant][1]).prompt_tokens, tenant))[:MOST_TENANTS]
    missed = [_missed(tenant, *compared[tenant], pool, seconds) for tenant in largest]
    found = sorted((each for each in missed if each is not None), key=lambda each: -each.prefill_seconds)
    return PrefixCache(share, bool(spread), bool(compared), tuple(found))


def _kinds(hours: Sequence[_Hour]) -> tuple[list[_Hour], list[_Hour]]:
    """Those on one replica and those over several, of hours that have enough in them."""
    full = [hour for hour in hours if hour.requests >= FEWEST_REQUESTS]
    return [hour for hour in full if hour.replicas <= ALONE], [hour for hour in full if hour.replicas >= SPREAD]


def _hits(hours: Sequence[_Hour]) -> Hits:
    return Hits(
        len(hours),
        sum(hour.prompt_tokens for hour in hours),
        sum(hour.cached_tokens for hour in hours),
        sum(hour.replicas for hour in hours) / len(hours),
    )


def _missed(
    tenant: str, alone: Sequence[_Hour], spread: Sequence[_Hour], pool: Pool, seconds: float
) -> MissedHits | None:
    """None where the tenant would save nothing, as far as can be told."""
    one, several = _hits(alone), _hits(spread)
    columns = _columns(spread)
    saved = float(_prefill_seconds(one.share, columns.sum(axis=0), pool.profile))
    dice = np.random.default_rng(1)
    drawn = _resampled(_columns(alone), dice)
    draws = _prefill_seconds(drawn[:, 1] / drawn[:, 0], _resampled(columns, dice).T, pool.profile)
    low, high = np.percentile(draws, _PERCENTILES)
    if one.share - several.share < FEWEST_POINTS or saved <= 0 or low <= 0:
        return None
    worth, *interval = (nanos(each / HOUR_SECONDS * pool.usd_per_hour) for each in (saved, float(low), float(high)))
    confidence = "medium" if min(len(alone), len(spread)) >= _SURE_HOURS else "low"
    month = round(worth * MONTH_SECONDS / seconds)
    saving = Saving(worth, month, (interval[0], interval[1]), "hour", confidence)
    return MissedHits(tenant, one, several, saved, saving)


def _columns(hours: Sequence[_Hour]) -> _Numbers:
    """By hour, what prefill follows from: prompt tokens, cached ones, and the squares of both by request, summed up."""
    return np.array(
        [
            (h.prompt_tokens, h.cached_tokens, h.prompt_tokens**2 / h.requests, h.cached_tokens**2 / h.requests)
            for h in hours
        ],
        dtype=np.float64,
    )


def _prefill_seconds(share: _Numbers | float, sums: _Numbers, profile: LatencyProfile) -> _Numbers:
    """What would have been saved at that share, of sums of `_columns`."""
    prompt, cached, prompt2, cached2 = sums
    linear = profile.prefill_ms_per_token * (share * prompt - cached)
    saved: _Numbers = (linear + profile.prefill_ms_per_token2 * (share * share * prompt2 - cached2)) / 1000
    return saved


def _resampled(hours: _Numbers, dice: np.random.Generator) -> _Numbers:
    """Sums over as many hours as there are, drawn with replacement; so often, and in pieces that fit into memory."""
    count = len(hours)
    rows = max(1, _DRAWN_AT_ONCE // count)
    sizes = [(min(rows, _DRAWS - begin), count) for begin in range(0, _DRAWS, rows)]
    return np.concatenate([hours[dice.integers(0, count, size)].sum(axis=1) for size in sizes])
