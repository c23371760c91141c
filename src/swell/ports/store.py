"""The store: keys, the usage ledger, processes and their runs, spool positions, decisions, alerts and the audit log.

Contract for every implementation, checked by `swell.testing.store_suite`:

- Synchronous. One thread at a time calls it (the server's writer thread); which thread does not matter.
- Every method is one transaction: when it returns, the change survives a power cut; when it raises, nothing changed.
- Bounded: a locked database is waited for `BUSY_TIMEOUT_SECONDS` at most, then AtCapacity is raised; so it is for a
  full disk.
- Any other failure is a StateError whose sentence says what to do; the vendor's error is its `__cause__`.
- Administrative changes take the audit entry that explains them and store both or neither.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from swell.errors import UserError
from swell.state.alerts import Alert, AlertDelivery, AlertRecord
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.overrides import BudgetOverride
from swell.state.posted_rates import PostedRate
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
from swell.state.replica_runs import ReplicaRun
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

BUSY_TIMEOUT_SECONDS = 5.0
MAX_LISTED = 10_000  # rows one listing returns at most
MAX_GROUPS = 100_000  # sums one grouped read returns at most
MAX_RUNS = 100_000  # lives of replicas one read returns at most


def require_few_groups(count: int) -> None:
    """Raise UserError where a grouped read found more than MAX_GROUPS."""
    if count > MAX_GROUPS:
        raise UserError(
            f"there are more than {MAX_GROUPS:,} groups; ask for a shorter period, fewer groups, or one tenant or model"
        )


def require_few_runs(count: int) -> None:
    """Raise UserError where a read of replicas' lives found more than MAX_RUNS."""
    if count > MAX_RUNS:
        raise UserError(f"there are more than {MAX_RUNS:,} lives of replicas; ask for a shorter period")


class KeyStore(Protocol):
    """API keys. The methods that change a key return it as it is now, or None where no live key has that id."""

    def insert_key(self, key: KeyRecord, audit: AuditEntry) -> None:
        """Add a key. Raises StateError where the id exists."""

    def get_key(self, key_id: str) -> KeyRecord | None:
        """The key, revoked and expired ones included."""

    def list_keys(self) -> list[KeyRecord]:
        """All keys, oldest first, revoked and expired ones included."""

    def rotate_key(
        self, key_id: str, digest: bytes, previous_expires_at_unix: float, audit: AuditEntry
    ) -> KeyRecord | None:
        """Make `digest` the key's current one; the one it replaces works until `previous_expires_at_unix`.

        At most two secrets are live: rotating again during a rotation ends the oldest at once.
        """

    def expire_key(self, key_id: str, expires_at_unix: float | None, audit: AuditEntry) -> KeyRecord | None:
        """Set when the key ends; None for never."""

    def revoke_key(self, key_id: str, revoked_at_unix: float, audit: AuditEntry) -> KeyRecord | None:
        """End the key for good."""


class UsageReads(Protocol):
    """What is asked of the usage ledger for reports."""

    def list_usage(self, where: UsageFilter, limit: int) -> list[UsageRecord]:
        """The newest `limit` (at most MAX_LISTED) requests that match, newest first."""

    def total_usage(self, where: UsageFilter) -> list[UsageTotal]:
        """Sums by status; a status without requests is left out."""

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        """Sums by every combination of `by`, and of `bucket` where given, in the order of their values.

        Grouping by nothing gives one sum, or none where nothing matches. A request of which it is not known when it
        arrived (it was said to be sent, and nothing else) is in none. Buckets are hours and days of UTC; whoever wants
        months, or the days of another zone, adds up hours, or asks once for each of them with its bounds in `where`.
        Raises UserError where there would be more than MAX_GROUPS.
        """

    def usage_span(self) -> tuple[int, int] | None:
        """When the first and the last request arrived, Unix milliseconds; None where there is none."""


class UsageReader(UsageReads, Protocol):
    """A second way to the ledger, as of the last commit: nobody who uses the store waits for what is read here.

    One thread at a time reads, which may be another than the store's. Reads may take long; Postgres ends them after ten
    minutes.
    """

    def interrupt(self) -> None:
        """From any thread: what is being read ends with AtCapacity. Where nothing is, nothing happens."""

    def close(self) -> None:
        """Let go of it, when nothing is being read; twice is fine."""


class SpoolStore(Protocol):
    """What a reader of spools enters into the ledger, exactly once by request id.

    Applying is order-free and idempotent: what was said first about a request's identity and about its outcome
    stands, so replays and duplicates change nothing and a settlement may arrive before its reservation. It is cheap
    when request ids rise with time (neighbouring rows share pages), and merely correct when they do not.
    """

    def apply_usage(self, changes: Iterable[UsageChange], position: SpoolPosition) -> None:
        """Enter a batch and the new read position of its spool, together."""

    def finalise_spool(self, spool: str, *, damaged: bool) -> FinalisedSpool:
        """Close a dead worker's spool after all of it was applied.

        Open requests that were sent stay `reserved`, at their bound; unsent ones become `void`, unless part of the
        spool was `damaged`: then a lost record may have said that they were sent, and they stay `reserved` too.
        """

    def spool_position(self, spool: str) -> SpoolPosition | None:
        """How far a spool was applied; None if never."""

    def forget_spools(self, existing: Sequence[str], gateway: str = "") -> None:
        """Drop the positions of all spools of that gateway that are not among `existing`."""


class UsageStore(UsageReads, SpoolStore, Protocol):
    """The usage ledger."""

    def gateway_spools(self, *, given_up: bool = False) -> dict[str, str]:
        """The gateway of every spool that has a position and lies on another machine; those given up, or the others."""

    def give_up_spools(self, gateway: str) -> None:
        """Its workers count as ended, until something of a spool is applied again."""

    def recent_use(
        self, since_unix_ms: int, spool: str | None = None, *, without: Collection[str] = ()
    ) -> list[SpoolUse]:
        """What the requests that arrived at or after `since_unix_ms` used, by key; of one spool, or of all but some.

        Unlike a listing it has no bound of rows: it is summed in the store. Void requests are left out.
        """

    def roll_usage(self, now_unix_ms: int) -> bool:
        """Prepare a little more for `group_usage` to be quick about; whether there was anything to do. Call it now and
        then until there is not. Answers are the same with it and without."""

    def reader(self) -> UsageReader | None:
        """A second way to the ledger, not opened before it is used; None where there is none. Whoever reads the store
        itself keeps others from it meanwhile, and asks for little at a time."""


class BudgetStore(Protocol):
    """What of each budget is spent, and what of it workers may spend. A limit's row begins with what the ledger has."""

    def open_budgets(self, limits: Sequence[BudgetLimit]) -> list[BudgetSpend]:
        """What is spent of each limit: what the ledger holds of its period, bounds included, beyond what leases cover.

        Never less than it was.
        """

    def put_leases(self, leases: Sequence[BudgetLease]) -> None:
        """Set what workers were granted, together; nothing granted removes the entry."""

    def list_leases(self) -> list[BudgetLease]:
        """Every lease, by limit and incarnation."""

    def settle_leases(self, incarnation: str) -> list[BudgetSpend]:
        """End the leases of a worker whose spool is finished: it spent what the ledger says, at most its grant.

        Returns what is spent now of the limits that it held. Settling twice changes nothing.
        """

    def hourly_spend(self, limit: BudgetLimit, first_unix_ms: int, hours: int) -> list[int]:
        """What the ledger charged the limit's scope and model in each of so many hours, whatever the limit's period.

        The first hour begins at `first_unix_ms`. Bounds count. It reads every request of these hours: ask for few.
        """

    def forget_budgets(self, ended_before_unix_ms: int, sooner: Mapping[str, int] | None = None) -> None:
        """Drop limits whose period ended before, unless something of them is leased.

        `sooner` has other moments for the limits of some budgets, by `budget_id`.
        """


class OverrideStore(Protocol):
    """Raises of budgets for a while. They are kept for good, as what was decided about money."""

    def add_override(self, override: BudgetOverride, audit: AuditEntry) -> None:
        """Add a raise. Raises StateError where the id exists."""

    def end_override(self, override_id: str, at_unix: float, audit: AuditEntry) -> BudgetOverride | None:
        """End a raise before its time; as it is now, or None where no raise of that id still holds."""

    def list_overrides(self, limit: int) -> list[BudgetOverride]:
        """The newest `limit` (at most MAX_LISTED) raises, newest first, those that are over included."""

    def overrides_in_force(self, at_unix: float) -> Sequence[BudgetOverride]:
        """Raises that were not ended and are not over at `at_unix`, oldest first."""


class AlertStore(Protocol):
    """Alerts, each with what became of it at every sink that it was for."""

    def add_alerts(self, alerts: Sequence[AlertRecord]) -> list[AlertRecord]:
        """Add alerts with their deliveries, together, and return those that were new.

        One is not new where its limit has that threshold already; then the first stays as it is. Raises StateError
        where another alert has the id.
        """

    def fired(self, limit_names: Collection[str]) -> dict[str, set[str]]:
        """The thresholds that were alerted about, by limit; a limit without any is left out."""

    def waiting_deliveries(self) -> list[tuple[Alert, AlertDelivery]]:
        """Every delivery that is neither delivered nor given up, oldest alert first."""

    def record_deliveries(self, deliveries: Sequence[AlertDelivery]) -> None:
        """Replace what is known of these deliveries, together. Ones that were forgotten stay so."""

    def list_alerts(self, limit: int, kind: str | None = None) -> list[AlertRecord]:
        """The newest `limit` (at most MAX_LISTED) alerts (of `kind`) as they were added, newest first."""

    def latest_alerts(self, kind: str) -> list[AlertRecord]:
        """The last that was added of each subject, without its deliveries, in the order in which they were added."""

    def forget_alerts(self, before_unix: float) -> None:
        """Drop alerts from before with their deliveries, except those of limits that are kept: they must not recur."""


class ProcessStore(Protocol):
    """Child processes, so that a restarted server finds what runs."""

    def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        """Store the intents before starting, together; each replaces an entry of the same id."""

    def record_started(self, started: Sequence[StartedProcess]) -> None:
        """Add what started processes are known by, together.

        Raises AlreadyGone if an entry was removed meanwhile; then nothing is added.
        """

    def remove_processes(self, process_ids: Sequence[str]) -> None:
        """Forget processes that are gone, together; removing twice is fine."""

    def list_processes(self) -> list[ProcessRecord]:
        """All entries, oldest first."""


class RunStore(Protocol):
    """Lives of replicas, for what they cost. They are kept for good, as the ledger is."""

    def put_runs(self, runs: Sequence[ReplicaRun]) -> None:
        """Add runs, or replace what is known of them, by replica id and together."""

    def list_runs(
        self, since_unix_ms: int | None = None, until_unix_ms: int | None = None, model: str | None = None
    ) -> list[ReplicaRun]:
        """Runs of which a part lies in [since, until), as far as is known, by their start and id.

        None is without a bound. Raises UserError where there are more than MAX_RUNS.
        """

    def open_runs(self) -> list[ReplicaRun]:
        """Runs without an end, by their start and id. Raises UserError where there are more than MAX_RUNS."""


class RateStore(Protocol):
    """Rates that were posted. They are kept for good, as the ledger is, and none is ever changed."""

    def post_rate(self, rate: PostedRate, audit: AuditEntry) -> PostedRate:
        """Add a rate, unless the model has one from that moment on: then that one stays and is returned."""

    def list_rates(self, model: str | None, limit: int) -> list[PostedRate]:
        """The `limit` (at most MAX_LISTED) rates that begin last, newest first and by model; of one, or of all."""


class DecisionStore(Protocol):
    """The trail of scaling decisions, bounded per model."""

    def put_decisions(self, decisions: Sequence[DecisionRecord], keep: int) -> None:
        """Add decisions in their order, or replace those of the same id where they stand; keep a model's newest."""

    def list_decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        """The newest `limit` (at most MAX_LISTED) decisions, of one model or of all, newest first."""


class Store(
    KeyStore,
    UsageStore,
    BudgetStore,
    OverrideStore,
    AlertStore,
    ProcessStore,
    RunStore,
    RateStore,
    DecisionStore,
    Protocol,
):
    """Everything the server keeps."""

    def append_audit(self, entry: AuditEntry) -> None:
        """Add an act to the audit log, which can only grow."""

    def list_audit(self, limit: int) -> list[AuditEntry]:
        """The newest `limit` (at most MAX_LISTED) acts, newest first."""

    def next_epoch(self) -> int:
        """A number higher than every one returned before, over restarts too; from 1."""

    def mark(self, name: str) -> int | None:
        """The number that `set_mark` has kept under a name."""

    def set_mark(self, name: str, value: int) -> int:
        """Keep a number of 63 bits under a name for good; the one that is kept, which may be an earlier one."""

    def confirm(self) -> None:
        """Return where the store is this process's own at this moment. Raises StoreLost where it was another server's
        since `next_epoch`, StoreInUse while another one has it and AtCapacity where nobody can tell."""

    def close(self) -> None:
        """Let go of the database. Calling it twice is fine."""
