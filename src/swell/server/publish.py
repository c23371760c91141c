"""From what the server knows to what its workers know: pure functions, and the bounded log of changes.

`picture_of` makes the whole truth out of spec, keys and replicas; `change` tells two pictures apart as one
`Delta`; `Publication` numbers the changes and remembers the last `LOG_DELTAS` of them, so that a worker
that was away briefly is sent only what it missed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swell.control.replica import Replica
from swell.server.administration import DEFAULT_TENANT, key_problem
from swell.spec import Engine, Late, ModelSpec, TenantSpec
from swell.state.budgets import BudgetLimit
from swell.state.curbs import Curb
from swell.state.records import KeyRecord
from swell.state.snapshot import (
    ClientIdentity,
    Delta,
    KeyEntry,
    Limits,
    ModelEntry,
    NextRates,
    ReplicaEntry,
    Snapshot,
    TenantEntry,
    Unserved,
)

MAX_PROMPTS = 128  # in one request for completions

LOG_DELTAS = 256

_Entry = TypeVar("_Entry", ModelEntry, KeyEntry, TenantEntry)


@dataclass(frozen=True)
class Picture:
    """Everything that workers are told, without a number."""

    workers: int = 0
    models: tuple[ModelEntry, ...] = ()
    keys: tuple[KeyEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    budgets: tuple[BudgetLimit, ...] = ()
    curbs: tuple[Curb, ...] = ()
    identities: tuple[ClientIdentity, ...] = ()

    def numbered(self, epoch: int, sequence: int) -> Snapshot:
        """As the message that a worker is sent."""
        return Snapshot(
            epoch,
            sequence,
            self.workers,
            self.models,
            self.keys,
            self.tenants,
            self.budgets,
            self.curbs,
            self.identities,
        )


def change(old: Picture, new: Picture, epoch: int, sequence: int) -> Delta | None:
    """The delta that turns `old` into `new`, or None where nothing changed."""
    if old == new:
        return None
    models, removed_models = _difference(old.models, new.models, lambda entry: entry.name)
    keys, removed_keys = _difference(old.keys, new.keys, lambda entry: entry.key_id)
    tenants, removed_tenants = _difference(old.tenants, new.tenants, lambda entry: entry.name)
    return Delta(
        epoch=epoch,
        sequence=sequence,
        workers=new.workers if new.workers != old.workers else None,
        models=models,
        keys=keys,
        tenants=tenants,
        budgets=new.budgets if new.budgets != old.budgets else None,
        curbs=new.curbs if new.curbs != old.curbs else None,
        identities=new.identities if new.identities != old.identities else None,
        removed_models=removed_models,
        removed_keys=removed_keys,
        removed_tenants=removed_tenants,
    )


def _difference(
    old: Iterable[_Entry], new: Iterable[_Entry], name: Callable[[_Entry], str]
) -> tuple[tuple[_Entry, ...], tuple[str, ...]]:
    before = {name(entry): entry for entry in old}
    after = {name(entry): entry for entry in new}
    changed = tuple(entry for key, entry in after.items() if before.get(key) != entry)
    return changed, tuple(key for key in before if key not in after)


@dataclass(frozen=True)
class Served:
    """A model, and what its engine offers."""

    spec: ModelSpec
    endpoints: tuple[str, ...]


def picture_of(
    models: Sequence[Served],
    tenants: Sequence[TenantSpec],
    keys: Iterable[KeyRecord],
    replicas: Iterable[Replica],
    *,
    workers: int,
    created_unix: int,
    now_unix: float,
    price_of: Callable[[str], tuple[int, int]] = lambda model: (0, 0),
    next_rates: Callable[[str], NextRates | None] = lambda model: None,
    budgets: tuple[BudgetLimit, ...] = (),
    curbs: tuple[Curb, ...] = (),
    identities: tuple[ClientIdentity, ...] = (),
    unserved: Callable[[str], Unserved | None] = lambda model: None,
) -> Picture:
    """What workers are to know: routable replicas, live keys, the tenants with their limits, budgets and their steps,
    and what they show replicas.

    `price_of` a model is its rates, in nano-dollars per million prompt and completion tokens; `next_rates` those that
    are known to follow; `unserved` why nobody will serve it.
    """
    routable: dict[str, list[Replica]] = {}
    for replica in replicas:
        if replica.routable and (replica.address is not None or replica.unseen):
            routable.setdefault(replica.serves, []).append(replica)
    known = with_default_tenant(tenants)
    names = {tenant.name for tenant in known}
    return Picture(
        workers=workers,
        models=tuple(
            entry
            for model in models
            for entry in _model_entries(
                model,
                routable.get(model.spec.name, ()),
                created_unix,
                price_of,
                next_rates,
                unserved(model.spec.name),
            )
        ),
        keys=tuple(key.to_entry() for key in keys if key.is_live(now_unix) and not key_problem(key, names)),
        tenants=tuple(_tenant_entry(tenant) for tenant in known),
        budgets=budgets,
        curbs=curbs,
        identities=identities,
    )


def refused_keys(
    tenants: Sequence[TenantSpec], keys: Iterable[KeyRecord], now_unix: float
) -> list[tuple[KeyRecord, str]]:
    """Live keys that workers are not told about, each with the reason and what to do."""
    names = {tenant.name for tenant in with_default_tenant(tenants)}
    return [(key, problem) for key in keys if key.is_live(now_unix) and (problem := key_problem(key, names))]


def with_default_tenant(tenants: Sequence[TenantSpec]) -> tuple[TenantSpec, ...]:
    """The tenants, and the one that keys belong to which name none."""
    if any(tenant.name == DEFAULT_TENANT for tenant in tenants):
        return tuple(tenants)
    return (TenantSpec(name=DEFAULT_TENANT), *tenants)


def _model_entries(
    model: Served,
    replicas: Sequence[Replica],
    created_unix: int,
    price_of: Callable[[str], tuple[int, int]],
    next_rates: Callable[[str], NextRates | None],
    unserved: Unserved | None,
) -> Iterator[ModelEntry]:
    """The model itself, and each of its adapters under its own name on the same replicas."""
    spec = model.spec
    entries = tuple(_replica_entry(replica, spec.max_in_flight) for replica in replicas if not replica.unseen)
    kept = tuple(replica.child_id for replica in replicas if replica.unseen)
    served = {spec.name: spec.upstream_model or spec.name} | {adapter.name: adapter.name for adapter in spec.lora}
    for name, upstream_model in served.items():
        prompt_rate, completion_rate = price_of(name)
        yield ModelEntry(
            name=name,
            upstream_model=upstream_model,
            endpoints=model.endpoints,
            routing=spec.routing.value,
            prefix_bytes=spec.prefix_bytes,
            default_max_tokens=spec.max_tokens.default,
            max_tokens_cap=spec.max_tokens.max,
            # llama.cpp reports the usage of one choice, however many there were: one at a time is what can be billed.
            n_cap=1 if spec.engine is Engine.LLAMA_CPP else spec.n_max,
            prompts_cap=1 if spec.engine is Engine.LLAMA_CPP else MAX_PROMPTS,
            created_unix=created_unix,
            hold_seconds=spec.scaling.hold_seconds if spec.scales and not spec.replicas.min else 0.0,
            ttft_ms=spec.objectives.ttft_ms,
            ttft_ms_per_1k_prompt_tokens=spec.objectives.ttft_ms_per_1k_prompt_tokens,
            itl_ms=spec.objectives.itl_ms,
            prompt_rate=prompt_rate,
            completion_rate=completion_rate,
            next_rates=next_rates(name),
            refuses_late=spec.objectives.late is Late.REFUSE,
            cheaper_variant=(spec.cheaper_variant or "")
            if name == spec.name
            else "",  # an adapter was made for this one
            context_tokens=spec.context_tokens or 0,
            priority=spec.priority.value if spec.priority else "",
            unserved=unserved,
            replicas=entries,
            kept=kept,
        )


def _replica_entry(replica: Replica, max_in_flight: int) -> ReplicaEntry:
    if replica.address is None:
        raise ValueError(f"replica {replica.child_id} has no address to route to")
    return ReplicaEntry(
        replica_id=replica.child_id,
        host=replica.address.host,
        port=replica.address.port,
        tls=replica.address.tls,
        base_path=replica.address.base_path,
        authorization=f"Bearer {replica.key}" if replica.key else "",
        max_in_flight=max_in_flight,
        identity=replica.address.identity,
        server_name=replica.address.server_name,
    )


def _tenant_entry(tenant: TenantSpec) -> TenantEntry:
    return TenantEntry(tenant.name, Limits(**tenant.limits.model_dump()), tenant.priority.value)


def limits_of(picture: Picture) -> dict[str, int]:
    """Every limit in `picture` under the name that leases know it by, `<scope>:<id>:<measure>`."""
    scopes = [(f"key:{key.key_id}", key.limits) for key in picture.keys]
    scopes += [(f"tenant:{tenant.name}", tenant.limits) for tenant in picture.tenants]
    found = {f"{scope}:{measure}": value for scope, limits in scopes for measure, value in limits.counts.items()}
    return found | {each.throttle_limit: each.requests_per_minute for each in picture.curbs if each.requests_per_minute}


class Publication:
    """The current picture of one epoch, and how it came about."""

    def __init__(self, epoch: int, picture: Picture) -> None:
        self.epoch = epoch
        self.sequence = 1
        self.picture = picture
        self._log: deque[Delta] = deque(maxlen=LOG_DELTAS)

    def update(self, picture: Picture, *, check: Callable[[Delta], object] = lambda delta: None) -> Delta | None:
        """Make `picture` the current one; the delta to send, or None where nothing changed.

        Where `check` raises, nothing has happened.
        """
        delta = change(self.picture, picture, self.epoch, self.sequence + 1)
        if delta is not None:
            check(delta)
            self.picture = picture
            self.sequence = delta.sequence
            self._log.append(delta)
        return delta

    def since(self, epoch: int, sequence: int) -> Sequence[Snapshot | Delta]:
        """What a worker must be sent that has seen `sequence` of `epoch`: deltas, or the whole snapshot."""
        if epoch == self.epoch and sequence <= self.sequence:
            missed = [delta for delta in self._log if delta.sequence > sequence]
            if len(missed) == self.sequence - sequence:
                return missed
        return [self.picture.numbered(self.epoch, self.sequence)]
