"""What stands in a Pod in front of an engine: `python -m swell.server.replica_sidecar`, from Swell's gateway image.

It ends TLS, asks gateways for their certificates, and passes their bytes on to the engine, which listens on loopback
alone (RFC 9). Its own certificate is read anew when the mounted Secret changes, and on SIGHUP; connections go on
meanwhile. It ends when it is told to, which a kubelet does after the engine has ended: what runs until then is not cut.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swell.errors import StateError
from swell.gateway.file_limit import raise_file_limit
from swell.observe.logs import log_to_stream
from swell.security.reloading import ReloadingContext
from swell.security.replica_tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE, replica_context
from swell.server.replica_health import HealthPort
from swell.server.replica_relay import LOOK_SECONDS, MAX_CONNECTIONS, Relay
from swell.server.tls_door import MAX_HANDSHAKES, TlsDoor

try:
    import uvloop
except ImportError:  # slower, and as good
    uvloop = None  # type: ignore[assignment]

RELOAD_SECONDS = 10.0  # between two looks at the certificate's files; a kubelet takes a minute to change them
LOOPBACK = "127.0.0.1"
SPARE_FILES = 64


@dataclass(frozen=True)
class SidecarSettings:
    """What it is started with. `client` is the name that gateways' certificates must have."""

    folder: Path
    client: str
    port: int
    engine_port: int
    health_port: int
    health_path: str
    host: str = "0.0.0.0"  # noqa: S104  of a Pod's own network


class Sidecar:
    """Opens both ports; `close` ends every connection."""

    def __init__(self, settings: SidecarSettings, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        engine = LOOPBACK, settings.engine_port
        self.relay = Relay(engine, settings.client, _say)
        self.door = TlsDoor(self.relay.accept)
        self.health = HealthPort(engine, settings.health_path) if settings.health_path else None
        self._shown: ReloadingContext | None = None  # once it listens

    async def open(self) -> None:
        """Listen. Raises StateError where there is no certificate to show, OSError where a port cannot be had."""
        settings = self._settings
        certificate, *others = (settings.folder / name for name in (CERTIFICATE_FILE, KEY_FILE, CA_FILE))
        shown = self._shown = ReloadingContext(certificate, others, lambda: replica_context(settings.folder))
        await self.door.open(settings.host, settings.port, lambda: shown.current)
        if self.health is not None:
            await self.health.open(settings.host, settings.health_port)

    def reload(self) -> bool:
        """Show new connections another certificate where the files have another; whether they have.

        One that cannot be used changes nothing: its files may be written just now.
        """
        if self._shown is None:
            return False
        before = self._shown.current
        self._shown.look(self._now())  # its log says what is wrong
        is_another = self._shown.current is not before
        if is_another:
            _say("another certificate is shown from now on")
        return is_another

    async def watch(self) -> None:
        """Look after certificate and connections until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            self.reload()
            looks += 1
            if looks * RELOAD_SECONDS >= LOOK_SECONDS:
                looks = 0
                self.relay.look()

    def close(self) -> None:
        """Listen no more, and end what there is."""
        self.door.close()
        self.relay.close()
        if self.health is not None:
            self.health.close()


async def _serve(settings: SidecarSettings) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sidecar = Sidecar(settings)
    loop.add_signal_handler(signal.SIGHUP, sidecar.reload)
    await sidecar.open()
    watching = loop.create_task(sidecar.watch())
    _say(f"gateways are taken on port {sidecar.door.port}")
    if sidecar.health is not None:
        _say(f"health is told on port {sidecar.health.port}")
    try:
        await stop.wait()
    finally:
        watching.cancel()
        sidecar.close()
        await asyncio.gather(watching, return_exceptions=True)


def _say(sentence: str) -> None:
    print(f"swell sidecar: {sentence}", file=sys.stderr, flush=True)


def _settings(arguments: Sequence[str]) -> SidecarSettings:
    parser = argparse.ArgumentParser(
        prog="python -m swell.server.replica_sidecar", description="TLS in front of an engine, in its Pod."
    )
    parser.add_argument("--folder", type=Path, required=True, help="with ca.crt, tls.crt and tls.key")
    parser.add_argument("--client", required=True, help="the name that gateways' certificates must have")
    parser.add_argument("--port", type=int, required=True, help="where gateways come, over TLS")
    parser.add_argument("--engine-port", type=int, required=True, help="where the engine listens, on 127.0.0.1")
    parser.add_argument("--health-port", type=int, default=0, help="where its health path is answered in plain HTTP")
    parser.add_argument("--health-path", default="", help="of the engine; default: no such port")
    parser.add_argument("--host", default=SidecarSettings.host, help="of both ports")
    return SidecarSettings(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM; 2 where it cannot begin."""
    settings = _settings(arguments)
    log_to_stream(sys.stderr, level="WARNING")
    raise_file_limit(2 * MAX_CONNECTIONS + MAX_HANDSHAKES + SPARE_FILES)
    try:
        if uvloop is None:
            asyncio.run(_serve(settings))
        else:
            uvloop.run(_serve(settings))
    except (OSError, StateError) as error:
        _say(f"cannot begin: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
