"""Replicas in the store: written before a child is started, so that whatever a crash leaves can be found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from swell.clock import Clock
from swell.control.replica import Replica
from swell.ports.engine import Address
from swell.ports.provider import ChildHandle
from swell.state.records import ProcessRecord, StartedProcess
from swell.state.replica import Phase


class Intents(Protocol):
    """The store's processes as the loop uses them; the assembly runs them on the store's thread.

    Raise SwellError only. What has returned is durable.
    """

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        """Store or replace intents, together."""

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        """Add what started processes are known by, together. Raises AlreadyGone where one of them has no intent."""

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        """Forget children, together; removing twice is fine."""

    async def list_processes(self) -> list[ProcessRecord]:
        """All of them."""


def to_record(replica: Replica, clock: Clock) -> ProcessRecord:
    """The intent to start a replica."""
    detail: dict[str, str | int | float | bool | None] = {
        "workload": replica.workload,
        "provider": replica.provider,
        "ordinal": replica.ordinal,
        "fingerprint": replica.fingerprint,
        "log_path": str(replica.log_path),
        "drain_seconds": replica.drain_seconds,
        "stop_grace_seconds": replica.stop_grace_seconds,
        "key": replica.key,
    }
    if replica.model:
        detail |= {"model": replica.model, "pool": replica.pool}
    if replica.address is not None:
        address = replica.address
        detail |= {"host": address.host, "port": address.port, "tls": address.tls, "base_path": address.base_path}
        if address.identity:
            detail |= {"identity": address.identity, "server_name": address.server_name}
    return ProcessRecord(
        process_id=replica.child_id,
        kind=replica.kind,
        marker=replica.child_id,
        recorded_at_unix=clock.unix(),
        detail=detail,
    )


def in_place(record: ProcessRecord, provider: str) -> ProcessRecord:
    """The same intent, in a place that is called otherwise now."""
    return msgspec.structs.replace(record, detail={**record.detail, "provider": provider})


def from_record(record: ProcessRecord, now: float) -> Replica:
    """The replica that an intent stands for, as starting. Raises ValueError for an entry of another shape."""
    detail = record.detail
    try:
        address = None
        if "port" in detail:
            address = Address(
                str(detail["host"]),
                int(detail["port"] or 0),
                bool(detail["tls"]),
                str(detail["base_path"]),
                str(detail.get("identity") or ""),
                str(detail.get("server_name") or ""),
            )
        log_path = Path(str(detail["log_path"]))
        handle = None
        if record.pid is not None and record.start_time is not None:
            handle = ChildHandle(record.process_id, log_path, record.pid, record.start_time)
        return Replica(
            workload=str(detail["workload"]),
            kind=record.kind,
            provider=str(detail["provider"]),
            ordinal=int(detail["ordinal"] or 0),
            child_id=record.process_id,
            fingerprint=str(detail["fingerprint"]),
            log_path=log_path,
            phase=Phase.STARTING,
            since=now,
            drain_seconds=float(detail["drain_seconds"] or 0),
            stop_grace_seconds=float(detail["stop_grace_seconds"] or 0),
            model=str(detail.get("model") or ""),
            pool=str(detail.get("pool") or ""),
            ordered_at=now,
            address=address,
            key=str(detail["key"]),
            handle=handle,
        )
    except KeyError as error:
        raise ValueError(f"the stored process {record.process_id} lacks {error}") from error
