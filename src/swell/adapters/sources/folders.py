"""Files and folders as sources need them: sums, sizes, room on the disk, a lock between processes."""

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swell.errors import SourceError
from swell.ports.model_source import Progress

CHUNK_BYTES = 8 * 1024 * 1024
POLL_SECONDS = 0.25


def hash_file(path: Path, progress: Progress, done_bytes: int = 0, total_bytes: int | None = None) -> str:
    """SHA-256 of a file in hexadecimal. `done_bytes` of `total_bytes` were hashed before it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done_bytes += len(chunk)
            progress(done_bytes, total_bytes)
    return digest.hexdigest()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; files that vanish while it is walked count nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  (hot for large trees)
            except FileNotFoundError:
                continue
    return total


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raise SourceError where the disk under `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise SourceError(
            f"{folder} has {free // 1_000_000} MB free and the model needs {needed_bytes // 1_000_000} MB; "
            "free some, or point SWELL_CACHE to a larger disk."
        )


@contextmanager
def watched(folder: Path, total_bytes: int | None, progress: Progress) -> Iterator[None]:
    """Report how `folder` grows while something that cannot report by itself writes into it."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(POLL_SECONDS):
            done = folder_bytes(folder)
            progress(done if total_bytes is None else min(done, total_bytes), total_bytes)

    reporter = threading.Thread(target=report, name="download-progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()


@contextmanager
def locked(path: Path, *, wait_seconds: float, what: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`; SourceError after `wait_seconds`. A process that dies lets go of it."""
    pause = threading.Event()  # never set: a wait that Ctrl-C can end
    with path.open("ab") as file:
        for attempt in range(max(1, int(wait_seconds / POLL_SECONDS))):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause.wait(POLL_SECONDS if attempt else 0.02)
        else:
            raise SourceError(
                f"another process has been fetching {what} for {wait_seconds:.0f} s; wait for it or end it."
            )
        yield
