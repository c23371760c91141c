"""Log files of children: opened for appending, read from the end, rotated by copy and truncate.

A child keeps its file open for as long as it lives, so the file itself must stay: its content is copied away and the
file cut to nothing. What is written between the two is lost; the alternative, a pipe, would end with the server.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from swell.ports.provider import LOG_TAIL_BYTES

_START_MARK = b"=== swell starts "


def open_log(path: Path, child_id: str) -> int:
    """A descriptor that appends to `path`, which begins a new chapter for this child."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.write(descriptor, _START_MARK + child_id.encode() + b" ===\n")
    return descriptor


def read_tail(path: Path) -> str:
    """The end of the last chapter, whole lines, at most LOG_TAIL_BYTES."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            tail = file.read(LOG_TAIL_BYTES)
    except OSError:
        return ""
    if size > LOG_TAIL_BYTES:
        tail = tail.partition(b"\n")[2] or tail
    before, mark, chapter = tail.rpartition(_START_MARK)
    text = chapter.partition(b"\n")[2] if mark else before or chapter
    return text.decode("utf-8", "replace").strip()


def rotate(path: Path, *, max_bytes: int, files: int) -> None:
    """Cut a log over `max_bytes`; `files` old ones stay, `.1` the newest.

    Where the copy cannot be written, as on a full disk, the content is dropped: a bounded log matters more.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return
    except OSError:
        return
    with suppress(OSError):
        if files > 0:
            _shift(path, files)
            _copy(path, _numbered(path, 1))
    with suppress(OSError):
        os.truncate(path, 0)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _shift(path: Path, files: int) -> None:
    for number in range(files - 1, 0, -1):
        with suppress(FileNotFoundError):
            _numbered(path, number).replace(_numbered(path, number + 1))


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError:
        target.unlink(missing_ok=True)
        raise
