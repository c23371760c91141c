"""`swell doctor`: what is wrong on this machine, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, EXIT_FAILED, JsonOption, StateOption, command, print_json, print_table


@command
def doctor(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The spec. Without: ./swell.yaml, else a small default model.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Check this port instead of the file's.")] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Check this machine. Exit code 1 where something would keep Swell from working."""
    from swell.server.checkup import Verdict, examine
    from swell.server.state_directory import StateDirectory
    from swell.server.up import Wishes, wanted_file

    wanted = wanted_file(Wishes(state, file))
    findings = examine(StateDirectory(state.absolute()), wanted, port)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        print_table(
            ("check", "verdict", "found", "do"),
            [(finding.check, finding.verdict.value, finding.found, finding.advice) for finding in findings],
            empty="Nothing was checked.",
        )
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(EXIT_FAILED)
