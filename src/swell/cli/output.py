"""How commands speak: tables for people, one JSON document for machines, and exit codes for scripts.

Exit codes: 0 done, 1 it failed, 2 the user must change something, 3 no server answers where one is needed.
With `--json` nothing but JSON is written: the result to standard output, `{"error": …}` to standard error.
Nothing is ever wrapped to the terminal's width in JSON.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from swell.errors import RetryLater, SwellError, UserError

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_UNREACHABLE = 3

StateOption = Annotated[
    Path, typer.Option("--state", envvar="SWELL_STATE", help="The state directory.", show_envvar=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON instead of tables.")]
DEFAULT_STATE_PATH = Path(".swell")

_Parameters = ParamSpec("_Parameters")


class UnreachableError(SwellError):
    """No server answers on the state directory's admin socket."""


def command(function: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Turn the errors that a user can meet into one sentence on standard error and an exit code."""

    @functools.wraps(function)
    def wrapped(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            _check_numbers(kwargs)
            function(*args, **kwargs)
        except UserError as error:
            fail(error.message, EXIT_USER, as_json=bool(kwargs.get("as_json")))
        except UnreachableError as error:
            fail(str(error), EXIT_UNREACHABLE, as_json=bool(kwargs.get("as_json")))
        except RetryLater as error:
            text = f"{error}; try again in {error.retry_after_seconds:g} s"
            fail(text, EXIT_FAILED, as_json=bool(kwargs.get("as_json")))
        except SwellError as error:
            fail(str(error), EXIT_FAILED, as_json=bool(kwargs.get("as_json")))
        except BrokenPipeError:
            # `swell logs | head`: the reader has what it wanted. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return wrapped


def _check_numbers(options: Mapping[str, object]) -> None:
    """`inf` and `nan` are floats, and no bound of an option keeps both out; no command can do anything with them."""
    for name, value in options.items():
        if isinstance(value, float) and not isfinite(value):
            raise UserError(f"--{name.replace('_', '-')}: {value} is not a finite number; give one")


def fail(message: str, code: int, *, as_json: bool) -> NoReturn:
    """Say what went wrong and leave with `code`."""
    print(to_json({"error": message}) if as_json else f"swell: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(code)


def to_json(document: Any) -> str:
    """One line of JSON."""
    import msgspec

    return msgspec.json.encode(document, enc_hook=str).decode()


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(to_json(document), flush=True)


def moment(at_unix: float | None, *, seconds: bool = False) -> str:
    """A point in time, to the minute or the second; nothing for None. No value stops a listing."""
    from datetime import UTC, datetime

    if at_unix is None:
        return ""
    try:
        at = datetime.fromtimestamp(at_unix, UTC)
    except (OverflowError, ValueError, OSError):
        return "(beyond the calendar)"
    return at.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M UTC")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table for people; `empty` is said where there are no rows."""
    listed = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not listed:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*(Text(cell) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_COLUMNS)
    console.print(table)


_PIPED_COLUMNS = 200  # a pipe has no width; wide enough that ordinary tables do not fold
