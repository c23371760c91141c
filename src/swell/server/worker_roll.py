"""Which gateway workers live, here and elsewhere; and that what a dead one used is booked.

Workers of this machine are the fleet's, those of others are named by their gateways (RFC 7).
"""

from collections.abc import Awaitable, Callable, Iterable

from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER
from swell.server.background import Background
from swell.server.channel import ControlChannel
from swell.server.gateway_workload import forget_settings, require_port
from swell.server.parts import Parts
from swell.server.publish import limits_of
from swell.server.remote_gateways import RemoteGateways
from swell.server.seeding import recent_use
from swell.server.views import running_workers
from swell.server.writer import Writer


class WorkerRoll:
    """Made once per server; `channel` is set before any worker can connect."""

    def __init__(
        self,
        parts: Parts,
        writer: Writer,
        background: Background,
        remote: RemoteGateways,
        everything: Callable[[], Awaitable[None]],
    ) -> None:
        """`everything` has what workers wrote by now entered into the ledger."""
        self._parts = parts
        self._writer = writer
        self._background = background
        self._remote = remote
        self._everything = everything
        self._silent: set[str] = set()  # adopted workers that have not told what they hold
        self.living: set[str] = set()  # incarnations whose processes run
        self.here: set[str] = set()  # those of this machine
        self.channel: ControlChannel

    async def begin(self, replicas: Iterable[Replica]) -> None:
        """Adopt who lives, and check that the port can be had. Raises UserError."""
        await self._remote.begin()
        self.here = here = running_workers(replicas)
        self.living = here | self._remote.living()
        self._silent = set(self.living)
        forget_settings(self._parts.state, here)
        if self._parts.spec.server.workers:
            require_port(self._parts.spec.server, self._parts.state, here)

    @property
    def count(self) -> int:
        """Those that there shall be, by which what a replica takes at once is divided."""
        return max(1, self._parts.spec.server.workers + len(self._remote.living()))

    def look(self, replicas: Iterable[Replica]) -> None:
        """Book out the workers whose processes are gone."""
        self.here = here = running_workers(replicas)
        living = here | self._remote.living()
        ended = self.living - living
        for incarnation in ended:
            self.channel.worker_gone(incarnation)
            if incarnation in self._silent:
                self._background.run(self.account_for(incarnation), "a dead worker's use could not be booked")
        if ended:
            forget_settings(self._parts.state, here)
        self.living = living

    def heard(self) -> None:
        """Who is connected has told what it holds."""
        self._silent -= self.channel.connected().keys()

    def is_known(self, replicas: Iterable[Replica], incarnation: str) -> bool:
        """Whether it is one of ours."""
        here = any(r.child_id == incarnation for r in replicas if r.kind == GATEWAY_WORKER)
        return here or incarnation in self._remote.living()

    async def account_for(self, incarnation: str) -> None:
        """Book what a worker used that died without telling this server; for "", what all used that are dead by now."""
        limits = limits_of(self.channel.publication.picture).keys()
        used: dict[str, int] = {}
        if limits:
            await self._everything()
            living = set() if incarnation else set(self.living)
            store, now = self._parts.store, self._parts.clock.unix()
            used = await self._writer.call(lambda: recent_use(store, limits, now, worker=incarnation, living=living))
        self.channel.leases.account_for(incarnation, used, self._parts.clock.monotonic())
