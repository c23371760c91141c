"""A container's output into the log file of its place, as if it had written there itself.

The daemon's stream is one connection a container and costs nothing while nothing is said. Every line comes with its
time, which is cut off and becomes the file's own, so that a broken stream is continued where it ended, by a later
server too.
"""

import asyncio
import os
import struct
from datetime import UTC, datetime
from pathlib import Path

from swell.adapters.providers import logs
from swell.adapters.providers.container_api import DockerApi, RefusedError
from swell.errors import SwellError

HEADER_BYTES = 8  # of a frame: stream, three zeros, length
MAX_FRAME_BYTES = 1024 * 1024  # the daemon's own limit is 16 KiB a line
_NANO = 10**9


class Frames:
    """A daemon's stream, fed piece by piece. `since` is the time of the last line that was given, in nanoseconds."""

    def __init__(self, since: int = 0) -> None:
        self.since = since
        self._resumed = since  # what is not later was given before
        self._rest = b""

    def resume(self) -> None:
        """A new stream begins, which may repeat what was given already."""
        self._resumed, self._rest = self.since, b""

    def feed(self, piece: bytes) -> bytes:
        """The output in the frames that are whole by now."""
        data, text, place = self._rest + piece, [], 0
        while len(data) - place >= HEADER_BYTES:
            (length,) = struct.unpack_from(">I", data, place + 4)
            end = place + HEADER_BYTES + length
            if length > MAX_FRAME_BYTES:
                place = len(data)  # not frames at all: what follows could not be told apart
                break
            if end > len(data):
                break
            text.append(self._line(data[place + HEADER_BYTES : end]))
            place = end
        self._rest = data[place:]
        return b"".join(text)

    def _line(self, frame: bytes) -> bytes:
        stamp, space, line = frame.partition(b" ")
        said = nanoseconds_of(stamp) if space else None
        if said is None:
            return frame
        if said < self._resumed or (said == self._resumed and said % _NANO):
            return b""  # given already; where times are whole seconds, a line twice is better than one lost
        self.since = said
        return line


class FollowedLog:
    """The log of one container. `since` is the time of the last line that is in the file, in nanoseconds."""

    def __init__(self, api: DockerApi, container: str, path: Path, since: int = 0) -> None:
        self._api = api
        self._container = container
        self._path = path
        self._frames = Frames(since)

    async def follow(self) -> None:
        """Copy until the container has ended, or its daemon is away; calling it again continues."""
        frames = self._frames
        frames.resume()
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1"}
        if frames.since:
            params["since"] = f"{frames.since // _NANO}.{frames.since % _NANO:09d}"
        try:
            descriptor = await asyncio.to_thread(_append_to, self._path)
        except OSError:
            return  # a full or read-only disk: the daemon keeps what is said
        try:
            stream = self._api.stream("GET", f"/containers/{self._container}/logs", params, silence_seconds=None)
            async with stream as answer:
                async for piece in answer.aiter_raw():
                    text = frames.feed(piece)
                    if text:
                        await asyncio.to_thread(_write, descriptor, text, frames.since)
        except (SwellError, RefusedError, OSError):
            return
        finally:
            os.close(descriptor)


def nanoseconds_of(stamp: bytes) -> int | None:
    """A time such as 2026-01-31T10:00:00.123456789Z in nanoseconds since 1970; None for anything else."""
    try:
        whole, _, fraction = stamp.decode("ascii").rstrip("Z").partition(".")
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * _NANO + int(fraction[:9].ljust(9, "0") or 0)
    except ValueError:
        return None


def begin_chapter(path: Path, child_id: str) -> None:
    """Mark where a new child's output begins."""
    os.close(logs.open_log(path, child_id))


def note(path: Path, sentence: str) -> None:
    """Add a sentence of Swell's own, such as why there is no container."""
    descriptor = _append_to(path)
    try:
        _write(descriptor, f"swell: {sentence}\n".encode(), 0)
    finally:
        os.close(descriptor)


def last_written(path: Path) -> int:
    """The time of the last line, in nanoseconds; 0 for a file that is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _append_to(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(descriptor: int, data: bytes, said: int) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    if said:  # the system's own time of a change is milliseconds off
        os.utime(descriptor, ns=(said, said))
