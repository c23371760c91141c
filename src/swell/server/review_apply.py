"""A reviewed `swell.yaml` put in the place of the one that was read: whole or not at all, the old one beside it."""

import os
import secrets
import stat
from pathlib import Path

from swell.errors import UserError

BACKUP_SUFFIX = ".bak"


def put_in_place(path: Path, seen: bytes, content: bytes) -> Path:
    """Write `content` to `path`, which must still hold `seen`; returns where that is kept.

    UserError where the file changed meanwhile or its folder cannot be written. A link stays a link: what it leads to
    is replaced. The mode stays.
    """
    real = path.resolve()
    backup = real.with_name(real.name + BACKUP_SUFFIX)
    try:
        mode = stat.S_IMODE(real.stat().st_mode)
        _refuse_changed(real, seen)
        _write(backup, seen, mode)
        _write(real, content, mode, still=seen)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give yourself access and run again") from error
    return backup


def _refuse_changed(path: Path, seen: bytes) -> None:
    if path.read_bytes() != seen:
        raise UserError(f"{path} was changed while it was reviewed, and is left as it is; run the review again")


def _write(path: Path, content: bytes, mode: int, *, still: bytes | None = None) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as writer:
            writer.write(content)
            writer.flush()
            os.fchmod(writer.fileno(), mode)
            os.fsync(writer.fileno())
        if still is not None:
            _refuse_changed(path, still)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
