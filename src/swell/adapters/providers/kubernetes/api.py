"""What the provider asks of a cluster's API, and what can go wrong: the seam between decisions and HTTP.

Contract for every implementation: calls return what the server answered or raise ApiProblem, and nothing else; none
of them tries again by itself, because whoever asks knows better by then what to ask for.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from swell.adapters.providers.kubernetes.objects import Read

UNREACHABLE, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, TOO_OLD = 0, 400, 403, 404, 409, 410
INVALID, TOO_MANY = 422, 429
FINAL = frozenset({BAD_REQUEST, FORBIDDEN, INVALID})  # the same again would be answered the same


class Kind(StrEnum):
    """Kinds of objects, by the plural that URLs have."""

    DEPLOYMENTS = "deployments"
    PODS = "pods"
    NODES = "nodes"
    SECRETS = "secrets"
    DISRUPTION_BUDGETS = "poddisruptionbudgets"
    CERTIFICATES = "certificates"
    LEADER_WORKER_SETS = "leaderworkersets"
    JOBS = "jobs"
    DAEMON_SETS = "daemonsets"
    MODELS = "models"
    TENANTS = "tenants"


class Change(StrEnum):
    """What a watch tells of an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"  # nothing but how far the watch has come


class ApiProblem(Exception):  # noqa: N818  named for what it is, as those of `swell.errors`
    """The API did not do what was asked. `status` is HTTP's, or UNREACHABLE."""

    def __init__(self, status: int, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_final(self) -> bool:
        """Whether asking for the same again is of no use."""
        return self.status in FINAL


@dataclass(frozen=True)
class Page:
    """Part of a list; `version` is that of the whole list."""

    version: str
    items: Sequence[Read]


class ClusterApi(Protocol):
    """A namespace of a cluster. `query` is a selector of labels, empty for all."""

    def pages(self, kind: Kind, query: str) -> AsyncIterator[Page]:
        """All objects of a kind, page by page, as they were at one moment."""

    def watch(self, kind: Kind, query: str, version: str) -> AsyncIterator[tuple[Change, Read]]:
        """What happens after `version`, without end. Raises ApiProblem TOO_OLD where that is no longer known."""

    async def apply(
        self, kind: Kind, name: str, manifest: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> Read:
        """Server-side apply, whoever else has an opinion on these fields. The object as it is then.

        Without `force`, CONFLICT where somebody else wants another value of one of them.
        """

    async def annotate(self, pod: str, patch: Mapping[str, Any]) -> None:
        """Merge into a Pod's metadata."""

    async def delete(self, kind: Kind, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete; a Pod gets `grace_seconds` to end, or what its spec says."""

    async def read_log(self, pod: str, container: str, *, max_bytes: int, lines: int) -> str:
        """The end of a container's log."""

    async def close(self) -> None:
        """Close its connections."""


async def ignoring_gone(call: Awaitable[None]) -> None:
    """Delete or annotate what may be gone already. Raises ApiProblem."""
    try:
        await call
    except ApiProblem as problem:
        if problem.status != NOT_FOUND:
            raise


class ResourceApi(ClusterApi, Protocol):
    """The same with Swell's own resources, which have a status of their own."""

    async def write_status(self, kind: Kind, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Merge into the status of the object with that uid; CONFLICT where the name is another's by now."""
