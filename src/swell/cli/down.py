"""`swell down`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json
from swell.errors import SwellError

_POLL_SECONDS = 0.05


@command
def down(
    timeout: Annotated[float, typer.Option(help="How many seconds to wait.", min=0)] = 120.0,
    forget: Annotated[str, typer.Option(help="A place that is gone for good, with all that ran there.")] = "",
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Drain and stop the server and everything it runs; also what a killed server left running."""
    done = _stop_server(state, timeout)
    if forget or not done:
        done = _stop_leftovers(state, timeout, forget) or done
    if as_json:
        print_json({"stopped": done})
    else:
        print({"server": "Stopped.", "leftovers": "Stopped what a killed server had left."}.get(done, "Nothing runs."))


def _stop_server(path: Path, timeout_seconds: float) -> str:
    from swell.cli.access import answers, server
    from swell.server.state_directory import StateDirectory

    state = StateDirectory(path.absolute())
    if not state.is_locked() or not answers(state):
        return ""
    state.take_left()  # of an earlier end
    with server(path) as running:
        running.stop()
    for _ in range(int(timeout_seconds / _POLL_SECONDS) + 1):
        if not state.is_locked():
            if left := state.take_left():
                told = "; ".join(left.splitlines())
                raise SwellError(f"the server has stopped. {told}. Mend what keeps it, then run: swell down")
            return "server"
        time.sleep(_POLL_SECONDS)
    raise SwellError(f"the server still drains after {timeout_seconds:g} s; give it longer with --timeout")


def _stop_leftovers(path: Path, timeout_seconds: float, forget: str) -> str:
    from swell.server.state_directory import StateDirectory

    state = StateDirectory(path.absolute())
    if not state.lock.exists():  # no server ever ran there
        return ""
    from swell.server.leftovers import stop_leftovers

    with state.locked(wait_seconds=1.0):
        return "leftovers" if stop_leftovers(state, timeout_seconds, forget) else ""
