"""What a gateway worker knows: an idempotent snapshot, then deltas. Frozen values, msgpack on the wire.

`epoch` rises with every server start, `sequence` with every change inside an epoch. A worker that
reconnects names the last pair it has; the server answers with the deltas since, or with everything.
"""

import msgspec

from swell.state.budgets import BudgetLimit, KeyBudget
from swell.state.curbs import Curb

COUNTS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Admission limits; None means unlimited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    budgets: tuple[KeyBudget, ...] = ()  # of a key; enforced by limits of their own

    @property
    def counts(self) -> dict[str, int]:
        """The limits on counts, by name; those that are none are left out."""
        values = (getattr(self, name) for name in COUNTS)
        return {name: value for name, value in zip(COUNTS, values, strict=True) if value is not None}


class KeyDigest(msgspec.Struct, frozen=True):
    """HMAC-SHA-256 of a whole key under the pepper. `expires_at_unix` ends a rotated secret."""

    digest: bytes
    expires_at_unix: float | None = None


class KeyEntry(msgspec.Struct, frozen=True):
    """A live key. One digest, or two while a rotation is under way."""

    key_id: str
    tenant: str
    digests: tuple[KeyDigest, ...]
    expires_at_unix: float | None = None
    limits: Limits = Limits()
    priority: str = ""  # empty: the tenant's


class TenantEntry(msgspec.Struct, frozen=True):
    """A tenant's limits, and the best class its requests may ask for."""

    name: str
    limits: Limits = Limits()
    priority: str = "standard"


class ClientIdentity(msgspec.Struct, frozen=True):
    """What a gateway shows replicas that ask for it, as PEM, and the authority that theirs must come from."""

    identity_id: str  # as replicas name it; what it stands for is renewed
    ca: bytes
    certificate: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return f"ClientIdentity({self.identity_id!r})"


class ReplicaEntry(msgspec.Struct, frozen=True):
    """Where a replica listens. Only routable replicas are listed; a draining one is simply gone."""

    replica_id: str
    host: str
    port: int
    tls: bool = False
    base_path: str = ""  # prefix before /v1/...
    authorization: str = ""  # value of the Authorization header sent upstream
    max_in_flight: int = 64  # over all workers
    identity: str = ""  # which `ClientIdentity` it asks for; empty: none
    server_name: str = ""  # that its certificate must name; empty: its host


class NextRates(msgspec.Struct, frozen=True):
    """What a model's tokens are charged at from a moment on; nano-dollars per million."""

    from_unix_ms: int
    prompt_rate: int
    completion_rate: int


class Unserved(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why no replica will serve a model for a while: who finds none is refused, and not held."""

    limit: BudgetLimit | None = None  # the infrastructure budget that pays for none; None: the server stops
    need_usd_nanos: int = 0  # what a replica costs at least: its start, the time until a decision, its drain


class ModelEntry(msgspec.Struct, frozen=True):
    """A model as the gateway sees it."""

    name: str
    upstream_model: str  # the name the engine knows it by
    endpoints: tuple[str, ...]  # paths the engine offers, such as /v1/chat/completions
    routing: str = "least_outstanding_tokens"
    prefix_bytes: int = 256
    default_max_tokens: int = 512
    max_tokens_cap: int = 8192
    n_cap: int = 8
    prompts_cap: int = 128  # prompts in one request for completions
    created_unix: int = 0
    hold_seconds: float = 0.0  # a request waits so long for the first replica; 0: for its class's time
    ttft_ms: float = 5000.0  # the objectives that requests are judged by
    ttft_ms_per_1k_prompt_tokens: float = 0.0
    itl_ms: float = 100.0
    prompt_rate: int = 0  # nano-dollars per million tokens
    completion_rate: int = 0
    next_rates: NextRates | None = None  # told ahead, so that they hold from their moment on
    refuses_late: bool = False  # who waits and cannot meet ttft_ms any more is refused, not demoted
    cheaper_variant: str = ""  # the model that answers where a budget is nearly used up; empty: none
    context_tokens: int = 0  # of one request; 0: not known
    priority: str = ""  # the best class that its requests have; empty: whatever their keys allow
    unserved: Unserved | None = None  # None: a request that finds no replica waits for one
    replicas: tuple[ReplicaEntry, ...] = ()
    kept: tuple[str, ...] = ()  # ids of replicas that the server cannot ask about: whoever knows them keeps them


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything a worker needs to serve."""

    epoch: int
    sequence: int
    workers: int  # how many workers share the port
    models: tuple[ModelEntry, ...]
    keys: tuple[KeyEntry, ...]
    tenants: tuple[TenantEntry, ...]
    budgets: tuple[BudgetLimit, ...] = ()
    curbs: tuple[Curb, ...] = ()
    identities: tuple[ClientIdentity, ...] = ()


class Delta(msgspec.Struct, frozen=True, omit_defaults=True, tag="delta"):
    """One change. Entries replace whole; removals name the entry."""

    epoch: int
    sequence: int
    workers: int | None = None
    models: tuple[ModelEntry, ...] = ()
    keys: tuple[KeyEntry, ...] = ()
    tenants: tuple[TenantEntry, ...] = ()
    budgets: tuple[BudgetLimit, ...] | None = None  # all of them, where any changed
    curbs: tuple[Curb, ...] | None = None  # as well
    identities: tuple[ClientIdentity, ...] | None = None  # as well
    removed_models: tuple[str, ...] = ()
    removed_keys: tuple[str, ...] = ()
    removed_tenants: tuple[str, ...] = ()
