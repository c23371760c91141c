"""What every store must do, as tests: subclass `StoreSuite` and supply a `store` fixture with an empty store."""

# ruff: noqa: S101  asserting is what a suite is for

import random
from collections.abc import Iterable

import pytest

from swell.errors import AlreadyGone, StateError
from swell.ports.store import Store
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
from swell.state.snapshot import Limits
from swell.state.usage import UsageStatus

EVERYTHING = UsageFilter()


def audit_entry(action: str = "key.create", **detail: str) -> AuditEntry:
    """An act."""
    return AuditEntry(at_unix=1.5, principal="ops(1000)", action=action, subject="abc", detail=dict(detail))


def key_record(key_id: str = "abc", **changes: object) -> KeyRecord:
    """A key with every field set that a fresh key has."""
    fields: dict[str, object] = {
        "key_id": key_id,
        "name": "laptop",
        "tenant": "search",
        "digest": b"1" * 32,
        "created_at_unix": 100.25,
        "expires_at_unix": 900.0,
        "limits": Limits(requests_per_minute=60, concurrent_requests=0),
        "priority": "batch",
    }
    return KeyRecord(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


def decision(name: str, model: str = "chat", **changes: object) -> DecisionRecord:
    """A decision with every field set."""
    fields: dict[str, object] = {
        "decision_id": name,
        "model": model,
        "at_unix": 5.5,
        "until_unix": 6.5,
        "times": 1,
        "before": 1,
        "replicas": 3,
        "is_hold": False,
        "binding": "forecast",
        "reason": "more is coming",
        "inputs": {"demand": 2.5},
        "rejected": ((1, "what there is"),),
    }
    return DecisionRecord(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


def usage_change(request_id: str, kind: str, **changes: object) -> UsageChange:
    """What a batch says: `reserved`, `queued` (not sent), `sent`, `settled`, or `pair` (bound and outcome)."""
    has_bound, has_outcome = kind in ("reserved", "queued", "pair"), kind in ("settled", "pair")
    change = UsageChange(
        request_id=request_id,
        spool="spool1",
        reserved_at_unix_ms=1000 if has_bound else None,
        key_id="key1" if has_bound else "",
        tenant="search" if has_bound else "",
        model="chat" if has_bound else "",
        endpoint="/v1/chat/completions" if has_bound else "",
        prompt_rate=1_000_000 * has_bound,
        completion_rate=2_000_000 * has_bound,
        sent=kind in ("reserved", "sent", "pair"),
        settled_at_unix_ms=2000 if has_outcome else None,
        status="settled" if has_outcome else "reserved",
        prompt_tokens=7 if has_outcome else 100 * has_bound,
        completion_tokens=9 if has_outcome else 512 * has_bound,
        cached_tokens=3 if has_outcome else 0,
        charge_usd_nanos=25 if has_outcome else 1124 * has_bound,
        replica_id="chat-0" if has_outcome else "",
        http_status=200 if has_outcome else 0,
        duration_ms=500 if has_outcome else -1,
        first_token_ms=50 if has_outcome else -1,
    )
    return change._replace(**changes)  # type: ignore[arg-type]  # the suite's own shorthand


class StoreSuite:
    """The contract of `swell.ports.store`."""

    def test_a_key_comes_back_as_it_was_stored(self, store: Store) -> None:
        store.insert_key(key_record(), audit_entry())
        assert store.get_key("abc") == key_record()
        assert store.get_key("other") is None

    def test_keys_are_listed_oldest_first(self, store: Store) -> None:
        for key_id, created in (("b", 3.0), ("c", 1.0), ("a", 3.0)):
            store.insert_key(key_record(key_id, created_at_unix=created), audit_entry())
        assert [key.key_id for key in store.list_keys()] == ["c", "a", "b"]

    def test_an_id_is_taken_once_and_a_refused_insert_is_not_audited(self, store: Store) -> None:
        store.insert_key(key_record(), audit_entry())
        with pytest.raises(StateError, match="already has"):
            store.insert_key(key_record(name="other"), audit_entry())
        assert store.list_keys() == [key_record()]
        assert len(store.list_audit(10)) == 1

    def test_rotation_keeps_two_secrets_and_never_three(self, store: Store) -> None:
        store.insert_key(key_record(), audit_entry())
        first = store.rotate_key("abc", b"2" * 32, 500.0, audit_entry("key.rotate"))
        assert first == key_record(digest=b"2" * 32, previous_digest=b"1" * 32, previous_expires_at_unix=500.0)
        second = store.rotate_key("abc", b"3" * 32, 600.0, audit_entry("key.rotate"))
        assert second == key_record(digest=b"3" * 32, previous_digest=b"2" * 32, previous_expires_at_unix=600.0)
        assert [entry.action for entry in store.list_audit(10)] == ["key.rotate", "key.rotate", "key.create"]

    def test_revoking_is_for_good(self, store: Store) -> None:
        store.insert_key(key_record(), audit_entry())
        assert store.revoke_key("abc", 300.0, audit_entry("key.revoke")) == key_record(revoked_at_unix=300.0)
        assert store.revoke_key("abc", 400.0, audit_entry("key.revoke")) is None
        assert store.rotate_key("abc", b"2" * 32, 500.0, audit_entry("key.rotate")) is None
        assert store.expire_key("abc", None, audit_entry("key.expire")) is None
        assert store.get_key("abc") == key_record(revoked_at_unix=300.0)
        assert [entry.action for entry in store.list_audit(10)] == ["key.revoke", "key.create"]

    def test_expiry_can_be_set_and_lifted(self, store: Store) -> None:
        store.insert_key(key_record(), audit_entry())
        assert store.expire_key("abc", 200.0, audit_entry()) == key_record(expires_at_unix=200.0)
        assert store.expire_key("abc", None, audit_entry()) == key_record(expires_at_unix=None)

    @pytest.mark.parametrize("change", ["rotate", "expire", "revoke"])
    def test_changing_an_unknown_key_does_nothing(self, store: Store, change: str) -> None:
        done = {
            "rotate": lambda: store.rotate_key("nobody", b"", 1.0, audit_entry()),
            "expire": lambda: store.expire_key("nobody", 1.0, audit_entry()),
            "revoke": lambda: store.revoke_key("nobody", 1.0, audit_entry()),
        }[change]()
        assert done is None
        assert store.list_audit(10) == []

    def test_a_request_is_in_the_ledger_with_everything_known_about_it(self, store: Store) -> None:
        _apply(store, usage_change("a", "pair"))
        assert store.list_usage(EVERYTHING, 10) == [
            UsageRecord(
                request_id="a",
                key_id="key1",
                tenant="search",
                model="chat",
                endpoint="/v1/chat/completions",
                status=UsageStatus.SETTLED,
                prompt_tokens=7,
                completion_tokens=9,
                prompt_rate=1_000_000,
                completion_rate=2_000_000,
                charge_usd_nanos=25,
                reserved_at_unix_ms=1000,
                settled_at_unix_ms=2000,
                replica_id="chat-0",
                http_status=200,
                duration_ms=500,
                first_token_ms=50,
                cached_tokens=3,
            )
        ]

    def test_a_reservation_counts_at_its_bound_until_it_is_settled(self, store: Store) -> None:
        _apply(store, usage_change("a", "reserved"))
        assert _tokens(store) == {"a": ("reserved", 100, 512)}
        _apply(store, usage_change("a", "settled", status="estimated"))
        assert _tokens(store) == {"a": ("estimated", 7, 9)}

    def test_cached_tokens_are_the_outcomes_whichever_comes_first(self, store: Store) -> None:
        _apply(store, usage_change("a", "reserved"), usage_change("b", "settled"))
        assert [row.cached_tokens for row in store.list_usage(EVERYTHING, 2)] == [3, 0]
        _apply(store, usage_change("a", "settled", cached_tokens=5), usage_change("b", "reserved"))
        _apply(store, usage_change("a", "settled", cached_tokens=6))
        assert {row.request_id: row.cached_tokens for row in store.list_usage(EVERYTHING, 2)} == {"a": 5, "b": 3}
        assert [(each.prompt_tokens, each.cached_tokens) for each in store.total_usage(EVERYTHING)] == [(14, 8)]

    def test_a_settlement_may_come_first(self, store: Store) -> None:
        _apply(store, usage_change("a", "settled"))
        _apply(store, usage_change("a", "reserved"))
        assert store.list_usage(EVERYTHING, 1)[0].key_id == "key1"
        assert _tokens(store) == {"a": ("settled", 7, 9)}

    def test_a_sent_that_comes_before_its_reservation_takes_the_bound_from_it(self, store: Store) -> None:
        _apply(store, usage_change("a", "sent"))
        _apply(store, usage_change("a", "queued"))
        assert _tokens(store) == {"a": ("reserved", 100, 512)}
        assert store.finalise_spool("spool1", damaged=False) == FinalisedSpool(reserved=1, void=0)

    def test_repeats_change_nothing_and_the_first_word_stands(self, store: Store) -> None:
        _apply(store, usage_change("a", "pair"))
        before = store.list_usage(EVERYTHING, 10)
        _apply(store, usage_change("a", "reserved", key_id="other", prompt_tokens=1))
        _apply(store, usage_change("a", "settled", prompt_tokens=1000, http_status=500))
        _apply(store, usage_change("a", "pair", model="other"), usage_change("a", "sent"))
        assert store.list_usage(EVERYTHING, 10) == before

    def test_order_does_not_matter(self, store: Store) -> None:
        said = [usage_change("a", kind) for kind in ("queued", "sent", "settled")]
        expected = None
        for seed in range(12):
            shuffled = random.Random(seed).choices(said, k=2) + random.Random(seed).sample(said, k=3)  # noqa: S311
            for change in shuffled:
                _apply(store, change._replace(request_id=f"r{seed}"))
            found = next(row for row in store.list_usage(EVERYTHING, 100) if row.request_id == f"r{seed}")
            facts = (found.key_id, found.status, found.prompt_tokens, found.completion_tokens, found.http_status)
            assert facts == (expected := expected or facts)

    def test_a_dead_workers_open_requests_stand_at_their_bound_if_sent_and_are_void_if_not(self, store: Store) -> None:
        _apply(store, *(usage_change(name, kind) for name, kind in _FOUR))
        _apply(store, usage_change("elsewhere", "queued", spool="spool2"))
        assert store.finalise_spool("spool1", damaged=False) == FinalisedSpool(reserved=1, void=1)
        expected = {
            "queued": ("void", 0, 0),
            "sent": ("reserved", 100, 512),
            "done": ("settled", 7, 9),
            "elsewhere": ("reserved", 100, 512),
        }
        assert _tokens(store) == expected
        assert store.finalise_spool("spool1", damaged=False) == FinalisedSpool(reserved=1, void=0)
        _apply(store, *(usage_change(name, kind) for name, kind in _FOUR))
        assert _tokens(store) == expected, "a replay after the end must not open anything again"

    def test_after_damage_nothing_is_void_because_a_lost_record_may_have_sent_it(self, store: Store) -> None:
        _apply(store, *(usage_change(name, kind) for name, kind in _FOUR))
        assert store.finalise_spool("spool1", damaged=True) == FinalisedSpool(reserved=2, void=0)

    def test_a_late_settlement_turns_a_standing_bound_into_what_was_used(self, store: Store) -> None:
        _apply(store, usage_change("a", "reserved"))
        store.finalise_spool("spool1", damaged=False)
        _apply(store, usage_change("a", "settled"))
        assert _tokens(store) == {"a": ("settled", 7, 9)}

    def test_positions_move_with_the_batch_and_are_forgotten_with_their_spool(self, store: Store) -> None:
        assert store.spool_position("spool1") is None
        store.apply_usage([], SpoolPosition("spool1", 1, 10))
        store.apply_usage([usage_change("a", "pair")], SpoolPosition("spool1", 2, 5))
        store.apply_usage([], SpoolPosition("spool2", 1, 7))
        assert store.spool_position("spool1") == SpoolPosition("spool1", 2, 5)
        store.forget_spools(["spool2", "spool3"])
        assert store.spool_position("spool1") is None
        assert store.spool_position("spool2") == SpoolPosition("spool2", 1, 7)

    def test_a_gateway_forgets_none_but_its_own_spools(self, store: Store) -> None:
        here, near, far = (
            SpoolPosition("here", 1, 1),
            SpoolPosition("near", 1, 2, "gw1"),
            SpoolPosition("far", 3, 3, "gw2"),
        )
        for position in (here, near, far):
            store.apply_usage([], position)
        assert store.gateway_spools() == {"near": "gw1", "far": "gw2"}
        store.forget_spools([])
        assert (store.spool_position("here"), store.spool_position("near")) == (None, near)
        store.give_up_spools("gw1")
        assert store.gateway_spools() == {"far": "gw2"}
        assert store.gateway_spools(given_up=True) == {"near": "gw1"}
        store.apply_usage([], near)
        assert store.gateway_spools() == {"near": "gw1", "far": "gw2"}
        store.forget_spools(["here", "far"], "gw1")
        assert store.gateway_spools() == {"far": "gw2"}
        assert store.spool_position("far") == far

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (EVERYTHING, ["d", "c", "b", "a"]),
            (UsageFilter(key_id="key2"), ["b"]),
            (UsageFilter(model="embed"), ["c"]),
            (UsageFilter(tenant="ads"), ["d", "c"]),
            (UsageFilter(status=UsageStatus.RESERVED), ["d"]),
            (UsageFilter(since_unix_ms=2000), ["d", "c", "b"]),
            (UsageFilter(tenant="ads", since_unix_ms=4000), ["d"]),
            (UsageFilter(key_id="nobody"), []),
        ],
    )
    def test_usage_is_filtered_newest_first_and_totals_agree(
        self, store: Store, where: UsageFilter, expected: list[str]
    ) -> None:
        _apply(
            store,
            usage_change("b", "pair", reserved_at_unix_ms=2000, key_id="key2"),
            usage_change("a", "pair", reserved_at_unix_ms=1000),
            usage_change("d", "reserved", reserved_at_unix_ms=4000, tenant="ads"),
            usage_change("c", "pair", reserved_at_unix_ms=3000, model="embed", tenant="ads"),
        )
        listed = store.list_usage(where, 10)
        assert [row.request_id for row in listed] == expected
        assert store.list_usage(where, 1) == listed[:1]
        assert store.total_usage(where) == _totals(listed)

    def test_recent_use_is_by_key_since_a_moment_of_one_spool_or_of_all_but_some(self, store: Store) -> None:
        _apply(
            store,
            usage_change("a", "pair", reserved_at_unix_ms=2000),
            usage_change("b", "reserved", reserved_at_unix_ms=3000),
            usage_change("c", "pair", reserved_at_unix_ms=3000, key_id="key2"),
            usage_change("old", "pair", reserved_at_unix_ms=1999),
            usage_change("void", "pair", reserved_at_unix_ms=3000, status="void"),
            usage_change("elsewhere", "pair", reserved_at_unix_ms=3000, spool="spool2"),
        )
        assert store.recent_use(2000, "spool1") == [
            SpoolUse(key_id="key1", tenant="search", requests=2, tokens=7 + 9 + 100 + 512),
            SpoolUse(key_id="key2", tenant="search", requests=1, tokens=7 + 9),
        ]
        assert store.recent_use(0, "spool3") == []
        assert sum(use.requests for use in store.recent_use(2000)) == 4
        assert sum(use.requests for use in store.recent_use(2000, without={"spool1", "spool3"})) == 1

    def test_a_process_is_an_intent_first_and_then_known_by_its_pid_and_start_time(self, store: Store) -> None:
        intent = ProcessRecord(
            process_id="chat-0", kind="replica", marker="m1", recorded_at_unix=2.0, detail={"port": 9000, "log": None}
        )
        worker = ProcessRecord(process_id="w", kind="gateway_worker", marker="m2", recorded_at_unix=1.0)
        store.record_processes([intent, worker])
        assert [entry.process_id for entry in store.list_processes()] == ["w", "chat-0"]
        store.record_started([StartedProcess("chat-0", 4242, 171234.56)])
        started = store.list_processes()[1]
        assert (started.pid, started.start_time, started.detail) == (4242, 171234.56, {"port": 9000, "log": None})
        store.record_processes([intent])
        assert store.list_processes() == [worker, intent]
        store.remove_processes(["chat-0", "never"])
        store.remove_processes(["chat-0"])
        assert store.list_processes() == [worker]
        with pytest.raises(AlreadyGone):
            store.record_started([StartedProcess("w", 1, 1.0), StartedProcess("chat-0", 4242, 1.0)])
        assert store.list_processes() == [worker], "all that was said of several, or nothing"

    def test_of_no_processes_nothing_is_said(self, store: Store) -> None:
        store.record_processes([])
        store.record_started([])
        store.remove_processes([])
        assert store.list_processes() == []

    def test_audit_entries_are_listed_newest_first(self, store: Store) -> None:
        acts = [audit_entry(f"act.{number}", reason="because") for number in range(3)]
        for act in acts:
            store.append_audit(act)
        assert store.list_audit(2) == [acts[2], acts[1]]

    def test_decisions_are_listed_newest_first(self, store: Store) -> None:
        made = [decision("a"), decision("b", "other"), decision("c")]
        store.put_decisions(made, 10)
        store.put_decisions([], 10)
        assert store.list_decisions(None, 100) == made[::-1]
        assert store.list_decisions(None, 2) == [made[2], made[1]]
        assert store.list_decisions("chat", 100) == [made[2], made[0]]
        assert store.list_decisions("nobody", 100) == []

    def test_a_decision_of_the_same_id_is_replaced_where_it_stands(self, store: Store) -> None:
        store.put_decisions([decision("a"), decision("b")], 10)
        grown = decision("a", times=7, until_unix=99.0, reason="as before", inputs={})
        store.put_decisions([grown], 10)
        assert store.list_decisions("chat", 10) == [decision("b"), grown]

    def test_each_models_newest_decisions_are_kept(self, store: Store) -> None:
        store.put_decisions([decision("x", "other"), *(decision(str(number)) for number in range(5))], 3)
        assert [kept.decision_id for kept in store.list_decisions(None, 10)] == ["4", "3", "2", "x"]
        store.put_decisions([decision("5")], 3)
        assert [kept.decision_id for kept in store.list_decisions("chat", 10)] == ["5", "4", "3"]

    def test_epochs_only_rise(self, store: Store) -> None:
        assert [store.next_epoch() for _ in range(3)] == [1, 2, 3]

    def test_a_mark_is_set_once_and_stays(self, store: Store) -> None:
        assert store.mark("whose") is None
        assert store.set_mark("whose", 2**63 - 1) == 2**63 - 1
        assert store.set_mark("whose", 5) == 2**63 - 1
        assert store.mark("whose") == 2**63 - 1
        assert store.mark("other") is None
        assert store.next_epoch() == 1, "a mark is no count"

    def test_a_store_that_is_ones_own_is_confirmed(self, store: Store) -> None:
        store.confirm()
        store.next_epoch()
        store.confirm()

    def test_a_closed_store_says_so(self, store: Store) -> None:
        store.close()
        store.close()
        with pytest.raises(StateError, match="closed"):
            store.next_epoch()


_FOUR = (("queued", "queued"), ("sent", "queued"), ("sent", "sent"), ("done", "pair"))


def _apply(store: Store, *changes: UsageChange) -> None:
    by_spool = {change.spool for change in changes}
    for spool in sorted(by_spool):
        store.apply_usage([change for change in changes if change.spool == spool], SpoolPosition(spool, 1, 1))


def _tokens(store: Store) -> dict[str, tuple[str, int, int]]:
    return {
        row.request_id: (row.status.value, row.prompt_tokens, row.completion_tokens)
        for row in store.list_usage(EVERYTHING, 100)
    }


def _totals(rows: Iterable[UsageRecord]) -> list[UsageTotal]:
    listed = list(rows)
    return [
        UsageTotal(
            status=status,
            requests=sum(row.status == status for row in listed),
            prompt_tokens=sum(row.prompt_tokens for row in listed if row.status == status),
            completion_tokens=sum(row.completion_tokens for row in listed if row.status == status),
            charge_usd_nanos=sum(row.charge_usd_nanos for row in listed if row.status == status),
            cached_tokens=sum(row.cached_tokens for row in listed if row.status == status),
        )
        for status in sorted({row.status for row in listed})
    ]
