"""What a killed server leaves of nothing that runs.

Secrets tell of it: each is made before everything else of its Deployment or LeaderWorkerSet, and goes after it.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import ApiProblem, Kind, ignoring_gone
from swell.adapters.providers.kubernetes.certificates import Certificates
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.objects import Meta
from swell.adapters.providers.kubernetes.pacing import PacedApi
from swell.adapters.providers.kubernetes.seen import full_name
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.providers.kubernetes.worker_set import WorkerSet
from swell.clock import Clock

AGAIN_SECONDS = 30.0  # after a look that failed
CLEARING_SECONDS = 0.5  # until who waits for something to be cleared away looks again

_log = logging.getLogger(__name__)


class Clearing:
    """What is being cleared away, by name or workload. Nothing of it is made before that is done: it would go, too."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        """Until it is done, or has failed. Whoever clears must see just before that nobody uses it."""
        self._names.update(names)
        try:
            yield
        finally:
            self._names.subtract(names)

    def holds(self, *names: str) -> bool:
        """Whether one of them has to wait."""
        return any(self._names[name] > 0 for name in names if name)


class Remains:
    """Clears away what is neither of `groups` nor of `sets`. `recall` is given a set's name, workload and child."""

    def __init__(
        self,
        api: PacedApi,
        settings: ClusterSettings,
        clock: Clock,
        groups: Mapping[str, Group],
        sets: Mapping[str, WorkerSet],
        certificates: Certificates,
        recall: Callable[[str, str, str], None],
        clearing: Clearing,
    ) -> None:
        self._api = api
        self._clock = clock
        self._groups = groups
        self._sets = sets
        self._certificates = certificates
        self._recall = recall
        self._clearing = clearing
        self._query = names.as_query(names.replica_selector(settings.installation))
        self._next_at = math.inf

    def look(self) -> None:
        """There may be something. Adoption is over."""
        self._next_at = -math.inf

    def is_due(self, now: float) -> bool:
        """Whether to look."""
        return now >= self._next_at

    async def turn(self) -> None:
        """Look for it, and delete it; again later where that fails."""
        self._next_at = math.inf
        try:
            for left in await self.recall_sets():
                if left.name not in self._used():
                    with self._clearing.of(left.name, full_name(left)):
                        await self._clear(left)
        except ApiProblem as problem:
            self._next_at = self._clock.monotonic() + AGAIN_SECONDS
            _log.warning("Secrets of nothing that runs could not be cleared: %s", problem.message)

    async def recall_sets(self) -> list[Meta]:
        """Tell of all LeaderWorkerSets that may be there though nobody sees them. All other Secrets that nobody uses.

        Raises ApiProblem.
        """
        others: list[Meta] = []
        async for page in self._api.pages(Kind.SECRETS, self._query):
            used = self._used()
            for meta in [secret.metadata for secret in page.items if secret.metadata.name not in used]:
                if names.CHILD in meta.annotations:
                    self._recall(meta.name, full_name(meta), meta.annotations[names.CHILD])
                else:
                    others.append(meta)
        return others

    async def _clear(self, left: Meta) -> None:
        """One of a Deployment."""
        workload = full_name(left)
        if workload and not is_used(workload, self._groups, self._sets):
            await ignoring_gone(self._api.delete(Kind.DISRUPTION_BUDGETS, names.object_name(workload)))
        await ignoring_gone(self._api.delete(Kind.SECRETS, left.name))

    def _used(self) -> set[str]:
        return {group.name for group in self._groups.values()} | self._sets.keys() | self._certificates.secrets()


def is_used(workload: str, groups: Mapping[str, Group], sets: Mapping[str, WorkerSet]) -> bool:
    """Whether anything of a workload stays, so that its budget of disruptions does."""
    kept: list[Group | WorkerSet] = [*groups.values(), *sets.values()]
    return any(each.workload == workload and not each.is_clearing for each in kept)
