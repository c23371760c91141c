"""`swell version`."""

from swell import __version__
from swell.cli.output import JsonOption, command, print_json


@command
def version(as_json: JsonOption = False) -> None:
    """Print Swell's version."""
    if as_json:
        print_json({"version": __version__})
    else:
        print(f"swell {__version__}")
