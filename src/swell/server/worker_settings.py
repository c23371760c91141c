"""From the spec to what a gateway worker is told: pure, plus the file that tells it."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from swell.server.state_directory import StateDirectory
from swell.spec import ServerSpec
from swell.state.worker import Bounds, Timeouts, WorkerSettings


@dataclass(frozen=True)
class Listener:
    """What all workers share besides the spec: their secrets' places."""

    pepper_file: Path
    certificate_file: Path | None = None
    private_key_file: Path | None = None


def worker_settings(
    spec: ServerSpec, state: StateDirectory, listener: Listener, *, worker_id: int, incarnation: str
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


def same_service(one: WorkerSettings, other: WorkerSettings) -> bool:
    """Whether two settings differ in nothing but whose they are, so that a running worker may stay."""
    return _anonymous(one) == _anonymous(other)


def _anonymous(settings: WorkerSettings) -> WorkerSettings:
    return msgspec.structs.replace(settings, worker_id=0, incarnation="", spool_dir="")


def settings_path(state: StateDirectory, incarnation: str) -> Path:
    """Where the settings of an incarnation lie."""
    return state.workers / f"{incarnation}.json"


def write_settings(state: StateDirectory, settings: WorkerSettings) -> Path:
    """Write them for the worker to read, readable by their owner alone."""
    path = settings_path(state, settings.incarnation)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(settings))
    return path


def read_settings(state: StateDirectory, incarnation: str) -> WorkerSettings | None:
    """What an incarnation was started with; None where that is not known any more."""
    try:
        return msgspec.json.decode(settings_path(state, incarnation).read_bytes(), type=WorkerSettings)
    except (OSError, msgspec.MsgspecError):
        return None
