"""`swell nodes`: what a cluster must be able to buy for what the spec asks for."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from swell.cli.output import JsonOption, command, print_json
from swell.errors import UserError


@command
def nodes(
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec.")] = Path("swell.yaml"),
    place: Annotated[
        str | None, typer.Option(help="Only this provider of kind kubernetes. Without: the only one.")
    ] = None,
    node_class: Annotated[
        str, typer.Option(help="The EC2NodeClass, NodeClass of EKS Auto Mode, or AKSNodeClass.")
    ] = "default",
    as_json: JsonOption = False,
) -> None:
    """Print Karpenter NodePools for the accelerators and markets of the spec's models, to be applied with kubectl."""
    from swell.server.assembly import node_pools
    from swell.spec import load_spec

    found = node_pools(load_spec(file), place, node_class)
    if not found:
        raise UserError("no model there asks for an accelerator, so any nodes will do")
    if as_json:
        print_json(found)
    else:
        typer.echo(yaml.safe_dump_all(found, sort_keys=False).rstrip())
