"""A gateway worker: one process, one event loop, one port shared with its siblings."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from swell.gateway.client import ClientConnection
from swell.gateway.control_link import ControlLink
from swell.gateway.exchange import Exchange
from swell.gateway.file_limit import raise_file_limit
from swell.gateway.pacer import Pacer
from swell.gateway.phase import Phase
from swell.gateway.service import Service
from swell.gateway.tls import listener_protocol, server_context
from swell.gateway.unserved import stopping
from swell.security.reloading import LOOK_SECONDS, ReloadingContext
from swell.state.worker import LEAVE_SIGNAL, WorkerSettings

CHECK_SECONDS = 0.25
LOAD_EVERY_CHECKS = 4
LOOK_EVERY_CHECKS = round(LOOK_SECONDS / CHECK_SECONDS)
BACKLOG = 2048
UNSENT = frozenset({Phase.ADMITTING, Phase.SHARES, Phase.QUEUED, Phase.CONNECTING})

_log = logging.getLogger(__name__)


def run_worker(settings: WorkerSettings) -> None:
    """Serve until SIGTERM, then drain and return. Raises OSError where the port cannot be had.

    LEAVE_SIGNAL goes before it where somebody must be told first: /readyz says no, and kept connections end one answer
    at a time, while everybody who comes is still served.
    """
    raise_file_limit(2 * settings.bounds.connections + 256)  # each needs one, and mostly one more upstream
    # Requests make no reference cycles that matter; full collections only cost tail latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    uvloop.run(_serve(settings))


async def _serve(settings: WorkerSettings) -> None:
    loop = asyncio.get_running_loop()
    service = Service(settings)
    link = ControlLink(service)
    service.link = link
    service.pacer = Pacer(loop)
    stop = asyncio.Event()

    def told_to_leave() -> None:
        service.leaving = True

    def told_to_stop() -> None:
        told_to_leave()
        stop.set()
        link.informed.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    loop.add_signal_handler(LEAVE_SIGNAL, told_to_leave)
    link_task = loop.create_task(link.run())
    shown = _shown(settings)
    upkeep = loop.create_task(_upkeep(service, link, shown, told_to_stop))
    listener = _listen(settings.host, settings.port)
    accept = listener_protocol(lambda: ClientConnection(service), (lambda: shown.current) if shown else None)
    server = await loop.create_server(accept, sock=listener, backlog=BACKLOG, start_serving=False)
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as disk:
        spooling = loop.create_task(_keep_spool(service, disk))
        await link.informed.wait()  # knowing no keys yet, it would tell clients that theirs are wrong
        if not stop.is_set():
            await server.start_serving()
        await stop.wait()
        service.draining = True
        server.close()
        await _drain(service)
        for task in (spooling, upkeep, link_task):
            task.cancel()
        await asyncio.gather(spooling, upkeep, link_task, return_exceptions=True)
        link.send_load()
    service.pacer.close()
    service.spool.close()


def _shown(settings: WorkerSettings) -> ReloadingContext | None:
    """What clients are shown. Raises OSError or ssl.SSLError for files that cannot be used."""
    if not settings.certificate_file:
        return None
    certificate, private_key = settings.certificate_file, settings.private_key_file
    return ReloadingContext(Path(certificate), (Path(private_key),), lambda: server_context(certificate, private_key))


async def _upkeep(
    service: Service, link: ControlLink, shown: ReloadingContext | None, stop: Callable[[], None]
) -> None:
    turns, settings = 0, service.settings
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        turns += 1
        try:
            service.check()
            if settings.parent_pid and os.getppid() != settings.parent_pid:
                stop()
            if service.pacer is not None:
                service.pacer.look(service.now(), time.thread_time())
            if turns % LOAD_EVERY_CHECKS == 0:
                link.send_load()
            if shown is not None and turns % LOOK_EVERY_CHECKS == 0:
                shown.look(time.time())
        except Exception:  # upkeep must outlive a fault in one turn; the fault is in the worker's log
            _log.exception("a turn of upkeep failed")


async def _keep_spool(service: Service, disk: ThreadPoolExecutor) -> None:
    """Group commit: what a power cut can lose is bounded by `spool_sync_seconds`."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(service.settings.spool_sync_seconds)
        if service.spool.needs_maintenance:
            await service.keep_spool(loop, disk)


async def _drain(service: Service) -> None:
    """Let running requests finish, within `drain_seconds`; then end what is left."""
    deadline = service.now() + service.timeouts.drain_seconds
    for client in list(service.clients):
        client.stop()
    # Polled, as only a stopping worker does it; an event would cost every request.
    while service.exchanges and service.now() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    for exchange in list(service.exchanges):
        end(exchange)
    for client in list(service.clients):
        client.transport.close()
    while service.clients and service.now() < deadline + 1:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)


def end(exchange: Exchange) -> None:
    """The time is over. Whoever has been sent to no replica is told to come again; what a replica answers is cut."""
    if exchange.phase in UNSENT:
        exchange.end_with(stopping())
    else:
        exchange.client_left()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener
