"""Gateways on other machines: what is known of them, and where they are listened to if the file says so."""

from collections.abc import Awaitable, Callable

from swell.gateway.file_limit import raise_file_limit
from swell.metering.ingest import Ingested
from swell.server.certificate_watch import CertificateWatch
from swell.server.channel import MAX_CONNECTIONS, ControlChannel
from swell.server.gateway_listener import MAX_GATEWAY_CONNECTIONS, GatewayListener
from swell.server.parts import Parts
from swell.server.remote_gateways import RemoteGateways
from swell.server.writer import Writer
from swell.state.gateway_messages import GatewaySettings
from swell.state.worker import Bounds, Timeouts

MAX_FILES = MAX_GATEWAY_CONNECTIONS + MAX_CONNECTIONS + 1024  # and what a server needs beside


class Gateways:
    """Made once per server. Where the file has no `server.gateways` there are none."""

    def __init__(
        self,
        parts: Parts,
        writer: Writer,
        changed: Callable[[], None],
        ingested: Callable[[Ingested], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._listener: GatewayListener | None = None
        self._certificates = CertificateWatch(parts.spec.server, parts.state, parts.clock, say)
        self.remote = RemoteGateways(
            parts.store,
            writer,
            parts.clock,
            max_silence_seconds=parts.spec.server.timeouts.snapshot_max_age_seconds,
            changed=changed,
            ingested=ingested,
        )

    async def open(self, channel: ControlChannel) -> None:
        """Listen, where that is wanted. Raises StateError."""
        spec = self._parts.spec.server.gateways
        if spec is None:
            return
        shown = self._certificates.open_control(spec)
        raise_file_limit(MAX_FILES)
        self._listener = GatewayListener(self.remote, channel, self._settings())
        await self._listener.open(spec.host, spec.port, lambda: shown.current)

    @property
    def refused(self) -> int:
        """Connections of addresses that open more than they prove to be a gateway's."""
        return 0 if self._listener is None else self._listener.refused

    async def look(self) -> None:
        """Once in LOOK_SECONDS: who is silent, and whether certificates were renewed."""
        self._certificates.look()
        await self.remote.look()

    async def collect(self) -> None:
        """Have what gateways' workers wrote by now entered, as far as they answer."""
        if self._listener is not None:
            await self._listener.collect()

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.close()

    def _settings(self) -> GatewaySettings:
        server = self._parts.spec.server
        return GatewaySettings(
            pepper=self._parts.pepper,
            port=server.port,
            workers=max(1, server.workers),
            spool_sync_seconds=server.spool_sync_seconds,
            queue_seconds=server.queue_seconds.model_dump(),
            timeouts=Timeouts(**server.timeouts.model_dump()),
            bounds=Bounds(**server.bounds.model_dump()),
        )
