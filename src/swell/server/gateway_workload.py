"""The gateway workers as one of the fleet's workloads: what each is told, and when a running one no longer fits."""

import hashlib
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from swell.control.workload import GATEWAY_WORKER, Slot, Workload
from swell.ports.engine import LaunchCommand
from swell.security.private_files import replace_private
from swell.server.listener import Listener
from swell.server.port import require_free_port
from swell.server.state_directory import StateDirectory
from swell.spec import ServerSpec
from swell.state.worker import Bounds, Timeouts, WorkerSettings

NAME = "gateway"  # its logs are gateway-0.log, gateway-1.log, …
STOP_MARGIN_SECONDS = 5.0  # beyond a worker's own drain, before it is killed
# A replaced worker goes on accepting for so long, until its successor surely listens. After that it is told to end,
# and drains by itself.
OVERLAP_SECONDS = 2.0
BACKOFF_MAX_SECONDS = 10.0
_INCARNATION_BYTES = 6


def worker_settings(
    spec: ServerSpec, state: StateDirectory, listener: Listener, *, worker_id: int = 0, incarnation: str = ""
) -> WorkerSettings:
    """The settings of one incarnation of one worker."""
    return WorkerSettings(
        worker_id=worker_id,
        incarnation=incarnation,
        host=spec.host,
        port=spec.port,
        control_socket=str(state.control_socket),
        spool_dir=str(state.spool / incarnation),
        pepper_file=str(listener.pepper_file),
        certificate_file=str(listener.certificate_file or ""),
        private_key_file=str(listener.private_key_file or ""),
        spool_sync_seconds=spec.spool_sync_seconds,
        queue_seconds=spec.queue_seconds.model_dump(),
        timeouts=Timeouts(**spec.timeouts.model_dump()),
        bounds=Bounds(**spec.bounds.model_dump()),
    )


def gateway_workload(spec: ServerSpec, state: StateDirectory, listener: Listener) -> Workload:
    """`spec.workers` workers. One whose settings have changed is replaced; both share the port meanwhile."""

    def launch(slot: Slot) -> LaunchCommand:
        settings = worker_settings(spec, state, listener, worker_id=slot.ordinal, incarnation=slot.child_id)
        path = settings_path(state, slot.child_id)
        replace_private(path, msgspec.json.encode(settings))
        return LaunchCommand((sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(path)))

    return Workload(
        name=NAME,
        kind=GATEWAY_WORKER,
        count=spec.workers,
        provider="process",
        log_dir=state.logs,
        fingerprint=_fingerprint(worker_settings(spec, state, listener)),
        launch=launch,
        wants_port=False,
        new_id=lambda name, ordinal: secrets.token_hex(_INCARNATION_BYTES),
        drain_seconds=OVERLAP_SECONDS,
        stop_grace_seconds=spec.timeouts.drain_seconds + STOP_MARGIN_SECONDS,
        backoff_max_seconds=BACKOFF_MAX_SECONDS,
    )


def settings_path(state: StateDirectory, incarnation: str) -> Path:
    """Where the settings of an incarnation lie."""
    return state.workers / f"{incarnation}.json"


def port_of(state: StateDirectory, incarnation: str) -> tuple[str, int] | None:
    """Host and port that an incarnation was told to listen on; None where that is not known any more."""
    try:
        settings = msgspec.json.decode(settings_path(state, incarnation).read_bytes(), type=WorkerSettings)
    except (OSError, msgspec.MsgspecError):
        return None
    return settings.host, settings.port


def require_port(spec: ServerSpec, state: StateDirectory, living: Iterable[str]) -> None:
    """Raise UserError where the port cannot be had, unless a living worker of ours has it."""
    if all(port_of(state, incarnation) != (spec.host, spec.port) for incarnation in living):
        require_free_port(spec.host, spec.port)


def forget_settings(state: StateDirectory, alive: set[str]) -> set[str]:
    """Remove the settings of incarnations that are not among the living; which they were."""
    dead = {path.stem for path in state.workers.glob("*.json")} - alive
    for incarnation in dead:
        settings_path(state, incarnation).unlink(missing_ok=True)
    return dead


def _fingerprint(settings: WorkerSettings) -> str:
    # The certificate's content counts too: a renewed one must reach the workers.
    digest = hashlib.sha256(msgspec.json.encode(settings))
    if settings.certificate_file:
        digest.update(Path(settings.certificate_file).read_bytes())
    return digest.hexdigest()[:16]
