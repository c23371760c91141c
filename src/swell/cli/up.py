"""`swell up`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from swell.server.assembly import Progress
    from swell.server.up import Greeting
    from swell.spec import ModelSpec


@command
def up(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The spec. Without: ./swell.yaml, else a small default model.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address instead of the file's.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen on this port instead of the file's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes instead of the file's.")] = None,
    log_level: Annotated[str, typer.Option(envvar="SWELL_LOG_LEVEL", help="debug, info, warning or error.")] = "info",
    hide_key: Annotated[
        bool, typer.Option("--hide-key", help="Do not show the key: for a place where output is collected.")
    ] = False,
    ha: Annotated[
        bool,
        typer.Option("--ha", help="One of several servers over one Postgres store: wait until no other one leads."),
    ] = False,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Serve, in the foreground, until Ctrl-C or `swell down`; both drain and stop everything.

    With --ha, Ctrl-C and SIGTERM leave replicas running for the next server that leads.
    """
    from swell.server.up import Wishes, serve

    wishes = Wishes(state, file, host, port, workers, log_level, ha=ha)
    serve(wishes, Machine(hide_key=hide_key) if as_json else Person(state, hide_key=hide_key, ha=ha))


class Machine:
    """One JSON document a line on standard output; troubles on standard error."""

    def __init__(self, *, hide_key: bool) -> None:
        self._hide_key = hide_key

    @contextmanager
    def fetching(self, model: "ModelSpec") -> Iterator["Progress"]:
        """Silent."""
        yield lambda done, total: None

    def starting(self, models: list[str]) -> None:
        """Silent."""

    def waiting(self, leader: str) -> None:
        """Who leads."""
        print_json({"waiting": True, "leader": leader})

    def serving(self, greeting: "Greeting") -> None:
        """Base URL and key."""
        ca_file = str(greeting.ca_file) if greeting.ca_file else None
        print_json(
            {
                "base_url": f"{greeting.url}/v1",
                "key": None if self._hide_key else greeting.key or None,
                "models": greeting.models,
                "ca_file": ca_file,
                "gateways": greeting.gateways or None,
            }
        )

    def changed(self, file: Path | None) -> None:
        """Silent: who changed it is told."""

    def trouble(self, sentence: str) -> None:
        """As an error that did not end the command."""
        from swell.cli.output import to_json

        print(to_json({"trouble": sentence}), file=sys.stderr, flush=True)


class Person:
    """Progress bars, and lines to copy."""

    def __init__(self, state: Path, *, hide_key: bool, ha: bool = False) -> None:
        self._hide_key = hide_key
        self._ha = ha
        self._option = "" if state == DEFAULT_STATE_PATH else f" --state {state}"

    @contextmanager
    def fetching(self, model: "ModelSpec") -> Iterator["Progress"]:
        """A progress bar, from the first byte on: what is here already shows none."""
        bar = _Bar(model.name)
        try:
            yield bar.advance
        finally:
            bar.close()

    def starting(self, models: list[str]) -> None:
        """What is waited for."""
        print(f"Waiting for {', '.join(models)} to be ready; see: swell logs{self._option}", flush=True)

    def waiting(self, leader: str) -> None:
        """Who leads."""
        print(f"Waiting: {leader} leads. This server takes over when that one has ended.", flush=True)

    def serving(self, greeting: "Greeting") -> None:
        """Base URL, key, and a line to copy."""
        url, model = greeting.url, greeting.models[0] if greeting.models else "MODEL"
        key = "" if self._hide_key else greeting.key
        trust = f" --cacert {greeting.ca_file}" if greeting.ca_file else ""
        print(f"\nSwell serves {', '.join(greeting.models) or 'no model yet'}\n")
        if greeting.has_workers:
            print(f"  Base URL  {url}/v1")
        if key:
            print(f"  Key       {key}")
            print(f"            (made for you and kept in {greeting.key_file}; of other keys only a digest is kept)")
        else:
            print(f"  Key       make one with: swell keys create NAME{self._option}")
        if greeting.gateways:
            print(f"\n  Gateways  swell gateway --server {greeting.gateways} --credentials FOLDER")
            print(f"            (a folder for each is made with: swell credentials FOLDER{self._option})")
        if not greeting.has_workers:
            print(f"\nStop with Ctrl-C or: swell down{self._option}", flush=True)
            return
        print(f"\n  curl{trust} {url}/v1/chat/completions \\")
        print(f'    -H "Authorization: Bearer {key or "$OPENAI_API_KEY"}" -H "Content-Type: application/json" \\')
        print(f"""    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'\n""")
        stop = (
            "Leave the rest to the next server with Ctrl-C, stop everything with" if self._ha else "Stop with Ctrl-C or"
        )
        print(f"{stop}: swell down{self._option}", flush=True)

    def changed(self, file: Path | None) -> None:
        """Another spec is served now."""
        print(f"Serves what {file or 'the default spec'} says now.", flush=True)

    def trouble(self, sentence: str) -> None:
        """On standard error."""
        print(f"swell: {sentence}", file=sys.stderr, flush=True)


class _Bar:
    """A progress bar that appears when there is something to wait for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress: RichProgress | None = None

    def advance(self, done_bytes: int, total_bytes: int | None) -> None:
        """Show so many bytes; may be called from another thread."""
        from rich import progress as rich
        from rich.console import Console

        if self._progress is None:
            self._progress = rich.Progress(
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.DownloadColumn(),
                rich.TransferSpeedColumn(),
                rich.TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._progress.add_task(f"Fetching {self._name}", total=total_bytes)
            self._progress.start()
        self._progress.update(self._task, completed=done_bytes, total=total_bytes)

    def close(self) -> None:
        """Take it away."""
        if self._progress is not None:
            self._progress.stop()
