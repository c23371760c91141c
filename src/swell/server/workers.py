"""Supervision of the gateway workers: one running incarnation per slot, whatever happens.

The intent to start a worker is stored before it is started and its handle afterwards, so a server that
was killed at any point in between finds what it started. A worker whose settings no longer fit is
replaced before it is told to drain: both share the port, no connection is refused.
"""

import logging
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from swell.clock import Clock
from swell.errors import AlreadyGone, LaunchFailed, RetryLater
from swell.ports.provider import ChildHandle, ChildSpec, Presence, Provider
from swell.ports.store import Store
from swell.server.state_directory import StateDirectory
from swell.server.worker_settings import (
    Listener,
    read_settings,
    same_service,
    settings_path,
    worker_settings,
    write_settings,
)
from swell.server.writer import Writer
from swell.spec import ServerSpec
from swell.state.records import ProcessRecord
from swell.state.worker import WorkerSettings

KIND = "gateway_worker"
MAX_BACK_OFF_SECONDS = 15.0
STOP_MARGIN_SECONDS = 5.0  # beyond a worker's own drain, before it is killed
_FIRST_BACK_OFF_SECONDS = 0.25
_HEALTHY_SECONDS = 10.0  # a worker that lived this long starts anew at once
_INCARNATION_BYTES = 6

_log = logging.getLogger(__name__)


@dataclass
class Incarnation:
    """One worker process."""

    settings: WorkerSettings
    handle: ChildHandle
    started: float  # monotonic

    @property
    def name(self) -> str:
        """Its incarnation id."""
        return self.settings.incarnation


@dataclass
class _Slot:
    worker_id: int
    current: Incarnation | None = None
    failures: int = 0
    not_before: float = 0.0


@dataclass
class Workers:
    """`adopt` once, `step(now)` often, `stop` and `step` until `all_gone`."""

    spec: ServerSpec
    state: StateDirectory
    listener: Listener
    provider: Provider
    store: Store
    writer: Writer
    clock: Clock
    on_gone: Callable[[str], None] = lambda incarnation: None
    on_failure: Callable[[str], None] = lambda sentence: None
    _slots: list[_Slot] = field(init=False)
    _retiring: list[Incarnation] = field(default_factory=list)
    _stopping: bool = False

    def __post_init__(self) -> None:
        self._slots = [_Slot(number) for number in range(self.spec.workers)]

    def known(self, incarnation: str) -> bool:
        """Whether this incarnation is one of ours and alive; others are fenced off."""
        return any(child.name == incarnation for child in self.living())

    def living(self) -> list[Incarnation]:
        """Running incarnations, those that drain included."""
        return [slot.current for slot in self._slots if slot.current is not None] + self._retiring

    def all_gone(self) -> bool:
        """Whether nothing runs any more."""
        return not self.living()

    async def adopt(self) -> None:
        """Find what an earlier server started; what no longer fits will be replaced."""
        for record in await self.writer.call(self.store.list_processes):
            if record.kind == KIND:
                await self._adopt(record)

    async def step(self, now: float) -> None:
        """Notice what ended, replace what does not fit, start what is missing."""
        for child in list(self._retiring):
            if self._is_gone(child):
                self._retiring.remove(child)
                await self._clean_up(child)
        for slot in self._slots:
            if slot.current is not None and self._is_gone(slot.current):
                await self._ended(slot, slot.current, now)
            if slot.current is not None and not self._fits(slot.current):
                await self._replace(slot, slot.current, now)
            if slot.current is None and not self._stopping and now >= slot.not_before:
                await self._start(slot, now)
        for child in self.living():
            await self.provider.rotate_log(
                child.handle.log_path, max_bytes=self.spec.log_bytes, files=self.spec.log_files
            )

    async def stop(self, *, grace_seconds: float | None = None) -> None:
        """Tell every worker to drain; `grace_seconds` other than the spec's speeds it up. Returns at once."""
        self._stopping = True
        grace = self.spec.timeouts.drain_seconds + STOP_MARGIN_SECONDS if grace_seconds is None else grace_seconds
        for child in self.living():
            await self.provider.stop(child.handle, grace_seconds=grace)

    async def _adopt(self, record: ProcessRecord) -> None:
        incarnation = record.process_id
        worker_id = int(record.detail.get("worker_id") or 0)
        log_path = self.state.logs / f"gateway-{worker_id}.log"
        known = None
        if record.pid is not None and record.start_time is not None:
            known = ChildHandle(incarnation, log_path, record.pid, record.start_time)
        handle = await self.provider.adopt(incarnation, log_path, known)
        settings = read_settings(self.state, incarnation)
        if handle is None:
            settings_path(self.state, incarnation).unlink(missing_ok=True)
            await self.writer.call(lambda: self.store.remove_process(incarnation))
            return
        if settings is None:
            settings = self._settings(worker_id, incarnation)
        child = Incarnation(settings, handle, self.clock.monotonic())
        slot = self._slots[worker_id] if worker_id < len(self._slots) else None
        _log.info("a running worker was adopted", extra={"incarnation": incarnation, "pid": handle.pid})
        if slot is not None and slot.current is None:
            slot.current = child
        else:
            await self._retire(child)

    def _settings(self, worker_id: int, incarnation: str) -> WorkerSettings:
        return worker_settings(self.spec, self.state, self.listener, worker_id=worker_id, incarnation=incarnation)

    def _fits(self, child: Incarnation) -> bool:
        return same_service(child.settings, self._settings(child.settings.worker_id, child.name))

    def _is_gone(self, child: Incarnation) -> bool:
        return self.provider.status(child.handle).presence is Presence.GONE

    async def _start(self, slot: _Slot, now: float) -> None:
        incarnation = secrets.token_hex(_INCARNATION_BYTES)
        settings = self._settings(slot.worker_id, incarnation)
        path = write_settings(self.state, settings)
        intent = ProcessRecord(
            process_id=incarnation,
            kind=KIND,
            marker=incarnation,
            recorded_at_unix=self.clock.unix(),
            detail={"worker_id": slot.worker_id},
        )
        await self.writer.call(lambda: self.store.record_process(intent))
        child = ChildSpec(
            child_id=incarnation,
            argv=(sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(path)),
            log_path=self.state.logs / f"gateway-{slot.worker_id}.log",
        )
        try:
            handle = await self.provider.start(child)
        except (LaunchFailed, RetryLater) as error:
            path.unlink(missing_ok=True)
            await self.writer.call(lambda: self.store.remove_process(incarnation))
            self._back_off(slot, now, str(error))
            return
        slot.current = Incarnation(settings, handle, now)
        try:
            await self.writer.call(lambda: self.store.record_started(incarnation, handle.pid, handle.start_time))
        except AlreadyGone:
            _log.error("a worker's entry vanished from the store", extra={"incarnation": incarnation})
        _log.info(
            "a worker was started",
            extra={"worker_id": slot.worker_id, "incarnation": incarnation, "pid": handle.pid},
        )

    async def _ended(self, slot: _Slot, child: Incarnation, now: float) -> None:
        slot.current = None
        exit_code = self.provider.status(child.handle).exit_code
        if now - child.started >= _HEALTHY_SECONDS:
            slot.failures = 0
        tail = (await self.provider.log_tail(child.handle.log_path)).strip().splitlines()
        await self._clean_up(child)
        if not self._stopping:
            self._back_off(slot, now, f"it ended with {exit_code}" + (f": {tail[-1]}" if tail else ""))

    def _back_off(self, slot: _Slot, now: float, reason: str) -> None:
        pause = 0.0 if slot.failures == 0 else _FIRST_BACK_OFF_SECONDS * 2 ** min(slot.failures - 1, 10)
        pause = min(pause, MAX_BACK_OFF_SECONDS)
        slot.failures += 1
        slot.not_before = now + pause
        _log.warning(
            "a worker is not running",
            extra={"worker_id": slot.worker_id, "reason": reason, "retry_after_seconds": pause},
        )
        self.on_failure(f"gateway worker {slot.worker_id} is not running ({reason}); trying again in {pause:g} s")

    async def _replace(self, slot: _Slot, child: Incarnation, now: float) -> None:
        slot.current = None
        await self._start(slot, now)
        await self._retire(child)

    async def _retire(self, child: Incarnation) -> None:
        self._retiring.append(child)
        grace = child.settings.timeouts.drain_seconds + STOP_MARGIN_SECONDS
        await self.provider.stop(child.handle, grace_seconds=grace)

    async def _clean_up(self, child: Incarnation) -> None:
        self.on_gone(child.name)
        settings_path(self.state, child.name).unlink(missing_ok=True)
        await self.writer.call(lambda: self.store.remove_process(child.name))
        await self.provider.forget(child.handle)
