"""The trail of scaling decisions as people read it: oldest first, each with reason, inputs and what was not taken."""

from collections.abc import Iterator, Sequence
from typing import Any

from swell.cli.output import moment


def print_trail(decisions: Sequence[dict[str, Any]]) -> None:
    """Print decisions that came newest first."""
    print("\nDecisions, oldest first:" if decisions else "\nThere are no decisions yet.")
    for decision in reversed(decisions):
        for line in trail_lines(decision):
            print(line)


def trail_lines(decision: dict[str, Any]) -> Iterator[str]:
    """One decision."""
    at = moment(decision["at_unix"], seconds=True)
    if decision["is_hold"]:
        change = f"stays at {decision['replicas']}"
        if decision["times"] > 1:
            change += f" ({decision['times']} times, until {moment(decision['until_unix'], seconds=True)[-8:]})"
    else:
        change = f"{decision['before']} -> {decision['replicas']}"
    yield f"{at}  {decision['model']}  {change}  [{decision['binding']}] {decision['reason']}"
    if decision["inputs"] and not decision["is_hold"]:
        yield "    from " + ", ".join(f"{name} {value:.4g}" for name, value in decision["inputs"].items())
    for replicas, why in decision["rejected"]:
        yield f"    not {replicas}: {why}"
