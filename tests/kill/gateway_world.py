"""The world of kills with its gateways on machines of their own: a server without workers, and `swell gateway`s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill_load import Load
from kill_upstreams import JournalWatch, UpstreamProcess, pidfd_kill
from kill_world import CLIENTS, StartSwell, World, spec, status_of

from gateway_process import GatewayProcess
from swell.state.usage import LOCK_NAME
from swell_process import SwellProcess, choose_free_port, wait_until

_GATEWAYS = "  workers: 0\n  gateways: {{port: {port}}}\n"
START_SECONDS = 30.0


class GatewayWorld(World):
    """As World, with as many gateways as it would have workers; each has a worker and a load of its own."""

    def __init__(self, swell_up: StartSwell, folder: Path, seed: int, *, gateways: int = 2, upstreams: int = 1) -> None:
        self._folder = folder
        self._count = gateways
        self._gateways_port = choose_free_port()
        self.gateways: list[GatewayProcess] = []
        super().__init__(swell_up, folder, seed, workers=gateways, upstreams=upstreams)

    def start_server(self, swell_up: StartSwell, upstreams: Sequence[UpstreamProcess], patience: float) -> SwellProcess:
        """The server, its keys, and the gateways."""
        text = spec(upstreams, patience_seconds=patience) + _GATEWAYS.format(port=self._gateways_port)
        server = swell_up(text, ready=False, workers=0)
        wait_until(lambda: "Gateways" in server.output, seconds=START_SECONDS, what="the server serves")
        server.create_key()
        for number in range(self._count):
            gateway = GatewayProcess.of(
                server,
                self._folder,
                gateways_port=self._gateways_port,
                port=choose_free_port(),
                name=f"gateway-{number}",
            )
            gateway.start()
            self.gateways.append(gateway)
        for gateway in self.gateways:
            wait_until(gateway.is_ready, seconds=START_SECONDS, what=gateway.output)
        return server

    async def __aenter__(self) -> "GatewayWorld":
        await self.until_serving()
        self._watch = JournalWatch(self.upstreams, lambda grown: self.meter.add("journal", grown))
        keys = (self.server.key, self.server.key, self.limited_key)
        share = CLIENTS // self._count
        self._loads = [
            Load(gateway.port, keys, self._seed + number, share, self.meter)
            for number, gateway in enumerate(self.gateways)
        ]
        self.load = self._loads[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for load in self._loads:
                await load.stop()
            await super().__aexit__()
        finally:
            for gateway in self.gateways:
                gateway.end()

    @property
    def outcomes(self) -> list[Any]:
        return [outcome for load in self._loads for outcome in load.outcomes]

    async def stop_load(self) -> None:
        """Let every client of every gateway finish what it asked."""
        for load in self._loads:
            await load.stop()

    async def kill_worker(self) -> int:
        """Kill the worker of a gateway at a chosen point; its pid."""
        gateway = self.dice.choice(self.gateways)
        workers = await self.eventually(gateway.workers, "a worker lives")
        victim: int = workers[0].pid
        await self.point(f"the worker of {gateway.state.name} killed", pidfd_kill(victim))
        return victim

    async def kill_gateway(self) -> None:
        """Kill a gateway at a chosen point, and start it again when its workers have ended."""
        gateway = self.dice.choice(self.gateways)
        await self.point(f"{gateway.state.name} killed", pidfd_kill(gateway.pid))
        gateway.kill()
        await self.eventually(lambda: not gateway.workers(), "its workers have drained and ended")
        gateway.start()

    async def until_serving(self) -> dict[str, int]:
        """Wait until a worker of each gateway is connected to the server."""

        def all_serve() -> bool:
            found = (status_of(self.server) or {}).get("gateways", ())
            connected = [each["connected"] == each["workers"] == 1 for each in found]
            return len(connected) == self._count and all(connected) and all(each.is_ready() for each in self.gateways)

        await self.eventually(all_serve, "all gateways serve")
        return {}

    def is_quiet(self) -> bool:
        """Nothing is in flight, and every spool that is left is of a worker that lives."""
        status = status_of(self.server)
        if status is None or any(each["in_flight"] or each["queued"] for each in status["gateways"]):
            return False
        if any((upstream.stats() or {"in_flight": 1})["in_flight"] for upstream in self.upstreams):
            return False
        spools = [
            path for each in self.gateways for path in (each.state / "spool").iterdir() if (path / LOCK_NAME).exists()
        ]
        return len(spools) == self._count == len(status["gateways"])

    async def end_gateways(self) -> None:
        """Have each of them end in order; none leaves anything behind."""
        for gateway in self.gateways:
            assert gateway.stop() == 0, gateway.output
            assert gateway.spools() == []
