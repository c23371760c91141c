"""Whether a machine has room for one more: memory that was promised, and GPUs, which a daemon would hand out twice."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from swell.adapters.providers.container_api import DockerApi, RefusedError
from swell.adapters.providers.container_body import ContainerPlace
from swell.errors import AtCapacity, LaunchFailed
from swell.ports.provider import Needs

FULL_SECONDS = 10.0  # until it is worth asking again
_GIB = 1024**3


class Tenant(Protocol):
    """A container that is there already."""

    @property
    def devices(self) -> tuple[str, ...]:
        """GPUs that it has."""

    @property
    def memory_bytes(self) -> int:
        """That it was promised."""


class Room:
    """The machine behind a daemon. `learn` first; `reserve` waits for nothing, so that no two are given the same."""

    def __init__(self, place: ContainerPlace, api: DockerApi) -> None:
        self._place = place
        self._api = api
        self._memory_bytes: int | None = None

    async def learn(self, needs: Needs) -> None:
        """Ask how much memory there is, once it matters. Raises AtCapacity where the daemon is away."""
        if needs.memory_bytes and self._memory_bytes is None:
            try:
                self._memory_bytes = int((await self._api.call("GET", "/info")).get("MemTotal") or 0)
            except RefusedError:
                self._memory_bytes = 0  # it does not tell; the kernel will

    def reserve(self, needs: Needs, tenants: Sequence[Tenant]) -> tuple[str, ...]:
        """The GPUs to use. Raises AtCapacity where there is no room now, LaunchFailed where there never is."""
        if needs.memory_bytes:
            self._require_memory(needs.memory_bytes, sum(tenant.memory_bytes for tenant in tenants))
        return free_devices(self._place, needs.accelerators, {device for each in tenants for device in each.devices})

    def _require_memory(self, wanted: int, promised: int) -> None:
        total = self._memory_bytes or 0
        if total and wanted > total:
            raise LaunchFailed(
                f"a replica shall have {wanted / _GIB:.1f} GiB and the machine of {self._place.name} has "
                f"{total / _GIB:.1f} GiB; lower its memory in providers[]"
            )
        if total and wanted + promised > total:
            raise AtCapacity(
                f"{promised / _GIB:.1f} GiB of the {total / _GIB:.1f} GiB of {self._place.name} are promised to other "
                f"replicas; lower memory in providers[] or replicas.max",
                retry_after_seconds=FULL_SECONDS,
            )


def free_devices(place: ContainerPlace, count: int, taken: Iterable[str]) -> tuple[str, ...]:
    """`count` GPUs of `place` that are not `taken`, in the order of the spec."""
    if not count:
        return ()
    if count > len(place.devices):
        raise LaunchFailed(
            f"a replica needs {count} GPUs and {place.name} has {len(place.devices)}; list them in providers[].gpus"
        )
    used = set(taken)
    free = [device for device in place.devices if device not in used]
    if len(free) < count:
        raise AtCapacity(
            f"{len(free)} of the {len(place.devices)} GPUs of {place.name} are free and a replica needs {count}; "
            f"list more in providers[].gpus or lower replicas.max",
            retry_after_seconds=FULL_SECONDS,
        )
    return tuple(free[:count])
