"""What replicas cost: exact whole nano-dollars of any stretch of their lives.

Pure. What a run has cost after so many milliseconds is rounded down to a nano-dollar once,

    cumulative(ms) = usd_nanos_per_hour * ms // 3_600_000

and a stretch costs the difference of two such sums. So the slices of a run add up to the run, however it is cut: an
hour may cost a nano-dollar more or less than its neighbour, and none is lost.

Who bills at least a minimum (`minimum_ms`) bills a run that ended sooner until it is reached. Those milliseconds are
paid for as they pass, like all others, so they are cut as exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from swell.state.replica_runs import ReplicaRun

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a stretch of runs cost in nano-dollars, by what they did meanwhile, and how long it was for them."""

    starting_usd_nanos: int = 0  # before they were ready, also of those that never were
    serving_usd_nanos: int = 0
    over_usd_nanos: int = 0  # billed after their end, up to the minimum
    starting_ms: int = 0
    serving_ms: int = 0

    @property
    def total_usd_nanos(self) -> int:
        """All of it."""
        return self.starting_usd_nanos + self.serving_usd_nanos + self.over_usd_nanos

    def __add__(self, other: "Stretch") -> "Stretch":
        return Stretch(
            self.starting_usd_nanos + other.starting_usd_nanos,
            self.serving_usd_nanos + other.serving_usd_nanos,
            self.over_usd_nanos + other.over_usd_nanos,
            self.starting_ms + other.starting_ms,
            self.serving_ms + other.serving_ms,
        )


def cost(run: ReplicaRun, since_unix_ms: int, until_unix_ms: int, minimum_ms: int = 0) -> int:
    """Nano-dollars of what of the run lies in [since, until)."""
    billed_end = max(run.until_unix_ms, run.started_unix_ms + minimum_ms)
    return _between(run, since_unix_ms, until_unix_ms, run.started_unix_ms, billed_end)[0]


def stretch(run: ReplicaRun, since_unix_ms: int, until_unix_ms: int, minimum_ms: int = 0) -> Stretch:
    """The same by what the replica did. Adds up to `cost`."""
    start, end = run.started_unix_ms, max(run.started_unix_ms, run.until_unix_ms)
    ready = end if run.ready_unix_ms is None else min(max(run.ready_unix_ms, start), end)
    starting, starting_ms = _between(run, since_unix_ms, until_unix_ms, start, ready)
    serving, serving_ms = _between(run, since_unix_ms, until_unix_ms, ready, end)
    over, _ = _between(run, since_unix_ms, until_unix_ms, end, max(end, start + minimum_ms))
    return Stretch(starting, serving, over, starting_ms, serving_ms)


def stretches(runs: Iterable[ReplicaRun], since_unix_ms: int, until_unix_ms: int, minimum_ms: int = 0) -> Stretch:
    """The sum over runs."""
    whole = Stretch()
    for run in runs:
        whole += stretch(run, since_unix_ms, until_unix_ms, minimum_ms)
    return whole


def replica_ms_by_market(runs: Iterable[ReplicaRun], since_unix_ms: int, until_unix_ms: int) -> dict[str, int]:
    """How long replicas existed, by how they were bought: milliseconds, summed over them."""
    found: dict[str, int] = {}
    for run in runs:
        lived = stretch(run, since_unix_ms, until_unix_ms)
        if lived.starting_ms or lived.serving_ms:
            found[run.market] = found.get(run.market, 0) + lived.starting_ms + lived.serving_ms
    return found


def _between(run: ReplicaRun, since: int, until: int, first: int, last: int) -> tuple[int, int]:
    """(nano-dollars, milliseconds) of [first, last) inside [since, until)."""
    low, high = max(since, first), min(until, last)
    if high <= low:
        return 0, 0
    return _cumulative(run, high) - _cumulative(run, low), high - low


def _cumulative(run: ReplicaRun, at_unix_ms: int) -> int:
    return run.usd_nanos_per_hour * (at_unix_ms - run.started_unix_ms) // MS_PER_HOUR
