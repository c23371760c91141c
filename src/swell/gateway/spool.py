"""The worker's usage spool: append-only segments in shared memory pages of a file.

A record is stored with one copy into the mapped file. The pages belong to the operating system, so a
SIGKILL a nanosecond later loses nothing, and no system call is paid per request. `sync` hands pages to
the disk on a timer, which bounds what a power cut can lose.

Segments are allocated in full before use: a full disk shows up when the next segment is opened, where
the worker can refuse requests, and never as a fault inside a store to memory.
"""

import fcntl
import mmap
import os
from pathlib import Path
from zlib import crc32

from swell.errors import AtCapacity
from swell.state.usage import (
    HEADER_BYTES,
    LOCK_NAME,
    SEGMENT_BYTES,
    SEGMENT_SUFFIX,
    SpoolRecord,
    encode_payload,
    pack_header,
)

RETRY_AFTER_SECONDS = 5.0


_SPARE_NAME = "spare"  # not a segment yet: a reader takes a segment with a successor for finished


class _Segment:
    """One preallocated file and its mapping."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _no_room(path.parent, error) from error
        try:
            os.posix_fallocate(self._file, 0, SEGMENT_BYTES)
            self.map = mmap.mmap(self._file, SEGMENT_BYTES)
        except OSError as error:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise _no_room(path.parent, error) from error

    def sync(self) -> None:
        os.fdatasync(self._file)

    def close(self) -> None:
        self.map.close()
        os.close(self._file)


class Spool:
    """Appends records for one worker incarnation, from one thread; `maintain` may run on another."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._number = 0
        self._offset = 0
        self._dirty = False
        self._spare: _Segment | None = None
        self._retired: list[_Segment] = []
        self._current = self._next_segment()

    def append(self, record: SpoolRecord) -> None:
        """Store `record`. Raises AtCapacity where no segment can be had; nothing was stored then."""
        payload = encode_payload(record)
        length = len(payload)
        start = self._offset + HEADER_BYTES
        end = start + length
        if end > SEGMENT_BYTES:
            self._rotate()
            start = HEADER_BYTES
            end = start + length
        pages = self._current.map
        pages[start:end] = payload
        # Last, and in one store: a kill before it leaves an unwritten frame. `pack_into` would write byte after byte.
        pages[start - HEADER_BYTES : start] = pack_header(length, crc32(payload))
        self._offset = end
        self._dirty = True

    @property
    def needs_maintenance(self) -> bool:
        """Whether `maintain` has anything to do."""
        return self._dirty or self._spare is None or bool(self._retired)

    def maintain(self) -> None:
        """Hand pages to the disk and prepare the next segment. Blocks: call it off the event loop.

        One call at a time. Segments are closed only here, so the one that is synced stays open.
        """
        while self._retired:
            segment = self._retired.pop()
            segment.sync()
            segment.close()
        if self._dirty:
            self._dirty = False
            self._current.sync()
        if self._spare is None:
            (self._folder / _SPARE_NAME).unlink(missing_ok=True)
            self._spare = _Segment(self._folder / _SPARE_NAME)

    def close(self) -> None:
        """Release everything; whoever reads the folder next may finish it."""
        for segment in (*self._retired, self._current):
            segment.sync()
            segment.close()
        if self._spare is not None:
            self._spare.close()
            self._spare.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _rotate(self) -> None:
        segment = self._next_segment()
        self._retired.append(self._current)
        self._current, self._offset = segment, 0

    def _next_segment(self) -> _Segment:
        path = self._folder / f"{self._number + 1:08d}{SEGMENT_SUFFIX}"
        segment = self._spare
        if segment is None:
            segment = _Segment(path)
        else:
            try:
                segment.path.rename(path)
            except OSError as error:
                raise _no_room(self._folder, error) from error
            segment.path = path
            self._spare = None  # not before: `maintain` would make another of its name
        self._number += 1
        return segment


def _no_room(folder: Path, error: OSError) -> AtCapacity:
    return AtCapacity(
        f"no room for usage records in {folder}: {error.strerror}; free disk space",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
