"""What the store keeps, as frozen values: keys, usage, processes, audit entries, spool positions.

Times are seconds since 1970 (`_unix`) or milliseconds since 1970 (`_unix_ms`).
"""

from typing import NamedTuple

import msgspec

from swell.state.budgets import BudgetLimit, Scope
from swell.state.snapshot import KeyDigest, KeyEntry, Limits
from swell.state.usage import UsageStatus


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. The secret itself is nowhere; while a rotation is under way two digests are live."""

    key_id: str
    name: str  # what the user calls it; not unique
    tenant: str
    digest: bytes
    created_at_unix: float
    expires_at_unix: float | None = None
    previous_digest: bytes | None = None
    previous_expires_at_unix: float | None = None  # ends the rotated secret
    revoked_at_unix: float | None = None
    limits: Limits = Limits()
    priority: str = ""  # empty: the tenant's

    def is_live(self, now_unix: float) -> bool:
        """Whether requests with this key are accepted at `now_unix`."""
        return self.revoked_at_unix is None and (self.expires_at_unix is None or now_unix < self.expires_at_unix)

    def to_entry(self) -> KeyEntry:
        """The key as gateway workers know it. Workers judge expiry themselves; a revoked key must not be sent."""
        digests: tuple[KeyDigest, ...] = (KeyDigest(self.digest),)
        if self.previous_digest is not None:
            digests += (KeyDigest(self.previous_digest, self.previous_expires_at_unix),)
        return KeyEntry(self.key_id, self.tenant, digests, self.expires_at_unix, self.limits, self.priority)


class UsageChange(NamedTuple):
    """What one batch of spool records says about one request, records of the same request collapsed.

    A plain tuple, because thousands a second go straight to the database driver as rows. `reserved_at_unix_ms` is
    None where the batch has no `Reserved` for the request (then the identity fields are empty), `settled_at_unix_ms`
    where it has no `Settled`. Tokens and the charge are the outcome's if there is one, else the bound. Cached tokens
    are part of the prompt's. Rates are nano-dollars per million tokens.
    """

    request_id: str
    spool: str
    reserved_at_unix_ms: int | None
    key_id: str
    tenant: str
    model: str
    endpoint: str
    prompt_rate: int
    completion_rate: int
    sent: bool
    settled_at_unix_ms: int | None
    status: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    charge_usd_nanos: int
    replica_id: str
    http_status: int
    duration_ms: int
    first_token_ms: int


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request in the ledger. Tokens are actual (settled), counted (estimated), the bound (reserved) or 0 (void).

    The charge is theirs, in nano-dollars, at the rates (per million tokens) that held when it was admitted. Of the
    prompt tokens, `cached_tokens` were found in a prefix cache, as far as the engine said so.
    """

    request_id: str
    key_id: str
    tenant: str
    model: str
    endpoint: str
    status: UsageStatus
    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int
    prompt_rate: int
    completion_rate: int
    charge_usd_nanos: int
    reserved_at_unix_ms: int | None
    settled_at_unix_ms: int | None
    replica_id: str
    http_status: int
    duration_ms: int
    first_token_ms: int


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage to list or total; None matches everything. Times are of arrival, `until` excluded."""

    key_id: str | None = None
    model: str | None = None
    tenant: str | None = None
    status: UsageStatus | None = None
    since_unix_ms: int | None = None
    until_unix_ms: int | None = None
    spool: str | None = None


def window_of(limit: BudgetLimit) -> UsageFilter:
    """The requests that count against a budget now: as `requests_of`, but of a slot with all that count with it."""
    return msgspec.structs.replace(requests_of(limit), since_unix_ms=limit.window_start_unix_ms or None)


def requests_of(limit: BudgetLimit, spool: str | None = None) -> UsageFilter:
    """The requests that count against a budget in its period; of one worker, where `spool` names it."""
    return UsageFilter(
        key_id=limit.owner if limit.scope == Scope.KEY else None,
        tenant=limit.owner if limit.scope == Scope.TENANT else None,
        model=limit.model or None,
        since_unix_ms=limit.start_unix_ms or None,
        until_unix_ms=limit.end_unix_ms,
        spool=spool,
    )


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the requests of one status."""

    status: UsageStatus
    requests: int
    prompt_tokens: int
    completion_tokens: int
    charge_usd_nanos: int
    cached_tokens: int = 0


class SpoolUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker's requests of one key used; bounds count where the outcome is unknown."""

    key_id: str
    tenant: str
    requests: int
    tokens: int


class SpoolPosition(msgspec.Struct, frozen=True):
    """How far a spool folder is in the ledger: everything before `offset` bytes of `segment`, and earlier segments."""

    spool: str  # the folder's name, a worker's incarnation
    segment: int  # number in the segment's file name, from 1
    offset: int
    gateway: str = ""  # on whose machine the folder lies; "": the server's own


class FinalisedSpool(msgspec.Struct, frozen=True):
    """What became of a dead worker's open requests."""

    reserved: int  # left standing at their bound
    void: int


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A child process: stored as an intent (pid None) before it is started, so that no crash can orphan it."""

    process_id: str  # unique; a replica's id or a worker's incarnation
    kind: str  # replica | gateway_worker
    marker: str  # value of the marker variable in the child's environment
    recorded_at_unix: float
    pid: int | None = None
    start_time: float | None = None  # the operating system's, compared for equality against a reused pid
    detail: dict[str, str | int | float | bool | None] = {}


class StartedProcess(NamedTuple):
    """What the child of an intent is known by, once it runs."""

    process_id: str
    pid: int
    start_time: float


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One administrative act. `detail` never holds a secret."""

    at_unix: float
    principal: str  # who: never empty
    action: str  # such as key.create
    subject: str  # what it was done to
    detail: dict[str, str | int | float | bool | None] = {}


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A scaling decision, or a row of holds by the same rule, of which the last one's reason and inputs are kept."""

    decision_id: str
    model: str
    at_unix: float
    until_unix: float  # of the last one
    times: int
    before: int  # replicas that there were, starting ones included
    replicas: int  # that there shall be
    is_hold: bool
    binding: str  # the rule that set the number
    reason: str
    inputs: dict[str, float] = {}
    rejected: tuple[tuple[int, str], ...] = ()  # numbers of replicas that were weighed, and why not
