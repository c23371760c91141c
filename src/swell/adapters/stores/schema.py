"""The tables as this version knows them. `migrations/versions` makes a database so; a test compares the two."""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)

HEAD = "0009"  # the newest revision in migrations/versions

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at_unix", Float, nullable=False),
    Column("expires_at_unix", Float),
    Column("previous_digest", LargeBinary),
    Column("previous_expires_at_unix", Float),
    Column("revoked_at_unix", Float),
    Column("limits", Text, nullable=False),  # JSON
    Column("priority", Text, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("request_id", Text, primary_key=True, nullable=False),
    Column("spool", Text, nullable=False),
    Column("reserved_at_unix_ms", Integer),
    Column("key_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("settled_at_unix_ms", Integer),
    Column("status", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("replica_id", Text, nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("first_token_ms", Integer, nullable=False),
    # Nano-dollars per million tokens, and nano-dollars.
    Column("prompt_rate", Integer, nullable=False, server_default=text("0")),
    Column("completion_rate", Integer, nullable=False, server_default=text("0")),
    Column("charge_usd_nanos", Integer, nullable=False, server_default=text("0")),
    sqlite_with_rowid=False,
)
arrived_at = func.coalesce(usage.c.reserved_at_unix_ms, usage.c.settled_at_unix_ms)
Index("usage_arrived", arrived_at)
Index("usage_open", usage.c.spool, sqlite_where=text("settled_at_unix_ms IS NULL AND status = 'reserved'"))

# Of hours before the counter "rolled_until_unix_ms": sums of all their requests, but for those in `stale_hours`.
usage_hours = Table(
    "usage_hours",
    metadata,
    Column("start_unix_ms", Integer, primary_key=True, nullable=False),
    Column("key_id", Text, primary_key=True, nullable=False),
    Column("tenant", Text, primary_key=True, nullable=False),
    Column("model", Text, primary_key=True, nullable=False),
    Column("endpoint", Text, primary_key=True, nullable=False),
    Column("status", Text, primary_key=True, nullable=False),
    Column("prompt_rate", Integer, primary_key=True, nullable=False),
    Column("completion_rate", Integer, primary_key=True, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("charge_usd_nanos", Integer, nullable=False),
    sqlite_with_rowid=False,
)

stale_hours = Table(
    "stale_hours",
    metadata,
    Column("start_unix_ms", Integer, primary_key=True, nullable=False),
)

spool_positions = Table(
    "spool_positions",
    metadata,
    Column("spool", Text, primary_key=True),
    Column("segment", Integer, nullable=False),
    Column("byte_offset", Integer, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("limit_name", Text, primary_key=True, nullable=False),
    Column("scope", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("start_unix_ms", Integer, nullable=False),
    Column("end_unix_ms", Integer),
    Column("spent_usd_nanos", Integer, nullable=False),  # by workers that have ended
)

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("limit_name", Text, primary_key=True, nullable=False),
    Column("incarnation", Text, primary_key=True, nullable=False),
    Column("granted_usd_nanos", Integer, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("entry", Integer, primary_key=True),
    Column("alert_id", Text, nullable=False, unique=True),
    Column("limit_name", Text, nullable=False),
    Column("threshold", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("at_unix", Float, nullable=False),
    Column("values", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)
Index("alerts_once", alerts.c.limit_name, alerts.c.threshold, unique=True)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", Text, primary_key=True, nullable=False),
    Column("sink", Text, primary_key=True, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_unix", Float, nullable=False),
    Column("delivered_at_unix", Float),
    Column("given_up", Text),
    Column("problem", Text, nullable=False),
)
Index(
    "alert_deliveries_waiting",
    alert_deliveries.c.alert_id,
    sqlite_where=text("delivered_at_unix IS NULL AND given_up IS NULL"),
)

processes = Table(
    "processes",
    metadata,
    Column("process_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("marker", Text, nullable=False),
    Column("recorded_at_unix", Float, nullable=False),
    Column("pid", Integer),
    Column("start_time", Float),
    Column("detail", Text, nullable=False),  # JSON
)

replica_runs = Table(
    "replica_runs",
    metadata,
    Column("replica_id", Text, primary_key=True, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("market", Text, nullable=False),
    Column("accelerator", Text, nullable=False),
    Column("usd_nanos_per_hour", Integer, nullable=False),
    Column("started_unix_ms", Integer, nullable=False),
    Column("ready_unix_ms", Integer),
    Column("ended_unix_ms", Integer),
    Column("seen_unix_ms", Integer, nullable=False),
)
Index("replica_runs_started", replica_runs.c.started_unix_ms, replica_runs.c.replica_id)
Index("replica_runs_open", replica_runs.c.replica_id, sqlite_where=text("ended_unix_ms IS NULL"))

posted_rates = Table(
    "posted_rates",
    metadata,
    Column("model", Text, primary_key=True, nullable=False),
    Column("start_unix_ms", Integer, primary_key=True, nullable=False),
    Column("end_unix_ms", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("prompt_rate", Integer, nullable=False),
    Column("completion_rate", Integer, nullable=False),
    Column("basis", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since_unix_ms", Integer, nullable=False),
    Column("until_unix_ms", Integer, nullable=False),
    Column("starting_usd_nanos", Integer, nullable=False),
    Column("used_usd_nanos", Integer, nullable=False),
    Column("idle_usd_nanos", Integer, nullable=False),
    Column("charge_usd_nanos", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("markup_ppm", Integer, nullable=False),
    Column("carried_usd_nanos", Integer, nullable=False),
    Column("missed_usd_nanos", Integer, nullable=False),
    Column("counted_until_unix_ms", Integer, nullable=False),
    Column("posted_at_unix_ms", Integer, nullable=False),
)
Index("posted_rates_start", posted_rates.c.start_unix_ms, posted_rates.c.model)

audit = Table(
    "audit",
    metadata,
    Column("entry", Integer, primary_key=True),
    Column("at_unix", Float, nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Integer, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("entry", Integer, primary_key=True),
    Column("decision_id", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("at_unix", Float, nullable=False),
    Column("until_unix", Float, nullable=False),
    Column("times", Integer, nullable=False),
    Column("before", Integer, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("is_hold", Boolean, nullable=False),
    Column("binding", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("inputs", Text, nullable=False),  # JSON
    Column("rejected", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)
Index("decisions_of_model", decisions.c.model, decisions.c.entry)
