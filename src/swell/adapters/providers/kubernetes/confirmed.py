"""A cluster's API for one of several servers: nothing is written before it is confirmed that this one leads.

What is wanted is kept by the provider and written level by level, so a server that no longer leads would set back what
the one that does has written. Reads go through: they change nothing.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from swell.adapters.providers.kubernetes.api import UNREACHABLE, ApiProblem, Change, ClusterApi, Kind, Page
from swell.adapters.providers.kubernetes.objects import Read
from swell.errors import AtCapacity
from swell.ports.provider import Confirm


class ConfirmedApi:
    """`ClusterApi` over another one."""

    def __init__(self, api: ClusterApi, confirm: Confirm) -> None:
        self._api = api
        self._confirm = confirm

    def pages(self, kind: Kind, query: str) -> AsyncIterator[Page]:
        return self._api.pages(kind, query)

    def watch(self, kind: Kind, query: str, version: str) -> AsyncIterator[tuple[Change, Read]]:
        return self._api.watch(kind, query, version)

    async def apply(
        self, kind: Kind, name: str, manifest: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> Read:
        await self._require()
        return await self._api.apply(kind, name, manifest, manager=manager, force=force)

    async def annotate(self, pod: str, patch: Mapping[str, Any]) -> None:
        await self._require()
        await self._api.annotate(pod, patch)

    async def delete(self, kind: Kind, name: str, *, grace_seconds: int | None = None) -> None:
        await self._require()
        await self._api.delete(kind, name, grace_seconds=grace_seconds)

    async def read_log(self, pod: str, container: str, *, max_bytes: int, lines: int) -> str:
        return await self._api.read_log(pod, container, max_bytes=max_bytes, lines=lines)

    async def close(self) -> None:
        await self._api.close()

    async def _require(self) -> None:
        try:
            await self._confirm()
        except AtCapacity as error:
            raise ApiProblem(UNREACHABLE, f"not asked: {error}") from error
