"""`swell doctor`: what is wrong on this machine, and what to do about it."""

import typer

from swell.cli.output import DEFAULT_STATE_PATH, EXIT_FAILED, JsonOption, StateOption, command, print_json, print_table


@command
def doctor(state: StateOption = DEFAULT_STATE_PATH, port: int = 8080, as_json: JsonOption = False) -> None:
    """Check this machine. Exit code 1 where something would keep Swell from working."""
    from swell.server.checkup import Verdict, examine
    from swell.server.state_directory import StateDirectory

    findings = examine(StateDirectory(state.absolute()), port)
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
