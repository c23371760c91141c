"""What watches have counted, in a file of their own each, so that a restarted server goes on counting."""

import asyncio
import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from swell.security.private_files import replace_private

_log = logging.getLogger(__name__)


class KeptCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What every such file begins with."""

    version: int
    at_unix: float  # when it was written


_Kept = TypeVar("_Kept", bound=KeptCounts)


def read_counts(file: Path, shape: type[_Kept], version: int, now_unix: float, what: str) -> tuple[_Kept, float] | None:
    """What an earlier server counted, and how many seconds ago; None where there is nothing to go on with.

    A file that cannot be read is as good as none, and so is one from the future: how old it is, nobody knows.
    """
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=shape)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning(f"what was counted of {what} could not be read", extra={"reason": str(error)})
        return None
    away = now_unix - kept.at_unix
    return (kept, away) if kept.version == version and away >= 0 else None


async def write_counts(file: Path, kept: KeptCounts, what: str) -> None:
    """A disk that does not take it is logged: alerts go on without."""
    try:
        await asyncio.to_thread(replace_private, file, msgspec.json.encode(kept))
    except OSError as error:
        _log.warning(f"what was counted of {what} could not be kept", extra={"reason": str(error)})
