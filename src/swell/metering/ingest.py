"""From the workers' spools into the ledger: the only reader of `spool/<incarnation>/`.

`step` reads what is new in every folder and enters it in the store together with the read position, in one
transaction; so being killed anywhere means that some work is done again, and doing it again changes nothing. A
segment is deleted once a later one existed before it was read to its end. A folder is finished when its lock can be
taken, for then its worker is dead and nothing will be added.

Records of one request that lie close together, which is nearly all of them, become one row before they reach the
store. A damaged frame ends its segment, since what follows cannot be trusted to be aligned: the segment is kept aside
as `spool/<incarnation>-<number>.damaged`, and the next is read.
"""

import fcntl
import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from swell.clock import give_way
from swell.errors import RetryLater, StoreLost, SwellError
from swell.metering.collapse import collapse
from swell.ports.store import SpoolStore
from swell.state.records import SpoolPosition
from swell.state.usage import (
    HEADER_BYTES,
    LOCK_NAME,
    MAX_RECORD_BYTES,
    SEGMENT_SUFFIX,
    SpoolRecord,
    is_damaged,
    read_frames,
)

DAMAGED_SUFFIX = ".damaged"
MAX_RECORDS = 1_000  # per folder and step: committing them takes less than a millisecond
FAILED_STEPS = 240  # until a folder that failed by itself is tried again: a minute, mostly
PIECE_RECORDS = 250  # read without giving way: half a millisecond

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one step did. `folders_with_more` had more than one step may take: call again at once."""

    records: int = 0
    segments_deleted: int = 0
    damaged_segments: int = 0
    spools_finished: int = 0
    left_reserved: int = 0
    left_void: int = 0
    folders_with_more: int = 0
    finished: tuple[str, ...] = ()  # the workers whose spools were

    def __add__(self, other: "Ingested") -> "Ingested":
        return Ingested(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was read of a folder: where reading ended, the segment that is damaged there, whether there is more."""

    records: list[SpoolRecord]
    reached: SpoolPosition
    damaged: Path | None
    more: bool


class SpoolReader:
    """Tails all spool folders under `root`. One thread at a time, the store's; one process at a time, the server."""

    def __init__(self, root: Path, store: SpoolStore, *, max_records: int = MAX_RECORDS) -> None:
        self._root = root
        self._store = store
        self._max_records = max_records
        self._positions: dict[str, SpoolPosition] = {}
        self._done = Ingested()  # and not told yet
        self._failed: dict[str, int] = {}  # folders that fail by themselves: steps until they are tried again
        self._forgot: set[str] | None = None  # the folders that were there when positions were last forgotten

    def step(self) -> Ingested:
        """Read, apply and tidy every folder once; what it did, and what a step before did that raised.

        Raises what the store raises where it has no room or is lost; nothing is lost then. A folder that fails by
        itself holds up no other: that is logged, and it is tried again after a while. Where all do, the first one's
        failure is raised.
        """
        folders = sorted(entry for entry in self._root.iterdir() if entry.is_dir()) if self._root.is_dir() else []
        names = {folder.name for folder in folders}
        self._forget_all_but(names)
        self._failed = {name: steps - 1 for name, steps in self._failed.items() if steps > 1 and name in names}
        failures: dict[str, SwellError | OSError] = {}
        tried = [folder for folder in folders if folder.name not in self._failed]
        for folder in tried:
            try:
                self._done += self._step_folder(folder)
            except (RetryLater, StoreLost):
                raise
            except (SwellError, OSError) as error:
                failures[folder.name] = error
        if failures and len(failures) == len(folders) and self._done == Ingested():
            raise next(iter(failures.values()))
        for name, failure in failures.items():
            _log.error("a spool cannot be read; the others are", extra={"incarnation": name, "reason": str(failure)})
            self._failed[name] = FAILED_STEPS
        done, self._done = self._done, Ingested()
        return done

    def _step_folder(self, folder: Path) -> Ingested:
        position = self._position(folder.name)
        segments = _segments(folder)  # listed before reading: whatever has a successor now is complete
        if not segments and position is None:
            return Ingested()  # a worker that is about to start; its lock must not be touched
        position = position or SpoolPosition(folder.name, 1, 0)
        # Taken before reading: everything that a dead worker wrote is there; one that dies later waits for a turn.
        with _lock_if_dead(folder) as is_dead:
            if is_dead:
                segments = _segments(folder)
            batch = self._read(segments, position, is_dead)
            if batch.reached != position:
                self._store.apply_usage(collapse(folder.name, batch.records), batch.reached)
                self._positions[folder.name] = batch.reached
            done = self._tidy(segments, batch)
            if is_dead and not done.folders_with_more:
                done += self._finish(folder)
        return done

    def _read(self, segments: list[tuple[int, Path]], position: SpoolPosition, is_dead: bool) -> _Batch:
        """Read on from `position`. A damaged segment ends the batch, so that the position still names it if the
        process is killed before it is set aside."""
        records: list[SpoolRecord] = []
        reached = position
        for number, path in segments:
            if number < position.segment:
                continue
            start = position.offset if number == position.segment else 0
            is_sealed = is_dead or number != segments[-1][0]
            end, is_broken = _read_segment(path, start, records, self._max_records, is_sealed=is_sealed)
            reached = SpoolPosition(position.spool, number, end)
            if is_broken:
                return _Batch(records, reached, path, more=True)
            if len(records) >= self._max_records:
                return _Batch(records, reached, None, more=True)
        return _Batch(records, reached, None, more=False)

    def _tidy(self, segments: list[tuple[int, Path]], batch: _Batch) -> Ingested:
        """Set a damaged segment aside and delete those that the store has in full."""
        if batch.damaged is not None:
            folder = batch.damaged.parent
            kept = folder.with_name(f"{folder.name}-{batch.damaged.stem}{DAMAGED_SUFFIX}")
            batch.damaged.rename(kept)
            _log.error(
                "a spool segment is damaged; requests in it that were not read stand at their bound or are missing",
                extra={"segment": str(kept), "offset": batch.reached.offset},
            )
        finished = [path for number, path in segments if number < batch.reached.segment]
        for path in finished:
            path.unlink(missing_ok=True)
        return Ingested(
            records=len(batch.records),
            segments_deleted=len(finished),
            damaged_segments=int(batch.damaged is not None),
            folders_with_more=int(batch.more),
        )

    def _finish(self, folder: Path) -> Ingested:
        """Close a dead worker's spool in the store, then remove it. The lock goes last: without it nobody is dead."""
        was_damaged = any(self._root.glob(f"{folder.name}-*{DAMAGED_SUFFIX}"))
        left = self._store.finalise_spool(folder.name, damaged=was_damaged)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == LOCK_NAME):
            path.unlink(missing_ok=True)
        folder.rmdir()
        _log.info(
            "a worker's spool is finished",
            extra={"spool": folder.name, "left_reserved": left.reserved, "left_void": left.void},
        )
        return Ingested(spools_finished=1, left_reserved=left.reserved, left_void=left.void, finished=(folder.name,))

    def _position(self, spool: str) -> SpoolPosition | None:
        known = self._positions.get(spool) or self._store.spool_position(spool)
        if known is not None:
            self._positions[spool] = known
        return known

    def _forget_all_but(self, names: set[str]) -> None:
        if self._forgot is None or self._forgot - names:
            self._store.forget_spools(sorted(names))
            self._positions = {name: position for name, position in self._positions.items() if name in names}
        self._forgot = names


def _segments(folder: Path) -> list[tuple[int, Path]]:
    """A folder's segments by rising number."""
    found = [path for path in folder.iterdir() if path.suffix == SEGMENT_SUFFIX and path.stem.isdecimal()]
    return sorted((int(path.stem), path) for path in found)


def _read_segment(
    path: Path, start: int, records: list[SpoolRecord], max_records: int, *, is_sealed: bool
) -> tuple[int, bool]:
    """Append new records up to `max_records` in all; where reading ended, and whether the segment is damaged there."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= start:
            return start, False
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            end = start
            for record, after in read_frames(pages, start):
                records.append(record)
                end = after
                if len(records) >= max_records:
                    return end, False
                if not len(records) % PIECE_RECORDS:
                    give_way()
            return end, is_sealed and (is_damaged(pages, end) or _has_hole(pages, end))


def _has_hole(pages: mmap.mmap, end: int) -> bool:
    """Whether something follows an unwritten frame: a page before it was lost in a power cut.

    One record may lie behind a zero header, that of a worker killed before it wrote the header.
    """
    rest = pages[end + HEADER_BYTES + MAX_RECORD_BYTES :]
    return rest.count(0) != len(rest)


@contextmanager
def _lock_if_dead(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock if its worker is dead; tells whether it is. An emptied folder may have lost its lock."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield not any(folder.iterdir())
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_dead = False
    else:
        is_dead = True
    try:
        yield is_dead
    finally:
        os.close(lock)
