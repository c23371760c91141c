"""What the scripted upstream was asked and how far each answer got, safe from anybody's SIGKILL.

Every line is one `write` on a file opened with O_APPEND, made before the bytes that it speaks of go
out: a line that could be missing speaks of an answer that nobody received.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """`event` is request (the first line of an id) or its outcome: done, cut or client_gone."""

    id: str
    event: str
    path: str = ""
    model: str = ""
    stream: bool = False
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usage_reported: bool = False  # whether the answer, if it arrives whole, carries its usage
    delivered: int = 0  # content chunks written, on an outcome's line


class Journal:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, lines: Iterable[Line]) -> None:
        """All lines in one write."""
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if os.write(self._file, data) != len(data):
            raise OSError("the journal's file system is full; give --journal a path with room")

    def close(self) -> None:
        os.close(self._file)


def read_journal(path: Path) -> list[Line]:
    """Every line so far."""
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
