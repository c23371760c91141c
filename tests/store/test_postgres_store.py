"""What is particular to Postgres: the schema, months as partitions, who may be in it, what its errors mean."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from openers import epochs_of_two
from sqlalchemy import create_engine, insert, inspect

from swell.adapters.stores import migrate, postgres_connection, schema
from swell.adapters.stores.partitions import OTHER
from swell.adapters.stores.postgres import PostgresStore, open_postgres
from swell.adapters.stores.postgres_location import locate
from swell.adapters.stores.postgres_watch import PostgresWatch
from swell.errors import AtCapacity, StateError, StoreInUse, StoreLost, SwellError
from swell.state.records import SpoolPosition, UsageFilter
from swell.testing.postgres_server import PASSWORD, USER, PostgresServer
from swell.testing.store_suite import audit_entry, key_record, usage_change

pytestmark = pytest.mark.services

Open = Callable[[str], PostgresStore]
NOVEMBER_2026_MS = 1_795_000_000_000
HERE = SpoolPosition("spool1", 1, 1)


@pytest.fixture
def store(database: str, open_database: Open) -> PostgresStore:
    return open_database(database)


def rows_by_table(postgres: PostgresServer, database: str) -> dict[str, list[str]]:
    """Ids of requests by the partition that they are in."""
    found: dict[str, list[str]] = {}
    for table, name in postgres.run("SELECT tableoid::regclass::text, request_id FROM usage ORDER BY 2", database):
        found.setdefault(table, []).append(name)
    return found


def test_everything_is_there_after_reopening(database: str, open_database: Open) -> None:
    store = open_database(database)
    store.insert_key(key_record(), audit_entry())
    assert store.next_epoch() == 1
    store.close()
    again = open_database(database)
    assert again.get_key("abc") == key_record()
    assert again.next_epoch() == 2


def test_migrating_makes_the_tables_that_the_code_knows(postgres: PostgresServer, database: str) -> None:
    fresh = postgres.new_database()
    engine = create_engine(postgres.url(fresh).replace("postgresql:", "postgresql+psycopg:"))
    schema.metadata.create_all(engine)
    engine.dispose()
    assert _describe(postgres, fresh) == _describe(postgres, database)
    postgres.drop(fresh)


def test_the_months_of_a_ledger_from_before_cached_tokens_have_the_column_too(
    postgres: PostgresServer, open_database: Open
) -> None:
    old = postgres.new_database()
    engine = create_engine(postgres.url(old).replace("postgresql:", "postgresql+psycopg:"))
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        connection.exec_driver_sql(
            "CREATE TABLE usage_202611 PARTITION OF usage FOR VALUES FROM ('req-202611-') TO ('req-202612-')"
        )
        row = usage_change("req-202611-old", "pair")._asdict()
        del row["cached_tokens"]
        connection.execute(insert(schema.usage), row)
    engine.dispose()
    store = open_database(old)
    store.apply_usage([usage_change(f"req-2026{month}-new", "pair") for month in (11, 12)], HERE)
    found = {row.request_id: row.cached_tokens for row in store.list_usage(UsageFilter(), 9)}
    assert found == {"req-202611-old": 0, "req-202611-new": 3, "req-202612-new": 3}
    store.close()
    postgres.drop(old)


def _describe(postgres: PostgresServer, database: str) -> dict[str, object]:
    tables = sorted(schema.metadata.tables)
    columns = postgres.run(
        "SELECT relname::text, attname::text, format_type(atttypid, atttypmod), attnotnull, collname::text"
        " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_collation k ON k.oid = attcollation"
        " WHERE attnum > 0 AND relname::text = ANY(%(tables)s) ORDER BY 1, 2",
        database,
        tables=tables,
    )
    indexes = postgres.run(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indrelid"
        " WHERE relname::text = ANY(%(tables)s) ORDER BY 1",
        database,
        tables=tables,
    )
    return {"columns": columns, "indexes": indexes}


def test_money_times_and_tokens_have_64_bits_and_text_is_ordered_by_its_bytes(
    postgres: PostgresServer, database: str
) -> None:
    engine = create_engine(postgres.url(database).replace("postgresql:", "postgresql+psycopg:"))
    inspector = inspect(engine)
    types = {str(column["type"]) for table in schema.metadata.tables for column in inspector.get_columns(table)}
    engine.dispose()
    assert types == {"BIGINT", 'TEXT COLLATE "C"', "BOOLEAN", "BYTEA", "DOUBLE PRECISION"}


def test_a_newer_schema_is_refused(postgres: PostgresServer, database: str, open_database: Open) -> None:
    postgres.run("UPDATE alembic_version SET version_num = '9999'", database)
    with pytest.raises(StateError, match="newer Swell"):
        open_database(database)
    assert postgres.session_pids(database) == [], "a store that could not be opened keeps no connection"


@pytest.mark.parametrize("act", ["UPDATE audit SET principal = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_audit_log_can_only_grow(store: PostgresStore, act: str) -> None:
    store.append_audit(audit_entry())
    with pytest.raises(StateError, match="can only grow"), store._database.writing() as connection:
        connection.exec_driver_sql(act)
    assert store.list_audit(10) == [audit_entry()]


def test_requests_lie_in_the_partition_of_their_month(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    store.roll_usage(NOVEMBER_2026_MS)
    names = ("req-202611-aa-00000001", "req-202612-aa-00000001", "req-202712-aa-00000001", "req-aa-1", "x")
    store.apply_usage([usage_change(name, "settled") for name in names], HERE)
    expected = {"usage_202611": [names[0]], "usage_202612": [names[1]], OTHER: list(names[2:])}
    assert rows_by_table(postgres, database) == expected
    store.apply_usage([usage_change(name, "pair") for name in names], HERE)
    assert rows_by_table(postgres, database) == expected, "a settlement may come before its reservation"
    assert store.total_usage(UsageFilter(key_id="key1"))[0].requests == len(names)


def test_partitions_are_made_ahead_and_take_what_had_to_wait_for_them(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    def months() -> set[str]:
        listed = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass"
        return {row[0] for row in postgres.run(listed, database)}

    at_first = months()
    assert len(at_first) == 4, "this month and the two after it, by the database's clock, and one for all others"
    early = ["req-203001-aa-00000001", "req-203004-aa-00000001"]
    store.apply_usage([usage_change(name, "pair") for name in early], HERE)
    assert rows_by_table(postgres, database) == {OTHER: early}
    store.roll_usage(1_893_456_000_000)  # 1 January 2030
    assert months() - at_first == {"usage_203001", "usage_203002", "usage_203003"}
    assert rows_by_table(postgres, database) == {"usage_203001": early[:1], OTHER: early[1:]}
    assert store.total_usage(UsageFilter())[0].requests == 2
    for wrong in (-1, 0, 10**15, 2**62):
        store.roll_usage(wrong)
    assert len(months()) == 7, "a clock that is plainly wrong makes nothing"


def test_a_backup_that_locks_every_table_delays_partitions_and_nothing_else(
    store: PostgresStore, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    postgres.end_sessions(database)  # the next connection waits for less long
    january_2030_ms, name = 1_893_456_000_000, "req-203001-aa-00000001"
    with postgres.admin(database) as backup, backup.transaction():
        backup.execute("LOCK TABLE usage IN ACCESS SHARE MODE")
        store.apply_usage([usage_change(name, "pair")], HERE)
        assert store.roll_usage(january_2030_ms)
        assert rows_by_table(postgres, database) == {OTHER: [name]}
    store.roll_usage(january_2030_ms)
    assert rows_by_table(postgres, database) == {"usage_203001": [name]}


def test_a_month_begins_and_ends_where_it_should(store: PostgresStore, postgres: PostgresServer, database: str) -> None:
    store.roll_usage(1_798_761_599_000)  # the last second of 2026
    ids = [f"req-{month}-{tail}" for month in ("202612", "202701") for tail in ("", "00", "ffffffffffff-ffffffff")]
    store.apply_usage([usage_change(name, "pair") for name in ids], HERE)
    assert rows_by_table(postgres, database) == {"usage_202612": ids[:3], "usage_202701": ids[3:]}


def test_a_batch_may_name_a_request_again_and_again(store: PostgresStore) -> None:
    kinds = ("settled", "queued", "sent", "settled", "pair", "queued")
    store.apply_usage([usage_change(name, kind) for kind in kinds for name in ("a", "b", "a")], HERE)
    assert [(row.request_id, row.prompt_tokens, row.key_id) for row in store.list_usage(UsageFilter(), 10)] == [
        ("b", 7, "key1"),
        ("a", 7, "key1"),
    ]


def test_one_server_or_command_at_a_time(database: str, open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    first = open_database(database)
    with pytest.raises(StateError, match=r"is in use by swell \S+ \d+ \(this machine\).*one server or command"):
        open_database(database)
    assert first.next_epoch() == 1
    first.close()
    assert open_database(database).next_epoch() == 2


def test_the_lock_is_waited_for_while_another_process_ends(database: str, open_database: Open) -> None:
    first = open_database(database)
    opened: list[int] = []
    thread = threading.Thread(target=lambda: opened.append(open_database(database).next_epoch()))
    thread.start()
    first.close()
    thread.join(20)
    assert opened == [1]


def test_a_lock_ends_with_its_process(postgres: PostgresServer, database: str, open_database: Open) -> None:
    script = (
        "import os; from swell.adapters.stores.postgres import open_postgres; "
        "from swell.adapters.stores.postgres_location import locate; "
        f"store = open_postgres(locate({postgres.url(database)!r})); store.next_epoch(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == -9
    assert open_database(database).next_epoch() == 2


def test_two_processes_may_open_a_new_store_at_once(postgres: PostgresServer) -> None:
    fresh = postgres.new_database()
    said = epochs_of_two(
        "from swell.adapters.stores.postgres import open_postgres; "
        "from swell.adapters.stores.postgres_location import locate; "
        f"s = open_postgres(locate({postgres.url(fresh)!r}))"
    )
    assert said == ["1", "2"]
    postgres.drop(fresh)


def test_a_server_whose_store_another_one_has_used_works_no_more(
    postgres: PostgresServer, database: str, open_database: Open
) -> None:
    old = open_database(database)
    assert old.next_epoch() == 1
    postgres.end_sessions(database)
    new = open_database(database)
    assert new.next_epoch() == 2
    new.close()
    for _ in range(2):
        with pytest.raises(StateError, match="another server has used the store"):
            old.append_audit(audit_entry())
    assert open_database(database).list_audit(10) == []


def test_another_writer_is_waited_for_with_a_bound_and_reading_goes_on(
    postgres: PostgresServer, database: str, open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    store = open_database(database)
    with postgres.admin(database) as other, other.transaction():
        other.execute("UPDATE counters SET value = value + 1")  # as every transaction begins that writes
        with pytest.raises(AtCapacity, match="locked by another process") as caught:
            store.next_epoch()
        assert caught.value.retry_after_seconds > 0
        assert store.list_keys() == []
    assert store.next_epoch() == 1


def test_the_store_may_be_used_from_another_thread(store: PostgresStore) -> None:
    epochs: list[int] = []
    thread = threading.Thread(target=lambda: epochs.append(store.next_epoch()))
    thread.start()
    thread.join()
    assert [*epochs, store.next_epoch()] == [1, 2]


def test_a_password_lets_in_and_is_never_told(postgres: PostgresServer, database: str) -> None:
    url = postgres.url_of_port(database)
    right, wrong = locate(url, PASSWORD), locate(url, "another-one")
    open_postgres(right).close()
    with pytest.raises(StateError, match=r"lets nobody in.*password authentication failed") as caught:
        open_postgres(wrong)
    told = f"{right!r} {wrong!r} {caught.value!r} {caught.value.__cause__!r}"
    assert PASSWORD not in told
    assert "another-one" not in told
    assert f"{USER}@127.0.0.1" in str(caught.value)


def test_a_server_that_is_not_there_and_a_database_that_is_not_there(postgres: PostgresServer, free_port: int) -> None:
    with pytest.raises(AtCapacity, match=r"does not answer.*start it") as nobody:
        open_postgres(locate(f"postgresql://{USER}@127.0.0.1:{free_port}/swell"))
    assert isinstance(nobody.value.__cause__, psycopg.OperationalError)
    with pytest.raises(StateError, match=r'database "nowhere" does not exist'):
        open_postgres(locate(postgres.url("nowhere")))


def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(StateError, match=r"keeps text as LATIN1.*ENCODING 'UTF8'"):
        open_postgres(locate(postgres.url("latin")))
    postgres.drop("latin")


def test_a_user_without_rights_is_told_what_is_missing(postgres: PostgresServer, database: str) -> None:
    postgres.run("CREATE ROLE guest LOGIN")
    url = postgres.url(database).replace(f"user={USER}", "user=guest")
    with pytest.raises(StateError, match=r"does not allow it: permission denied"):
        open_postgres(locate(url))
    postgres.run("DROP ROLE guest")


def test_errors_do_not_carry_what_was_stored(store: PostgresStore) -> None:
    store.insert_key(key_record(digest=b"marker-4f1d"), audit_entry())
    with pytest.raises(SwellError, match="already has") as caught:
        store.insert_key(key_record(digest=b"marker-4f1d"), audit_entry())
    assert "marker-4f1d" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_migrated_store_opens_without_alembic(postgres: PostgresServer, database: str) -> None:
    script = (
        "import sys; from swell.adapters.stores.postgres import open_postgres; "
        "from swell.adapters.stores.postgres_location import locate; "
        f"open_postgres(locate({postgres.url(database)!r})).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_whether_a_store_is_still_ones_own_is_told_apart(
    postgres: PostgresServer, database: str, open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "BUSY_TIMEOUT_SECONDS", 0.1)
    beginning = open_database(database)
    postgres.end_sessions(database)
    leader = open_database(database)
    leader.next_epoch()
    with pytest.raises(StoreLost, match="another server has used the store"):
        beginning.confirm()
    beginning.close()
    leader.confirm()
    postgres.end_sessions(database)
    leader.confirm()
    postgres.end_sessions(database)
    command = open_database(database)
    with pytest.raises(StoreInUse, match="is in use by swell"):
        leader.confirm()
    command.close()
    leader.confirm()
    postgres.end_sessions(database)
    other = open_database(database)
    other.next_epoch()
    for _ in range(2):
        with pytest.raises(StoreLost, match="another server has used the store"):
            leader.confirm()
    other.close()
    with pytest.raises(StoreLost, match="another server has used the store"):
        leader.append_audit(audit_entry("late"))


async def test_one_that_watches_is_told_who_has_it_and_its_marks_and_keeps_nobody_waiting(
    postgres: PostgresServer, open_database: Open
) -> None:
    fresh = postgres.new_database()
    watch = PostgresWatch(locate(postgres.url(fresh)))
    assert await watch.look() == ("", {}), "a database without tables"
    store = open_database(fresh)
    store.set_mark("whose", -(2**63))
    leader, marks = await watch.look()
    assert re.fullmatch(rf"swell \S+ {os.getpid()} \(this machine\)", leader)
    assert marks == {"whose": -(2**63)}
    postgres.end_sessions(fresh)
    with pytest.raises(AtCapacity):
        await watch.look()
    assert await watch.look() == ("", {"whose": -(2**63)})
    await watch.close()
    await watch.close()
    store.close()
    postgres.drop(fresh)


def test_postgres_gives_up_a_client_whose_machine_is_gone_within_half_a_minute(
    postgres: PostgresServer, database: str
) -> None:
    store = open_postgres(locate(postgres.url_of_port(database), PASSWORD))
    assert isinstance(store, PostgresStore)
    with closing(store), store._database.reading() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        }
    assert list(shown.values()) == ["10", "5", "3", "25000"], "what the socket has, which Postgres reads back"
