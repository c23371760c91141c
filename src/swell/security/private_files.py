"""Files that only their owner may read: written whole or not at all."""

import os
import secrets
from pathlib import Path

from swell.errors import StateError

_OTHERS = 0o077


def create_private(path: Path, content: bytes) -> bool:
    """Put `content` at `path` unless something is there; whether this call was the one that did.

    The file appears whole and is on the disk when this returns, and of two processes at once exactly one wins.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
        _sync_folder(path.parent)
    return True


def replace_private(path: Path, content: bytes) -> None:
    """Put `content` at `path`, in the place of what was there."""
    _write_temporary(path, content).replace(path)
    _sync_folder(path.parent)


def read_private(path: Path, what: str) -> bytes:
    """The content. Raises StateError, naming the file as `what`, if it is missing, unreadable or open to others."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except OSError as error:
        raise StateError(
            f"{what} {path} cannot be read: {error.strerror}; bring it back from a backup or correct its owner"
        ) from error
    if mode & _OTHERS:
        raise StateError(
            f"{what} {path} can be read or changed by others (mode {mode & 0o777:03o}); "
            f"run: chmod 600 {path}, and consider it known to them"
        )
    return content


def _write_temporary(path: Path, content: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as writer:
            writer.write(content)
            writer.flush()
            os.fsync(writer.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
