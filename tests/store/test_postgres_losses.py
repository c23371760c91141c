"""Connections that are cut and servers that are killed: what was acknowledged is there, what failed left nothing."""

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from postgres_proxy import CommitCutter, Cut
from swell.adapters.stores import postgres_database
from swell.adapters.stores.postgres import PostgresStore, open_postgres
from swell.adapters.stores.postgres_location import locate
from swell.errors import AtCapacity, StateError
from swell.ports.store import Store
from swell.state.budgets import BudgetLease, BudgetLimit
from swell.state.records import SpoolPosition, UsageFilter
from swell.testing.postgres_server import PASSWORD, PostgresServer
from swell.testing.store_suite import audit_entry, usage_change

pytestmark = pytest.mark.services

Open = Callable[[str], PostgresStore]
Result = TypeVar("Result")
UNUSED_PORT = 1
PER_BATCH = 20
MAX_TRIES = 500
RETRY_SECONDS = 0.05
LIMIT = BudgetLimit("budget:tenant:search:*:day:0", "b", "tenant", "search", 10**9, "day", 0, None)


@pytest.fixture
def cutter(postgres: PostgresServer) -> Iterator[CommitCutter]:
    with CommitCutter(postgres.port) as cutter:
        yield cutter


@pytest.fixture
def cut_store(postgres: PostgresServer, database: str, cutter: CommitCutter) -> Iterator[PostgresStore]:
    """A store that is reached through the cutter."""
    url = postgres.url_of_port(database).replace(f":{postgres.port}/", f":{cutter.port}/")
    store = open_postgres(locate(url, PASSWORD))
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def test_a_connection_that_was_lost_while_idle_is_not_noticed(
    postgres: PostgresServer, database: str, open_database: Open
) -> None:
    store = open_database(database)
    assert store.next_epoch() == 1
    for number in range(3):
        assert postgres.end_sessions(database) == 1
        store.append_audit(audit_entry(f"act.{number}"))
    assert len(store.list_audit(10)) == 3
    assert store.next_epoch() == 2


def test_a_transaction_whose_connection_is_lost_changes_nothing_and_the_next_call_works(
    postgres: PostgresServer, database: str, open_database: Open
) -> None:
    store = open_database(database)
    with pytest.raises(AtCapacity, match="was lost in the middle of a transaction, which changed nothing"):
        _lose_in_the_middle(store, lambda: postgres.end_sessions(database))
    assert store.next_epoch() == 1
    names = {row[0] for row in postgres.run("SELECT name FROM counters", database)}
    assert names & {"epoch", "first", "second"} == {"epoch"}


def _lose_in_the_middle(store: PostgresStore, lose: Callable[[], object]) -> None:
    with store._database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO counters VALUES ('first', 7)")
        lose()
        connection.exec_driver_sql("INSERT INTO counters VALUES ('second', 7)")


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_commit_that_is_not_answered_is_looked_up(
    cut_store: PostgresStore, cutter: CommitCutter, how: Cut, postgres: PostgresServer, database: str
) -> None:
    cutter.cut_next(how)
    if how == "after":
        cut_store.append_audit(audit_entry("kept"))
    else:
        with pytest.raises(AtCapacity, match="was lost"):
            cut_store.append_audit(audit_entry("lost"))
    cut_store.append_audit(audit_entry("next"))
    found = [row[0] for row in postgres.run("SELECT action FROM audit ORDER BY entry", database)]
    assert found == (["kept", "next"] if how == "after" else ["next"])


def test_a_lease_that_was_settled_is_told_though_its_commit_was_not_answered(
    cut_store: PostgresStore, cutter: CommitCutter
) -> None:
    """Told as failed, and found done when tried again, the budget would never learn what the worker spent."""
    cut_store.open_budgets([LIMIT])
    cut_store.put_leases([BudgetLease(LIMIT.name, "w1", 1000)])
    cut_store.apply_usage([usage_change("a", "pair", spool="w1", charge_usd_nanos=300)], SpoolPosition("w1", 1, 1))
    cutter.cut_next("after")
    assert [(spend.limit, spend.spent_usd_nanos) for spend in cut_store.settle_leases("w1")] == [(LIMIT.name, 300)]


def test_a_commit_of_which_nobody_could_tell_ends_the_server_if_it_was_kept(
    postgres: PostgresServer, database: str, cutter: CommitCutter, cut_store: PostgresStore, open_database: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(postgres_database, "DOUBT_SECONDS", 0.0)
    cut_store.append_audit(audit_entry("first"))
    cutter.cut_next("after")
    cutter.target = UNUSED_PORT  # no new connection comes through
    with pytest.raises(AtCapacity):
        cut_store.append_audit(audit_entry("second"))
    cutter.target = postgres.port
    for _ in range(2):
        with pytest.raises(StateError, match="kept it after all; stop this server"):
            cut_store.list_audit(10)
    cut_store.close()
    assert [entry.action for entry in open_database(database).list_audit(10)] == ["second", "first"]


def test_a_killed_postgres_is_found_again_when_it_is_back(own_postgres: PostgresServer) -> None:
    store = open_postgres(locate(own_postgres.url(own_postgres.new_database())))
    store.append_audit(audit_entry("before"))
    own_postgres.kill()
    for _ in range(2):
        with pytest.raises(AtCapacity, match=r"does not answer|was lost"):
            store.append_audit(audit_entry("meanwhile"))
    own_postgres.start()
    store.append_audit(audit_entry("after"))
    assert [entry.action for entry in store.list_audit(10)] == ["after", "before"]
    store.close()


@pytest.mark.kill
@pytest.mark.timeout(240)
def test_ledger_leases_and_budgets_are_right_whatever_of_postgres_is_killed(own_postgres: PostgresServer) -> None:
    """Nine times while batches are entered: a session ended, one of Postgres's processes killed, or all of them."""
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    dice = random.Random(seed)
    name = own_postgres.new_database()
    store = open_postgres(locate(own_postgres.url(name)))
    store.open_budgets([LIMIT])
    work = _Work(store)
    work.start()
    # From this thread: the kernel ends a Postgres together with the thread that started it.
    _kill_now_and_then(own_postgres, name, dice)
    work.ended.set()
    work.join()
    assert work.problem is None, work.problem
    assert work.failures > 0, "nothing was hit"
    spends = again_for(lambda: store.settle_leases("w"))
    assert [(spend.limit, spend.spent_usd_nanos) for spend in spends] == [(LIMIT.name, work.batches * PER_BATCH * 25)]
    assert store.list_leases() == []
    store.close()


class _Work(threading.Thread):
    """Enters batches until told to end, each until it is in, and looks whether the store holds what it should."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.ended = threading.Event()
        self.batches = self.failures = 0
        self.problem: Exception | None = None
        self._store = store

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.batches += 1
                again_for(self._enter)
                again_for(self._check)
        except Exception as error:
            self.problem = error

    def _enter(self) -> None:
        try:
            _enter(self._store, self.batches)
        except AtCapacity:
            self.failures += 1
            raise

    def _check(self) -> None:
        requests = sum(total.requests for total in self._store.total_usage(UsageFilter()))
        position = self._store.spool_position("w")
        found = (requests, position.offset if position else 0)
        if found != (self.batches * PER_BATCH, self.batches):
            raise AssertionError(f"rows and position must go together: {found} after {self.batches} batches")


def _enter(store: Store, number: int) -> None:
    rows = [usage_change(f"r{number}-{row}", "pair", spool="w", reserved_at_unix_ms=1000) for row in range(PER_BATCH)]
    store.put_leases([BudgetLease(LIMIT.name, "w", number * 10_000)])
    store.apply_usage(rows, SpoolPosition("w", 1, number))


def again_for(act: Callable[[], Result]) -> Result:
    """Until it works, as the server's loops do."""
    for _ in range(MAX_TRIES):
        try:
            return act()
        except AtCapacity as error:
            last = error
            threading.Event().wait(RETRY_SECONDS)
    raise AssertionError("the store did not come back") from last


def _kill_now_and_then(server: PostgresServer, name: str, dice: random.Random) -> None:
    for kind in ("session", "process", "all") * 3:
        threading.Event().wait(dice.uniform(0.05, 0.4))
        if kind == "session":
            server.end_sessions(name)
        elif kind == "process":
            for pid in server.session_pids(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            server.wait_ready()
        else:
            server.kill()
            server.start()
