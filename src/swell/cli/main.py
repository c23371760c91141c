"""The `swell` command. Each command lives in a file of its own and imports what is heavy when it runs."""

import typer

from swell.cli import doctor, down, keys, logs, schema, status, up, usage, version

app = typer.Typer(
    name="swell",
    help="Serve open-weight language models behind one OpenAI-compatible endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.add_typer(keys.app, name="keys")
app.command("usage")(usage.usage)
app.command("doctor")(doctor.doctor)
app.command("schema")(schema.schema)
app.command("version")(version.version)


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
