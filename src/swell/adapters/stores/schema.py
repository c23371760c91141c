"""The tables as this version knows them. `migrations/versions` makes a database so; a test compares the two."""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    LargeBinary,
    MetaData,
    Table,
    func,
    text,
)

from swell.adapters.stores.columns import Whole, Words

HEAD = "0011"  # the newest revision in migrations/versions

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("key_id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("tenant", Words, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at_unix", Float, nullable=False),
    Column("expires_at_unix", Float),
    Column("previous_digest", LargeBinary),
    Column("previous_expires_at_unix", Float),
    Column("revoked_at_unix", Float),
    Column("limits", Words, nullable=False),  # JSON
    Column("priority", Words, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("request_id", Words, primary_key=True, nullable=False),
    Column("spool", Words, nullable=False),
    Column("reserved_at_unix_ms", Whole),
    Column("key_id", Words, nullable=False),
    Column("tenant", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("endpoint", Words, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("settled_at_unix_ms", Whole),
    Column("status", Words, nullable=False),
    Column("prompt_tokens", Whole, nullable=False),
    Column("completion_tokens", Whole, nullable=False),
    Column("replica_id", Words, nullable=False),
    Column("http_status", Whole, nullable=False),
    Column("duration_ms", Whole, nullable=False),
    Column("first_token_ms", Whole, nullable=False),
    # Nano-dollars per million tokens, and nano-dollars.
    Column("prompt_rate", Whole, nullable=False, server_default=text("0")),
    Column("completion_rate", Whole, nullable=False, server_default=text("0")),
    Column("charge_usd_nanos", Whole, nullable=False, server_default=text("0")),
    Column("cached_tokens", Whole, nullable=False, server_default=text("0")),  # of the prompt tokens
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (request_id)",  # by the month in it: `partitions`
)
arrived_at = func.coalesce(usage.c.reserved_at_unix_ms, usage.c.settled_at_unix_ms)
is_open = text("settled_at_unix_ms IS NULL AND status = 'reserved'")
# In the order in which the newest are listed, requests last of which it is not known when they arrived. SQLite cannot
# say so, and need not: there NULL is less than everything.
Index("usage_arrived", arrived_at).ddl_if(dialect="sqlite")
Index("usage_arrived", arrived_at.desc().nulls_last()).ddl_if(dialect="postgresql")
Index("usage_open", usage.c.spool, sqlite_where=is_open, postgresql_where=is_open)


def _sums(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("start_unix_ms", Whole, primary_key=True, nullable=False),
        Column("key_id", Words, primary_key=True, nullable=False),
        Column("tenant", Words, primary_key=True, nullable=False),
        Column("model", Words, primary_key=True, nullable=False),
        Column("endpoint", Words, primary_key=True, nullable=False),
        Column("status", Words, primary_key=True, nullable=False),
        Column("prompt_rate", Whole, primary_key=True, nullable=False),
        Column("completion_rate", Whole, primary_key=True, nullable=False),
        Column("requests", Whole, nullable=False),
        Column("prompt_tokens", Whole, nullable=False),
        Column("completion_tokens", Whole, nullable=False),
        Column("charge_usd_nanos", Whole, nullable=False),
        Column("cached_tokens", Whole, nullable=False, server_default=text("0")),
        sqlite_with_rowid=False,
    )


# Of hours before the counter "rolled_until_unix_ms": sums of all their requests, but for those in `stale_hours`.
usage_hours = _sums("usage_hours")
# Of hours before the counter "days_until_unix_ms": sums of all of a day's, but where one is stale.
usage_days = _sums("usage_days")

stale_hours = Table(
    "stale_hours",
    metadata,
    Column("start_unix_ms", Whole, primary_key=True, nullable=False),
)

spool_positions = Table(
    "spool_positions",
    metadata,
    Column("spool", Words, primary_key=True),
    Column("segment", Whole, nullable=False),
    Column("byte_offset", Whole, nullable=False),
    Column("gateway", Words, nullable=False, server_default=text("''")),  # on whose machine it lies; '': the server's
    Column("given_up", Whole, nullable=False, server_default=text("0")),  # its gateway was silent for too long
)

budgets = Table(
    "budgets",
    metadata,
    Column("limit_name", Words, primary_key=True, nullable=False),
    Column("scope", Words, nullable=False),
    Column("owner", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("start_unix_ms", Whole, nullable=False),
    Column("end_unix_ms", Whole),
    Column("spent_usd_nanos", Whole, nullable=False),  # by workers that have ended
)

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("limit_name", Words, primary_key=True, nullable=False),
    Column("incarnation", Words, primary_key=True, nullable=False),
    Column("granted_usd_nanos", Whole, nullable=False),
)

budget_overrides = Table(
    "budget_overrides",
    metadata,
    Column("entry", Whole, primary_key=True),
    Column("override_id", Words, nullable=False, unique=True),
    Column("budget_id", Words, nullable=False),
    Column("scope", Words, nullable=False),
    Column("owner", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("period", Words, nullable=False),
    Column("by_usd_nanos", Whole, nullable=False),
    Column("reason", Words, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at_unix", Float, nullable=False),
    Column("until_unix", Float, nullable=False),
    Column("ended_at_unix", Float),
    sqlite_autoincrement=True,
)
Index("budget_overrides_until", budget_overrides.c.until_unix)

alerts = Table(
    "alerts",
    metadata,
    Column("entry", Whole, primary_key=True),
    Column("alert_id", Words, nullable=False, unique=True),
    Column("limit_name", Words, nullable=False),
    Column("threshold", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("severity", Words, nullable=False),
    Column("title", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("at_unix", Float, nullable=False),
    Column("values", Words, nullable=False),  # JSON
    sqlite_autoincrement=True,
)
Index("alerts_once", alerts.c.limit_name, alerts.c.threshold, unique=True)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", Words, primary_key=True, nullable=False),
    Column("sink", Words, primary_key=True, nullable=False),
    Column("attempts", Whole, nullable=False),
    Column("next_try_unix", Float, nullable=False),
    Column("delivered_at_unix", Float),
    Column("given_up", Words),
    Column("problem", Words, nullable=False),
)
is_waiting = text("delivered_at_unix IS NULL AND given_up IS NULL")
Index(
    "alert_deliveries_waiting",
    alert_deliveries.c.alert_id,
    sqlite_where=is_waiting,
    postgresql_where=is_waiting,
)

processes = Table(
    "processes",
    metadata,
    Column("process_id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("marker", Words, nullable=False),
    Column("recorded_at_unix", Float, nullable=False),
    Column("pid", Whole),
    Column("start_time", Float),
    Column("detail", Words, nullable=False),  # JSON
)

replica_runs = Table(
    "replica_runs",
    metadata,
    Column("replica_id", Words, primary_key=True, nullable=False),
    Column("model", Words, nullable=False),
    Column("provider", Words, nullable=False),
    Column("market", Words, nullable=False),
    Column("accelerator", Words, nullable=False),
    Column("usd_nanos_per_hour", Whole, nullable=False),
    Column("started_unix_ms", Whole, nullable=False),
    Column("ready_unix_ms", Whole),
    Column("ended_unix_ms", Whole),
    Column("seen_unix_ms", Whole, nullable=False),
)
Index("replica_runs_started", replica_runs.c.started_unix_ms, replica_runs.c.replica_id)
has_no_end = text("ended_unix_ms IS NULL")
Index("replica_runs_open", replica_runs.c.replica_id, sqlite_where=has_no_end, postgresql_where=has_no_end)

posted_rates = Table(
    "posted_rates",
    metadata,
    Column("model", Words, primary_key=True, nullable=False),
    Column("start_unix_ms", Whole, primary_key=True, nullable=False),
    Column("end_unix_ms", Whole, nullable=False),
    Column("label", Words, nullable=False),
    Column("prompt_rate", Whole, nullable=False),
    Column("completion_rate", Whole, nullable=False),
    Column("basis", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("since_unix_ms", Whole, nullable=False),
    Column("until_unix_ms", Whole, nullable=False),
    Column("starting_usd_nanos", Whole, nullable=False),
    Column("used_usd_nanos", Whole, nullable=False),
    Column("idle_usd_nanos", Whole, nullable=False),
    Column("charge_usd_nanos", Whole, nullable=False),
    Column("requests", Whole, nullable=False),
    Column("prompt_tokens", Whole, nullable=False),
    Column("completion_tokens", Whole, nullable=False),
    Column("markup_ppm", Whole, nullable=False),
    Column("carried_usd_nanos", Whole, nullable=False),
    Column("missed_usd_nanos", Whole, nullable=False),
    Column("counted_until_unix_ms", Whole, nullable=False),
    Column("posted_at_unix_ms", Whole, nullable=False),
)
Index("posted_rates_start", posted_rates.c.start_unix_ms, posted_rates.c.model)

audit = Table(
    "audit",
    metadata,
    Column("entry", Whole, primary_key=True),
    Column("at_unix", Float, nullable=False),
    Column("principal", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("detail", Words, nullable=False),  # JSON
    sqlite_autoincrement=True,
)

counters = Table(
    "counters",
    metadata,
    Column("name", Words, primary_key=True),
    Column("value", Whole, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("entry", Whole, primary_key=True),
    Column("decision_id", Words, nullable=False, unique=True),
    Column("model", Words, nullable=False),
    Column("at_unix", Float, nullable=False),
    Column("until_unix", Float, nullable=False),
    Column("times", Whole, nullable=False),
    Column("before", Whole, nullable=False),
    Column("replicas", Whole, nullable=False),
    Column("is_hold", Boolean, nullable=False),
    Column("binding", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("inputs", Words, nullable=False),  # JSON
    Column("rejected", Words, nullable=False),  # JSON
    sqlite_autoincrement=True,
)
Index("decisions_of_model", decisions.c.model, decisions.c.entry)
