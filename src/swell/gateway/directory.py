"""What a worker knows of keys, tenants and models: the server's snapshot made ready for dictionary reads."""

import hmac
import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from swell.errors import KeyFormatError
from swell.gateway.budget_shares import Budgets, BudgetShare
from swell.gateway.curbs import Curbs
from swell.gateway.responses import Refusal
from swell.gateway.route import ModelRoute, Replica
from swell.gateway.shares import Share, Shares
from swell.policy.queueing import PRIORITIES
from swell.security.keys import digest_key, parse_key
from swell.security.replica_tls import Identities
from swell.state.budgets import BudgetLimit, Scope
from swell.state.curbs import Curb
from swell.state.snapshot import (
    ClientIdentity,
    Delta,
    KeyEntry,
    Limits,
    ModelEntry,
    ReplicaEntry,
    Snapshot,
    TenantEntry,
)

DEFAULT_PRIORITY = "standard"


class Key:
    """A key as requests meet it. `live` turns False at once when it is revoked or replaced."""

    __slots__ = (
        "_budgets",
        "_by_model",
        "_in_force",
        "_make_share",
        "concurrency_shares",
        "curbs",
        "entry",
        "expires_at_unix",
        "has_one_secret",
        "is_limited",
        "live",
        "priority",
        "request_shares",
        "token_shares",
        "unit_shares",
    )

    def __init__(
        self, entry: KeyEntry, tenant: TenantEntry | None, shares: Shares, budgets: Sequence[BudgetLimit] = ()
    ) -> None:
        self.entry = entry
        self.live = True
        self.curbs: Curbs | None = None  # unless a budget of its is nearly used up
        self.expires_at_unix = math.inf if entry.expires_at_unix is None else entry.expires_at_unix
        self.has_one_secret = len(entry.digests) == 1 and entry.digests[0].expires_at_unix is None
        priority = entry.priority or (tenant.priority if tenant else DEFAULT_PRIORITY)
        self.priority = priority if priority in PRIORITIES else DEFAULT_PRIORITY
        scopes = [(f"key:{entry.key_id}", entry.limits)]
        if tenant is not None:
            scopes.append((f"tenant:{tenant.name}", tenant.limits))
        self.request_shares = _shares_of(scopes, "requests_per_minute", shares)
        self.token_shares = _shares_of(scopes, "tokens_per_minute", shares)
        self.concurrency_shares = _shares_of(scopes, "concurrent_requests", shares)
        self.unit_shares = self.request_shares + self.concurrency_shares  # a request takes one of each
        self._make_share = shares.budget
        self._budgets = [(limit, shares.budget(limit)) for limit in budgets]
        self._by_model: dict[str, tuple[Budgets, ...]] = {}
        self._in_force: dict[str, tuple[int, float, tuple[BudgetShare, ...]]] = {}  # by model: since and until when
        self.is_limited = bool(self.unit_shares or self.token_shares or self._budgets)

    def budgets(self, model: str, unix_ms: int) -> tuple[BudgetShare, ...]:
        """The shares of every budget that a request for `model`, admitted at that time, counts against."""
        in_force = self._in_force.get(model)
        if in_force is not None and in_force[0] <= unix_ms < in_force[1]:
            return in_force[2]
        found = self._budgets_at(model, unix_ms)
        ends = [share.spec.end_unix_ms for share in found if share.spec.end_unix_ms is not None]
        self._in_force[model] = unix_ms, min(ends, default=math.inf), found
        return found

    def _budgets_at(self, model: str, unix_ms: int) -> tuple[BudgetShare, ...]:
        known = self._by_model.get(model)
        if known is None:
            by_id: dict[str, list[BudgetShare]] = {}
            for limit, share in self._budgets:
                if limit.model in ("", model):
                    by_id.setdefault(limit.budget_id, []).append(share)
            known = self._by_model[model] = tuple(Budgets(each, self._make_share) for each in by_id.values())
        return tuple(budgets.at(unix_ms) for budgets in known)


def _shares_of(scopes: list[tuple[str, Limits]], measure: str, shares: Shares) -> tuple[Share, ...]:
    found: list[Share] = []
    for scope, limits in scopes:
        value = getattr(limits, measure)
        if value is not None:
            found.append(shares.get(f"{scope}:{measure}", value))
    return tuple(found)


def _scopes(entry: KeyEntry) -> tuple[tuple[str, str], ...]:
    """Whose budgets a key's requests count against."""
    return (Scope.ORGANISATION, ""), (Scope.TENANT, entry.tenant), (Scope.KEY, entry.key_id)


class Directory:
    """Applies snapshots and deltas; answers who a key is and where a model runs."""

    def __init__(
        self, pepper: bytes, shares: Shares, make_replica: Callable[..., Replica], now: Callable[[], float]
    ) -> None:
        self._pepper = pepper
        self._now = now
        self._shares = shares
        self._make_replica = make_replica
        self.identities = Identities()
        self._told_identities: Sequence[ClientIdentity] = ()
        self._keys: dict[str, Key] = {}
        self._tenants: dict[str, TenantEntry] = {}
        self._budgets: dict[tuple[str, str], list[BudgetLimit]] = {}  # by scope and owner
        self._curbs: dict[tuple[str, str], list[Curb]] = {}  # as well
        self.models: dict[str, ModelRoute] = {}
        self.epoch = 0
        self.sequence = 0
        self.workers = 1

    def authenticate(self, token: bytes, unix_now: float) -> Key:
        """The live key that `token` is. Raises Refusal (401), which never says how close it was."""
        try:
            key_id = parse_key(token)
        except KeyFormatError as error:
            raise Refusal(401, error.message, code="invalid_api_key") from None
        key = self._keys.get(key_id)
        digest = digest_key(self._pepper, token)
        if key is not None and is_current(key, unix_now):
            for known in key.entry.digests:
                if hmac.compare_digest(digest, known.digest) and (
                    known.expires_at_unix is None or unix_now < known.expires_at_unix
                ):
                    return key
        raise Refusal(401, "This key is unknown, revoked or expired; ask for a new one.", code="invalid_api_key")

    def apply(self, snapshot: Snapshot) -> None:
        """Replace everything; what runs on a replica that stays is kept."""
        self.epoch, self.sequence, self.workers = snapshot.epoch, snapshot.sequence, max(1, snapshot.workers)
        self._tenants = {entry.name: entry for entry in snapshot.tenants}
        self._set_budgets(snapshot.budgets)
        self._set_curbs(snapshot.curbs)
        self._set_identities(snapshot.identities, snapshot.models)
        stale = self._keys
        self._keys = {entry.key_id: self._key(entry) for entry in snapshot.keys}
        for key in stale.values():
            key.live = False
        names = {entry.name for entry in snapshot.models}
        for name in [name for name in self.models if name not in names]:
            self.models.pop(name).retire()
        for model in snapshot.models:
            self._put_model(model)
        self._forget_identities()

    def apply_delta(self, delta: Delta) -> bool:
        """Apply the next change. False where one before it is missing: ask for a snapshot."""
        if delta.epoch != self.epoch or delta.sequence != self.sequence + 1:
            return False
        self.sequence = delta.sequence
        if delta.workers is not None:
            self.workers = max(1, delta.workers)
            for route in self.models.values():
                self._put_model(route.entry)
        for name in delta.removed_tenants:
            self._tenants.pop(name, None)
        for tenant in delta.tenants:
            self._tenants[tenant.name] = tenant
        if delta.budgets is not None:
            self._set_budgets(delta.budgets)
        if delta.curbs is not None:
            self._set_curbs(delta.curbs)
        if delta.identities is not None:
            entries = {
                **{name: route.entry for name, route in self.models.items()},
                **{e.name: e for e in delta.models},
            }
            self._set_identities(delta.identities, entries.values())
        if delta.tenants or delta.removed_tenants or delta.budgets is not None:
            for key in list(self._keys.values()):
                self._put_key(key.entry)
        for key_id in delta.removed_keys:
            self._drop_key(key_id)
        for entry in delta.keys:
            self._put_key(entry)
        for name in delta.removed_models:
            if name in self.models:
                self.models.pop(name).retire()
        for model in delta.models:
            self._put_model(model)
        if delta.models or delta.removed_models:
            self._forget_identities()
        return True

    def _key(self, entry: KeyEntry) -> Key:
        budgets = [limit for scope in _scopes(entry) for limit in self._budgets.get(scope, ())]
        key = Key(entry, self._tenants.get(entry.tenant), self._shares, budgets)
        key.curbs = self._curbs_of(entry)
        return key

    def _curbs_of(self, entry: KeyEntry) -> Curbs | None:
        if not self._curbs:
            return None
        curbs = [curb for scope in _scopes(entry) for curb in self._curbs.get(scope, ())]
        return Curbs(curbs, self._shares) if curbs else None

    def _set_curbs(self, curbs: Sequence[Curb]) -> None:
        self._curbs = {}
        for curb in curbs:
            self._curbs.setdefault((curb.limit.scope, curb.limit.owner), []).append(curb)
        for key in self._keys.values():
            key.curbs = self._curbs_of(key.entry)

    def _set_budgets(self, limits: Sequence[BudgetLimit]) -> None:
        self._budgets = {}
        for limit in limits:
            self._budgets.setdefault((limit.scope, limit.owner), []).append(limit)
        self._shares.keep_budgets(limits)

    def _put_key(self, entry: KeyEntry) -> None:
        self._drop_key(entry.key_id)
        self._keys[entry.key_id] = self._key(entry)

    def _drop_key(self, key_id: str) -> None:
        key = self._keys.pop(key_id, None)
        if key is not None:
            key.live = False

    def _put_model(self, entry: ModelEntry) -> None:
        route = self.models.get(entry.name)
        if route is None:
            route = self.models[entry.name] = ModelRoute(entry.name, self._now)
        if entry.kept:
            told = [replica for replica in entry.replicas if replica.replica_id not in entry.kept]
            entry = msgspec.structs.replace(entry, replicas=(*told, *self._kept(entry)))
        route.update(entry, self.workers, self._make_replica)

    def _kept(self, entry: ModelEntry) -> list[ReplicaEntry]:
        """Replicas that the server cannot ask about, as they are known here; others of them are not known here."""
        route = self.models.get(entry.name)
        known = route.entry.replicas if route is not None else ()
        return [replica for replica in known if replica.replica_id in entry.kept]

    def _set_identities(self, told: Sequence[ClientIdentity], entries: Iterable[ModelEntry]) -> None:
        self._told_identities = told
        self.identities.put(told, self._kept_identities(entries))

    def _forget_identities(self) -> None:
        """Have those that are told, and of others only what is shown to replicas that are kept yet."""
        told = {each.identity_id for each in self._told_identities}
        if self.identities.names - told:
            self._set_identities(self._told_identities, [route.entry for route in self.models.values()])

    def _kept_identities(self, entries: Iterable[ModelEntry]) -> set[str]:
        """What is shown to those: a server that cannot ask about them has not got it, either."""
        return {replica.identity for entry in entries for replica in self._kept(entry)}


def is_current(key: Key, unix_now: float) -> bool:
    """Live and not expired."""
    return key.live and unix_now < key.expires_at_unix
