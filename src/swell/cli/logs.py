"""`swell logs [NAME] [-f] [-n N]`."""

import difflib
import os
import time
from collections import deque
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json, print_table
from swell.errors import UserError

_POLL_SECONDS = 0.2
_TAIL_READ_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


@command
def logs(
    name: Annotated[str | None, typer.Argument(help="server, gateway-0, or a replica such as chat-1.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.", min=0)] = 100,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Show a log, or list the logs there are."""
    folder = state / "logs"
    names = sorted(path.stem for path in folder.glob("*.log"))
    if name is None:
        _list(folder, names, as_json)
        return
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        there = f"there are: {', '.join(near[:20])}" if near else f"{folder} holds none"
        raise UserError(f"no log is called {name!r}; {there}")
    path = folder / f"{name}.log"
    with path.open("rb") as file:
        tail = _last_lines(file, lines)
        if as_json:
            print_json({"name": name, "lines": [line.decode(errors="replace").rstrip("\n") for line in tail]})
            return
        _write(b"".join(tail))
        if follow:
            _follow(path, file)


def _list(folder: Path, names: list[str], as_json: bool) -> None:
    sizes = [(name, (folder / f"{name}.log").stat().st_size) for name in names]
    if as_json:
        print_json([{"name": name, "bytes": size} for name, size in sizes])
    else:
        print_table(("log", "bytes"), sizes, empty=f"There are no logs in {folder}.")


def _last_lines(file: BinaryIO, count: int) -> list[bytes]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_READ_BYTES))
    return list(deque(file, maxlen=count)) if count else (file.seek(0, os.SEEK_END), [])[1]


def _follow(path: Path, file: BinaryIO) -> None:
    """Print what is appended; when the log is rotated or cut, go on with the new one. Ends with Ctrl-C."""
    try:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            if chunk:
                _write(chunk)
                continue
            time.sleep(_POLL_SECONDS)
            if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                file = path.open("rb")  # replaced at every rotation
            elif os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
    except KeyboardInterrupt:
        return


def _write(data: bytes) -> None:
    typer.get_binary_stream("stdout").write(data)
    typer.get_binary_stream("stdout").flush()
