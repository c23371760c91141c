"""`swell status`."""

from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json, print_table
from swell.cli.trail import print_trail

_TRAIL_LINES = 30


@command
def status(
    why: Annotated[bool, typer.Option("--why", help="Also why there are as many replicas as there are.")] = False,
    model: Annotated[str | None, typer.Option(help="With --why: only this model's decisions.")] = None,
    limit: Annotated[int, typer.Option(help="With --why: at most so many decisions.", min=1)] = _TRAIL_LINES,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Show what the running server serves, and how it fares. Exit code 3 where no server runs."""
    from swell.cli.access import server

    with server(state) as running:
        seen = running.status()
        if why and not seen.get("waiting"):
            seen["decisions"] = running.decisions(model, limit)
    if as_json:
        print_json(seen)
        return
    if seen.get("waiting"):
        print(f"Swell {seen['version']} waits (process {seen['pid']}): {seen['leader']} leads.")
        return
    where = seen["url"] if seen["workers"] or not seen.get("gateways") else "at its gateways"
    print(f"Swell {seen['version']} serves {where} (process {seen['pid']}, up {_length(seen['up_seconds'])})")
    replicas = [_replica_row(replica) for replica in seen["replicas"]]
    print_table(("replica", "model", "phase", "address", "in flight", "says"), replicas, empty="There are no replicas.")
    workers = [_worker_row(worker) for worker in seen["workers"]]
    if workers or not seen.get("gateways"):
        print_table(("worker", "process", "state", "in flight", "queued"), workers, empty="There are no workers.")
    if seen.get("gateways"):
        gateways = [_gateway_row(gateway) for gateway in seen["gateways"]]
        print_table(("gateway", "version", "workers", "heard", "in flight", "queued"), gateways, empty="")
    if seen.get("prepared"):
        prepared = [_prepared_row(each) for each in seen["prepared"]]
        print_table(("ahead", "of", "for", "progress", "says"), prepared, empty="")
    for scaled in seen.get("scaling", []):
        print(f"{scaled['model']} has {scaled['wanted']} of {scaled['min']} to {scaled['max']} replicas.")
    for key_id, reason in seen.get("refused_keys", {}).items():
        print(f"Clients with the key {key_id} are refused: {reason}")
    spec = seen.get("spec") or {}
    if spec.get("problem"):
        print(f"What was last to be served could not be, and the spec before goes on: {spec['problem']}")
    for refused in spec.get("refused_resources", []):
        print(f"The {refused['kind']} {refused['name']} is refused ({refused['reason']}): {refused['message']}")
    if why:
        print_trail(seen["decisions"])


def _replica_row(replica: dict[str, Any]) -> tuple[object, ...]:
    return (
        replica["replica_id"], replica["model"], replica["phase"], replica["address"], replica["in_flight"],
        replica["reason"],
    )  # fmt: skip


def _worker_row(worker: dict[str, Any]) -> tuple[object, ...]:
    return f"gateway-{worker['worker_id']}", worker["pid"], worker["state"], worker["in_flight"], worker["queued"]


def _gateway_row(gateway: dict[str, Any]) -> tuple[object, ...]:
    workers = f"{gateway['connected']} of {gateway['workers']}"
    heard = f"{gateway['heard_seconds']:.0f} s ago"
    return gateway["gateway"], gateway["version"], workers, heard, gateway["in_flight"], gateway["queued"]


def _prepared_row(prepared: dict[str, Any]) -> tuple[object, ...]:
    named = f"{prepared['what']} {prepared['name']}"
    return named, prepared["place"], ", ".join(prepared["models"]), prepared["progress"], prepared["reason"]


def _length(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
