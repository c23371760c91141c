"""The `swell` command.

Each command lives in a file of its own and imports what is heavy when it runs. Describing a command to
Typer takes about 10 ms, so only the one that was asked for is described; for help, all are.
"""

import importlib
import json
import sys
from typing import TYPE_CHECKING

from swell import __version__

if TYPE_CHECKING:
    import typer

# In the order in which people meet them.
COMMANDS = (
    "up", "down", "apply", "diff", "status", "logs", "keys", "usage", "budget", "statement", "costs", "journal",
    "alerts", "review", "simulate", "plan", "prices", "profile", "nodes", "gateway", "credentials", "doctor", "schema",
    "version",
)  # fmt: skip


def application(names: tuple[str, ...] = COMMANDS) -> "typer.Typer":
    """The command line with the commands in `names`."""
    import typer

    app = typer.Typer(
        name="swell",
        help="Serve open-weight language models behind one OpenAI-compatible endpoint.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def swell() -> None:
        """Serve open-weight language models behind one OpenAI-compatible endpoint."""

    for name in names:
        module = importlib.import_module(f"swell.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def main() -> None:
    """Console script. With `--json` even a command line that cannot be understood is answered in JSON."""
    asked = sys.argv[1:]
    if asked == ["version"]:  # asked by scripts and prompts: a tenth of the time, without Typer
        print(f"swell {__version__}")
        return
    from typer import Abort, TyperException

    app = application(tuple(asked[:1]) if asked and asked[0] in COMMANDS else COMMANDS)
    if "--json" not in asked:
        app()
        return
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        code = 2
        print(json.dumps({"error": getattr(error, "message", "") or str(error)}), file=sys.stderr)
    except (Abort, KeyboardInterrupt):
        code = 1
        print(json.dumps({"error": "interrupted"}), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
