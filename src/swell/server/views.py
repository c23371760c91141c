"""What the server shows of itself: pure functions from replicas and loads to status and metrics."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER
from swell.ports.provider import Preparation
from swell.spec import ServerSpec
from swell.state.messages import Load, Sample
from swell.state.replica import Phase


def gateway_url(server: ServerSpec) -> str:
    """Where clients reach the gateway, without /v1."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)  # noqa: S104  # compared, not bound
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if server.tls else 'http'}://{host}:{server.port}"


def place(replica: Replica) -> str:
    """What people call it: `chat-0`, `gateway-1`; also the name of its log."""
    return replica.log_path.stem


def in_flight(loads: Iterable[Load]) -> dict[str, int]:
    """Open requests by replica id, over all workers."""
    counts: dict[str, int] = {}
    for load in loads:
        for replica in load.replicas:
            counts[replica.replica_id] = counts.get(replica.replica_id, 0) + replica.in_flight
    return counts


def replica_rows(replicas: Iterable[Replica], loads: Mapping[str, Load]) -> list[dict[str, Any]]:
    """Every replica for `status`."""
    counts = in_flight(loads.values())
    return [
        {
            "replica_id": replica.child_id,
            "model": replica.serves,
            "phase": replica.phase.value,
            "pid": replica.pid,
            "address": replica.address.url() if replica.address else "",
            "in_flight": counts.get(replica.child_id, 0),
            "restarts": replica.restarts,
            "log": place(replica),
            "reason": _reason(replica),
        }
        for replica in replicas
        if replica.kind != GATEWAY_WORKER
    ]


def worker_rows(
    replicas: Iterable[Replica], loads: Mapping[str, Load], connected: Iterable[str]
) -> list[dict[str, Any]]:
    """Every gateway worker for `status`; `serving` is one that runs and is connected."""
    known = set(connected)
    rows = []
    for replica in replicas:
        if replica.kind != GATEWAY_WORKER:
            continue
        load = loads.get(replica.child_id)
        rows.append(
            {
                "worker_id": replica.ordinal,
                "incarnation": replica.child_id,
                "pid": replica.pid,
                "state": "serving" if replica.child_id in known and replica.routable else replica.phase.value,
                "in_flight": load.in_flight if load else 0,
                "queued": load.queued if load else 0,
                "restarts": replica.restarts,
                "reason": _reason(replica),
            }
        )
    return rows


def preparation_rows(prepared: Iterable[tuple[str, Preparation]]) -> list[dict[str, Any]]:
    """What places get ready before a replica needs it, for `status`."""
    return [
        {
            "place": place_name,
            "what": each.what,
            "name": each.name,
            "models": list(each.models),
            "progress": each.progress.value,
            "reason": each.says,
        }
        for place_name, each in prepared
    ]


def server_samples(
    replicas: Iterable[Replica], loads: Mapping[str, Load], *, workers: int, store_seconds: float, refused: int
) -> list[Sample]:
    """What workers said last of models and replicas that there are, and the server's own."""
    replicas = list(replicas)
    counts: dict[tuple[str, str], int] = {}
    for replica in replicas:
        if replica.kind != GATEWAY_WORKER:
            key = (replica.serves, replica.phase.value)
            counts[key] = counts.get(key, 0) + 1
    return [
        *(
            Sample("swell_server_replicas", (("model", model), ("phase", phase)), count)
            for (model, phase), count in counts.items()
        ),
        *(sample for load in loads.values() for sample in _model_samples(load)),
        *_replica_samples(replicas, loads),
        Sample("swell_server_workers", (), workers),
        Sample("swell_server_store_seconds", (), store_seconds),
        Sample("swell_server_refused_connections_total", (), refused),
        Sample("swell_server_up", (), 1),
    ]


def _model_samples(load: Load) -> Iterator[Sample]:
    for model in load.models:
        labels = (("model", model.name),)
        yield Sample("swell_in_flight", labels, model.in_flight)
        yield Sample("swell_queued", labels, model.queued)


def _replica_samples(replicas: Iterable[Replica], loads: Mapping[str, Load]) -> Iterator[Sample]:
    """By the places of replicas, which are as many as there are replicas at once: ids are new for every start."""
    known = {
        replica.child_id: (("model", replica.serves), ("replica", place(replica)))
        for replica in replicas
        if replica.kind != GATEWAY_WORKER
    }
    for load in loads.values():
        for said in load.replicas:
            labels = known.get(said.replica_id)
            if labels is not None:
                yield Sample("swell_replica_in_flight", labels, said.in_flight)
                yield Sample("swell_replica_outstanding_tokens", labels, said.outstanding_tokens)
                yield Sample("swell_replica_ejected", labels, said.ejected)


def _reason(replica: Replica) -> str:
    if replica.phase is Phase.READY and not replica.unseen:
        return ""
    return replica.waiting or replica.last_error.partition("\n")[0]


def running_workers(replicas: Iterable[Replica]) -> set[str]:
    """Incarnations of the gateway workers whose processes run."""
    return {r.child_id for r in replicas if r.kind == GATEWAY_WORKER and r.handle is not None and r.alive}
