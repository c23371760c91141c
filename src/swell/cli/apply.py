"""`swell apply`: change the spec of the running server."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.diff import DEFAULT_FILE, print_differences
from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, UnreachableError, command, print_json
from swell.errors import SwellError

if TYPE_CHECKING:
    from swell.cli.access import ServerAccess

_POLL_SECONDS = 0.1


@command
def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec.")] = DEFAULT_FILE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    timeout: Annotated[float, typer.Option(help="How many seconds to wait until it is served.", min=0)] = 600.0,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Change what the running server serves to what the file says. Requests go on meanwhile."""
    from swell.cli.access import server
    from swell.spec import load_spec

    path = file.absolute()
    load_spec(path)  # what is wrong with it is told by its own words
    with server(state) as running:
        found = running.spec_differences(path)
        if not as_json:
            print_differences(found)
        if found and not dry_run:
            digest = running.apply_spec(path)
            _wait(running, digest, timeout)
            if not as_json:
                print("Applied.")
    if as_json:
        print_json({"differences": found, "applied": bool(found) and not dry_run})


def _wait(running: "ServerAccess", digest: str, timeout_seconds: float) -> None:
    """Until that spec is served. In between the server is away for a moment, and its successor takes over."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            status: dict[str, Any] = running.status()["spec"]
        except UnreachableError:
            status = {}
        if status.get("digest") == digest:
            return
        if status.get("problem"):
            raise SwellError(f"{status['problem']}; the server goes on as before")
        time.sleep(_POLL_SECONDS)
    raise SwellError(
        f"the change is not served after {timeout_seconds:g} s; it goes on: swell status says when it is there"
    )
