"""A store in memory that fails when told to. It fulfils the same contract suite as the real one."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from swell.errors import AlreadyGone, StateError, SwellError
from swell.ports.store import MAX_LISTED
from swell.state.records import (
    AuditEntry,
    DecisionRecord,
    FinalisedSpool,
    KeyRecord,
    ProcessRecord,
    SpoolPosition,
    SpoolUse,
    StartedProcess,
    UsageChange,
    UsageFilter,
    UsageRecord,
    UsageTotal,
)
from swell.state.usage import UsageStatus
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup
from swell.testing.memory_alerts import MemoryAlerts
from swell.testing.memory_budgets import MemoryBudgets
from swell.testing.memory_overrides import MemoryOverrides
from swell.testing.memory_rates import MemoryRates
from swell.testing.memory_reader import MemoryReader
from swell.testing.memory_runs import MemoryRuns
from swell.testing.memory_usage_groups import arrived, grouped


class MemoryStore(MemoryBudgets, MemoryOverrides, MemoryAlerts, MemoryRuns, MemoryRates):
    """`swell.ports.store.Store` in dictionaries. `fail_next` makes the next calls raise before they change anything."""

    def __init__(self, *, has_reader: bool = False) -> None:
        self.readers: list[MemoryReader] = []
        self._has_reader = has_reader
        MemoryBudgets.__init__(self, self._call, self._charge)
        MemoryOverrides.__init__(self, self._call, lambda entry: self._audit.append(entry))  # noqa: PLW0108  # made later
        MemoryAlerts.__init__(self, self._call, lambda limit_name: limit_name in self._limits)
        MemoryRuns.__init__(self, self._call)
        MemoryRates.__init__(self, self._call, self._note)
        self._keys: dict[str, KeyRecord] = {}
        self._usage: dict[str, UsageChange] = {}
        self._positions: dict[str, SpoolPosition] = {}
        self._given_up: set[str] = set()  # spools
        self._processes: dict[str, ProcessRecord] = {}
        self._audit: list[AuditEntry] = []
        self._decisions: dict[str, DecisionRecord] = {}
        self._epoch = 0
        self._marks: dict[str, int] = {}
        self._failures: list[SwellError | None] = []
        self._is_closed = False

    def fail_next(self, *errors: SwellError | None) -> None:
        """Raise these, one per call; None lets a call through."""
        self._failures += errors

    def insert_key(self, key: KeyRecord, audit: AuditEntry) -> None:
        with self._call():
            if key.key_id in self._keys:
                raise StateError(f"the store already has the key {key.key_id}; choose another id")
            self._keys[key.key_id] = key
            self._audit.append(audit)

    def get_key(self, key_id: str) -> KeyRecord | None:
        with self._call():
            return self._keys.get(key_id)

    def list_keys(self) -> list[KeyRecord]:
        with self._call():
            return sorted(self._keys.values(), key=lambda key: (key.created_at_unix, key.key_id))

    def rotate_key(
        self, key_id: str, digest: bytes, previous_expires_at_unix: float, audit: AuditEntry
    ) -> KeyRecord | None:
        with self._call():
            key = self._keys.get(key_id)
            if key is None:
                return None
            ends = previous_expires_at_unix
            changed = replace(key, digest=digest, previous_digest=key.digest, previous_expires_at_unix=ends)
            return self._change(changed, audit)

    def expire_key(self, key_id: str, expires_at_unix: float | None, audit: AuditEntry) -> KeyRecord | None:
        with self._call():
            key = self._keys.get(key_id)
            return None if key is None else self._change(replace(key, expires_at_unix=expires_at_unix), audit)

    def revoke_key(self, key_id: str, revoked_at_unix: float, audit: AuditEntry) -> KeyRecord | None:
        with self._call():
            key = self._keys.get(key_id)
            return None if key is None else self._change(replace(key, revoked_at_unix=revoked_at_unix), audit)

    def apply_usage(self, changes: Iterable[UsageChange], position: SpoolPosition) -> None:
        with self._call():
            for change in changes:
                known = self._usage.get(change.request_id)
                self._usage[change.request_id] = change if known is None else _merge(known, change)
            self._positions[position.spool] = position
            self._given_up.discard(position.spool)

    def finalise_spool(self, spool: str, *, damaged: bool) -> FinalisedSpool:
        with self._call():
            still_open = [row for row in self._usage.values() if row.spool == spool and _is_open(row)]
            unsent = [] if damaged else [row for row in still_open if not row.sent]
            for row in unsent:
                self._usage[row.request_id] = row._replace(**_VOID)
            return FinalisedSpool(reserved=len(still_open) - len(unsent), void=len(unsent))

    def spool_position(self, spool: str) -> SpoolPosition | None:
        with self._call():
            return self._positions.get(spool)

    def forget_spools(self, existing: Sequence[str], gateway: str = "") -> None:
        with self._call():
            kept = {name: at for name, at in self._positions.items() if name in existing or at.gateway != gateway}
            self._positions = kept

    def gateway_spools(self, *, given_up: bool = False) -> dict[str, str]:
        with self._call():
            known = {name: at.gateway for name, at in self._positions.items() if at.gateway}
            return {name: gateway for name, gateway in known.items() if (name in self._given_up) == given_up}

    def give_up_spools(self, gateway: str) -> None:
        with self._call():
            self._given_up |= {name for name, at in self._positions.items() if at.gateway == gateway}

    def recent_use(
        self, since_unix_ms: int, spool: str | None = None, *, without: Collection[str] = ()
    ) -> list[SpoolUse]:
        with self._call():
            rows = [
                row
                for row in self._usage.values()
                if spool in (None, row.spool)
                and row.spool not in without
                and row.status != "void"
                and (arrived(row) or 0) >= since_unix_ms
            ]
            return [
                SpoolUse(
                    key_id=key_id,
                    tenant=tenant,
                    requests=sum((row.key_id, row.tenant) == (key_id, tenant) for row in rows),
                    tokens=sum(
                        row.prompt_tokens + row.completion_tokens
                        for row in rows
                        if (row.key_id, row.tenant) == (key_id, tenant)
                    ),
                )
                for key_id, tenant in sorted({(row.key_id, row.tenant) for row in rows})
            ]

    def list_usage(self, where: UsageFilter, limit: int) -> list[UsageRecord]:
        with self._call():
            found = [row for row in self._usage.values() if _matches(row, where)]
            found.sort(key=lambda row: (arrived(row) or 0, row.request_id), reverse=True)
            return [_to_record(row) for row in found[: min(limit, MAX_LISTED)]]

    def total_usage(self, where: UsageFilter) -> list[UsageTotal]:
        with self._call():
            rows = [row for row in self._usage.values() if _matches(row, where)]
            return [
                UsageTotal(
                    status=UsageStatus(status),
                    requests=sum(row.status == status for row in rows),
                    prompt_tokens=sum(row.prompt_tokens for row in rows if row.status == status),
                    completion_tokens=sum(row.completion_tokens for row in rows if row.status == status),
                    charge_usd_nanos=sum(row.charge_usd_nanos for row in rows if row.status == status),
                    cached_tokens=sum(row.cached_tokens for row in rows if row.status == status),
                )
                for status in sorted({row.status for row in rows})
            ]

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        with self._call():
            return grouped((row for row in self._usage.values() if _matches(row, where)), by, bucket)

    def roll_usage(self, now_unix_ms: int) -> bool:
        return False  # sums are made anew each time

    def reader(self) -> MemoryReader | None:
        if not self._has_reader:
            return None
        self.readers.append(MemoryReader(self))
        return self.readers[-1]

    def usage_span(self) -> tuple[int, int] | None:
        with self._call():
            times = [at for at in map(arrived, self._usage.values()) if at is not None]
            return (min(times), max(times)) if times else None

    def _charge(self, where: UsageFilter) -> int:
        return sum(row.charge_usd_nanos for row in self._usage.values() if _matches(row, where))

    def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        with self._call():
            self._processes |= {process.process_id: process for process in processes}

    def record_started(self, started: Sequence[StartedProcess]) -> None:
        with self._call():
            for each in started:
                if each.process_id not in self._processes:
                    raise AlreadyGone(f"the process entry {each.process_id} was removed; stop process {each.pid}")
            for each in started:
                intent = self._processes[each.process_id]
                self._processes[each.process_id] = replace(intent, pid=each.pid, start_time=each.start_time)

    def remove_processes(self, process_ids: Sequence[str]) -> None:
        with self._call():
            for process_id in process_ids:
                self._processes.pop(process_id, None)

    def list_processes(self) -> list[ProcessRecord]:
        with self._call():
            return sorted(self._processes.values(), key=lambda entry: (entry.recorded_at_unix, entry.process_id))

    def put_decisions(self, made: Sequence[DecisionRecord], keep: int) -> None:
        with self._call():
            for decision in made:
                self._decisions[decision.decision_id] = decision
            for model in {decision.model for decision in made}:
                own = [known for known, decision in self._decisions.items() if decision.model == model]
                for known in own[: max(0, len(own) - keep)]:
                    del self._decisions[known]

    def list_decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        with self._call():
            found = [decision for decision in self._decisions.values() if model in (None, decision.model)]
            return found[::-1][: min(limit, MAX_LISTED)]

    def append_audit(self, entry: AuditEntry) -> None:
        with self._call():
            self._audit.append(entry)

    def list_audit(self, limit: int) -> list[AuditEntry]:
        with self._call():
            return self._audit[::-1][: min(limit, MAX_LISTED)]

    def next_epoch(self) -> int:
        with self._call():
            self._epoch += 1
            return self._epoch

    def mark(self, name: str) -> int | None:
        with self._call():
            return self._marks.get(name)

    def set_mark(self, name: str, value: int) -> int:
        with self._call():
            return self._marks.setdefault(name, value)

    def confirm(self) -> None:
        with self._call():
            return

    def close(self) -> None:
        self._is_closed = True

    @contextmanager
    def _call(self) -> Iterator[None]:
        if self._is_closed:
            raise StateError("the store was closed; open it again")
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
        yield

    def _note(self, entry: AuditEntry) -> None:
        self._audit.append(entry)

    def _change(self, key: KeyRecord, audit: AuditEntry) -> KeyRecord | None:
        if self._keys[key.key_id].revoked_at_unix is not None:
            return None
        self._keys[key.key_id] = key
        self._audit.append(audit)
        return key


_TOKENS = ("prompt_tokens", "completion_tokens", "charge_usd_nanos", "cached_tokens")
_VOID: dict[str, Any] = {"status": "void", **dict.fromkeys(_TOKENS, 0)}


def _merge(known: UsageChange, said: UsageChange) -> UsageChange:
    merged = known._replace(sent=known.sent or said.sent)
    if known.reserved_at_unix_ms is None and said.reserved_at_unix_ms is not None:
        identity = (
            "reserved_at_unix_ms", "key_id", "tenant", "model", "endpoint", "prompt_rate", "completion_rate"
        )  # fmt: skip
        merged = merged._replace(**{name: getattr(said, name) for name in identity})
        if known.settled_at_unix_ms is None:
            merged = merged._replace(**{name: getattr(said, name) for name in _TOKENS})
    if known.settled_at_unix_ms is None and said.settled_at_unix_ms is not None:
        outcome = UsageChange._fields[UsageChange._fields.index("settled_at_unix_ms") :]
        merged = merged._replace(**{name: getattr(said, name) for name in outcome})
    return merged


def _is_open(row: UsageChange) -> bool:
    return row.settled_at_unix_ms is None and row.status == "reserved"


def _matches(row: UsageChange, where: UsageFilter) -> bool:
    at = arrived(row)
    return (
        where.key_id in (None, row.key_id)
        and where.model in (None, row.model)
        and where.tenant in (None, row.tenant)
        and where.status in (None, row.status)
        and where.spool in (None, row.spool)
        and (where.since_unix_ms is None or (at is not None and at >= where.since_unix_ms))
        and (where.until_unix_ms is None or (at is not None and at < where.until_unix_ms))
    )


def _to_record(row: UsageChange) -> UsageRecord:
    fields = row._asdict()
    del fields["spool"], fields["sent"]
    return UsageRecord(**fields | {"status": UsageStatus(row.status)})
