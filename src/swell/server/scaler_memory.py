"""What the scaling policy has learnt, kept over a server's restart: without it a steady load looks new, and margins are
those of a service that was just met, about twice as many replicas.

One file per model, written now and then and at the end. Times inside are monotonic; they are moved by how much the two
clocks went on in between, so that a reboot does no harm. After a longer time away only what was learnt counts, not what
was seen last; a file that cannot be read, or is of another profile or objective, is as good as none.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from swell.clock import Clock
from swell.ports.scaler import Scaler
from swell.security.private_files import replace_private

if TYPE_CHECKING:
    from swell.policy.scaling.swell import ScalingMemory, SwellScaler

VERSION = 1
FRESH_SECONDS = 600.0  # away for longer: the last samples say nothing about now
OLDEST_SECONDS = 8 * 86_400.0

_log = logging.getLogger(__name__)


class ScalerMemories:
    """The files of a state directory, in a folder of its own."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def restore(self, model: str, scaler: Scaler) -> bool:
        """Give a new scaler what one before it had learnt; whether there was anything."""
        own = _own(scaler)
        if own is None:
            return False
        try:
            content = self._path(model).read_bytes()
        except OSError:
            return False
        found = self._read(content, own)
        if found is None:
            _log.info("what was learnt of a model is of no use any more", extra={"model": model})
            return False
        own.memory = found
        return True

    def save(self, model: str, scaler: Scaler) -> None:
        """Keep what a scaler has learnt. Raises OSError where the disk does not take it."""
        own = _own(scaler)
        if own is None:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        replace_private(self._path(model), _encode(own, self._clock))

    def _path(self, model: str) -> Path:
        return self._folder / f"{quote(model, safe='')}.json"

    def _read(self, content: bytes, own: "SwellScaler") -> "ScalingMemory | None":
        from swell.policy.scaling.swell import ScalingMemory

        try:
            kept = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
            version = msgspec.json.decode(kept["version"], type=int)
            what = msgspec.json.decode(kept["what"], type=str)
            unix, monotonic = (msgspec.json.decode(kept[name], type=float) for name in ("unix", "monotonic"))
            memory = msgspec.json.decode(kept["memory"], type=ScalingMemory)
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
            return None
        away = self._clock.unix() - unix
        if version != VERSION or what != _what(own) or not 0 <= away <= OLDEST_SECONDS:
            return None
        moved = _moved(memory, self._clock.monotonic() - (monotonic + away))
        if away <= FRESH_SECONDS:
            return moved
        return replace(moved, needed=(), forecast=replace(moved.forecast, samples=(), pending=()))


def _own(scaler: Scaler) -> "SwellScaler | None":
    from swell.policy.scaling.swell import SwellScaler

    return scaler if isinstance(scaler, SwellScaler) else None


def _what(own: "SwellScaler") -> str:
    """What demand is measured in: another replica or objective makes another unit of it."""
    return repr((own.settings.pool, own.settings.objective))


def _encode(own: "SwellScaler", clock: Clock) -> bytes:
    document = {
        "version": VERSION,
        "what": _what(own),
        "unix": clock.unix(),
        "monotonic": clock.monotonic(),
        "memory": own.memory,
    }
    return msgspec.json.encode(document)


def _moved(memory: "ScalingMemory", by: float) -> "ScalingMemory":
    """The same with every monotonic time later by so many seconds."""
    past, thrift = memory.forecast, memory.thrift
    return replace(
        memory,
        thrift=replace(
            thrift,
            seen_at=thrift.seen_at + by,
            rationed_at=thrift.rationed_at + by,
            bound_at=thrift.bound_at + by,
        ),
        learnt_at=memory.learnt_at + by,
        busy_at=memory.busy_at + by,
        needed=tuple((at + by, count) for at, count in memory.needed),
        forecast=replace(
            past,
            samples=tuple((at + by, mean, peak) for at, mean, peak in past.samples),
            pending=tuple(replace(pending, due=pending.due + by) for pending in past.pending),
        ),
    )
