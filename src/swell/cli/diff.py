"""`swell diff`: what `swell apply` would change."""

from pathlib import Path
from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json, print_table

DEFAULT_FILE = Path("swell.yaml")
EXIT_DIFFERENT = 1


@command
def diff(
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec.")] = DEFAULT_FILE,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 where anything differs.")] = False,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """What is different between the running server's spec and the file."""
    from swell.cli.access import server
    from swell.spec import load_spec

    path = file.absolute()
    load_spec(path)
    with server(state) as running:
        found = running.spec_differences(path)
    if as_json:
        print_json({"differences": found})
    else:
        print_differences(found)
    if found and exit_code:
        raise typer.Exit(EXIT_DIFFERENT)


def print_differences(found: list[dict[str, Any]]) -> None:
    """A line each; `-` is what is not there."""
    rows = [(each["path"], _shown(each["before"]), _shown(each["after"])) for each in found]
    print_table(("what", "now", "in the file"), rows, empty="Nothing differs.")


def _shown(value: str | None) -> str:
    return "-" if value is None else value
