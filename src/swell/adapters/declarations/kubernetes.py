"""Models and tenants as custom resources in a namespace of a Kubernetes cluster.

They are listed once and then watched, as everything of a cluster is (`swell.adapters.providers.kubernetes.watch`). What
is written is the status alone, after it was confirmed that this server leads, and for the very object that was read:
one that was deleted and made anew under its name has another uid.
"""

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swell.adapters.providers.kubernetes.api import CONFLICT, NOT_FOUND, ApiProblem, Kind, ResourceApi
from swell.adapters.providers.kubernetes.objects import Read, Resource
from swell.adapters.providers.kubernetes.pacing import Pause
from swell.adapters.providers.kubernetes.watch import Watched, Watching
from swell.clock import Clock
from swell.errors import AtCapacity
from swell.ports.provider import Confirm, unquestioned
from swell.spec.declared import Declared

SYNC_SECONDS = 30.0  # until a cluster has told what there is
RETRY_SECONDS = 5.0
_KINDS = (Kind.MODELS, Kind.TENANTS)


@dataclass(frozen=True)
class _Seen:
    declared: Declared
    status: Mapping[str, Any] = field(hash=False)


class KubernetesDeclarations:
    """`swell.ports.declarations.Declarations` over a namespace."""

    def __init__(
        self, api: ResourceApi, *, clock: Clock, confirm: Confirm = unquestioned, pause: Pause = asyncio.sleep
    ) -> None:
        self.changed = asyncio.Event()
        self._api = api
        self._confirm = confirm
        self._watched: dict[Kind, Watched[_Seen]] = {
            kind: Watched(Watching(api, kind, "", clock, pause), functools.partial(_see, kind), self._told)
            for kind in _KINDS
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> Sequence[Declared]:
        if not self._tasks:
            self._tasks = [asyncio.ensure_future(each.run()) for each in self._watched.values()]
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                for each in self._watched.values():
                    await each.ready.wait()
        except TimeoutError:
            problem = next((each.problem for each in self._watched.values() if each.problem), "no answer")
            raise _out_of_reach(problem) from None
        denied = next((each for each in self._watched.values() if each.denied), None)
        if denied is not None:
            raise _out_of_reach(denied.problem)
        return self.current()

    def current(self) -> Sequence[Declared]:
        return sorted(seen.declared for each in self._watched.values() for seen in each.views.values())

    def status_of(self, item: Declared) -> Mapping[str, Any]:
        seen = self._watched[Kind(item.plural)].views.get(item.name)
        return seen.status if seen is not None and seen.declared.uid == item.uid else {}

    async def write_status(self, item: Declared, status: Mapping[str, Any]) -> bool:
        await self._confirm()
        try:
            await self._api.write_status(Kind(item.plural), item.name, item.uid, status)
        except ApiProblem as problem:
            if problem.status in (NOT_FOUND, CONFLICT):
                return problem.status == NOT_FOUND
            message = f"the cluster's API did not take the status of {item.name}: {problem.message}"
            wait = max(RETRY_SECONDS, problem.retry_after_seconds)
            raise AtCapacity(message, retry_after_seconds=wait) from problem
        return True

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._api.close()

    def _told(self, old: _Seen | None, new: _Seen | None) -> None:
        if old is None or new is None or old.declared != new.declared:
            self.changed.set()


def _see(kind: Kind, item: Read) -> _Seen:
    assert isinstance(item, Resource)  # noqa: S101  by its kind
    about = item.metadata
    declared = Declared(
        created=about.creationTimestamp or "",
        plural=kind.value,
        name=about.name,
        uid=about.uid,
        generation=about.generation,
        content=bytes(item.spec).decode("utf-8", "replace"),
    )
    return _Seen(declared, item.status)


def _out_of_reach(problem: str) -> AtCapacity:
    hint = "their definitions are in deploy/crds, and docs/kubernetes.md says which rights are needed"
    message = f"the custom resources cannot be read, for the cluster's API says: {problem} ({hint})"
    return AtCapacity(message, retry_after_seconds=RETRY_SECONDS)
