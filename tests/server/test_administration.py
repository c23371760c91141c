"""Administrative acts: checked, audited, and never a secret in what is stored."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from swell.adapters.stores import open_store
from swell.clock import ManualClock
from swell.errors import UserError
from swell.security.keys import digest_key, parse_key
from swell.server.administration import MAX_LIFE_SECONDS, Administration, NewKey, key_facts
from swell.spec.tenants import MAX_LIMIT
from swell.state.budgets import KeyBudget
from swell.state.snapshot import Limits
from swell.units import NANOS_PER_USD

PEPPER = b"p" * 32


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Administration]:
    store = open_store(tmp_path / "swell.db", b"k" * 32)
    kept = tmp_path / "default.key"
    yield Administration(store, PEPPER, ("default", "search", "research"), ManualClock(), kept)
    store.close()


def test_a_key_is_made_audited_and_stored_as_a_digest(office: Administration) -> None:
    made = office.create_key(NewKey("ci", "search", 60.0, "batch", Limits(5)), "me(1)")
    assert parse_key(made.key) == made.id
    stored = office.store.get_key(made.id)
    assert stored is not None
    assert stored.digest == digest_key(PEPPER, made.key)
    assert (stored.tenant, stored.priority, stored.limits) == ("search", "batch", Limits(5))
    assert stored.expires_at_unix == office.clock.unix() + 60
    [entry] = office.store.list_audit(10)
    assert (entry.principal, entry.action, entry.subject) == ("me(1)", "key.create", made.id)
    assert made.key not in repr(entry)


def budgeted(**fields: object) -> Limits:
    return Limits(budgets=(msgspec.structs.replace(KeyBudget(10 * NANOS_PER_USD, "day"), **fields),))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (NewKey("ci", "serch"), "unknown tenant 'serch'; did you mean search"),
        (NewKey("ci", "zzz"), "valid are: default, research, search"),
        (NewKey("ci", priority="interactiv"), "did you mean interactive"),
        (NewKey(" "), "1 to 200 printable"),
        (NewKey("a\nb"), "printable"),
        (NewKey("ci", expires_seconds=-1), "must expire in the future"),
        (NewKey("ci", expires_seconds=MAX_LIFE_SECONDS + 1), "at most 100 years"),
        (NewKey("ci", expires_seconds=float("inf")), "at most 100 years"),
        (NewKey("ci", limits=Limits(tokens_per_minute=-1)), "tokens_per_minute must lie between 0 .* and 10+"),
        (NewKey("ci", limits=Limits(10**20)), "requests_per_minute must lie between 0 .* and 10+"),
        (NewKey("ci", limits=Limits(concurrent_requests=MAX_LIMIT + 1)), "concurrent_requests must lie between"),
        (NewKey("ci", limits=budgeted(period="fortnight")), r"the key's budget\[0\].period: 'fortnight' is not one of"),
        (NewKey("ci", limits=budgeted(grace_usd_nanos=11 * NANOS_PER_USD)), "is more than the budget itself"),
        (NewKey("ci", limits=budgeted(grace_usd_nanos=-1)), "is negative"),
        (NewKey("ci", limits=budgeted(at_limit=("throtle",))), "did you mean throttle"),
        (NewKey("ci", limits=budgeted(at_limit=("throttle 150%",))), "is never reached"),
        (NewKey("ci", limits=budgeted(throttle_requests_per_minute=0, at_limit=("throttle",))), "or equal to 1"),
        (NewKey("ci", limits=budgeted(throttle_requests_per_minute=5)), "has no effect without throttle"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(office: Administration, request_: NewKey, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        office.create_key(request_, "me(1)")
    assert office.store.list_keys() == []
    assert office.store.list_audit(10) == []


def test_the_largest_limits_and_the_longest_life_are_admitted(office: Administration) -> None:
    limits = Limits(MAX_LIMIT, MAX_LIMIT, 0)
    made = office.create_key(NewKey("ci", expires_seconds=MAX_LIFE_SECONDS, limits=limits), "me(1)")
    stored = office.store.get_key(made.id)
    assert stored is not None
    assert stored.limits == limits


def test_rotation_keeps_the_old_secret_for_its_grace(office: Administration) -> None:
    made = office.create_key(NewKey("ci"), "me(1)")
    rotated = office.rotate_key(made.id, 3600, "me(1)")
    assert rotated.id == made.id
    assert rotated.key != made.key
    stored = office.store.get_key(made.id)
    assert stored is not None
    assert stored.previous_digest == digest_key(PEPPER, made.key)
    assert key_facts(stored, office.clock.unix())["state"] == "rotating"
    assert key_facts(stored, office.clock.unix() + 3601)["state"] == "live"
    with pytest.raises(UserError, match="between 0 and 30 days"):
        office.rotate_key(made.id, 31 * 86400, "me(1)")


def test_a_revoked_key_is_ended_once_and_says_so(office: Administration) -> None:
    made = office.create_key(NewKey("ci"), "me(1)")
    record = office.revoke_key(made.id, "me(1)")
    assert key_facts(record, office.clock.unix())["state"] == "revoked"
    with pytest.raises(UserError, match="is revoked; make another"):
        office.revoke_key(made.id, "me(1)")
    with pytest.raises(UserError, match="is revoked"):
        office.rotate_key(made.id, 1, "me(1)")
    with pytest.raises(UserError, match="no key has the id"):
        office.revoke_key("a" * 12, "me(1)")
    assert [entry.action for entry in office.store.list_audit(10)] == ["key.revoke", "key.create"]


@pytest.mark.parametrize("end", ["rotate", "revoke"])
def test_a_kept_text_goes_with_its_key_and_with_no_other(office: Administration, end: str) -> None:
    kept = office.kept_key
    assert kept is not None
    made, other = office.create_key(NewKey("default"), "me(1)"), office.create_key(NewKey("other"), "me(1)")
    kept.write_text(made.key)
    for key_id, stays in ((other.id, True), (made.id, False)):
        if end == "rotate":
            office.rotate_key(key_id, 60, "me(1)")
        else:
            office.revoke_key(key_id, "me(1)")
        assert kept.exists() is stays


def test_a_kept_text_is_told_only_while_it_is_the_keys_own(office: Administration) -> None:
    kept = office.kept_key
    assert kept is not None
    assert office.kept_text() == ""
    made = office.create_key(NewKey("default", expires_seconds=60), "me(1)")
    kept.write_text(made.key)
    assert office.kept_text() == made.key
    rotated = office.rotate_key(made.id, 3600, "me(1)")
    kept.write_text(made.key)  # as it was left before keys took their text with them
    assert office.kept_text() == ""
    kept.write_text(rotated.key)
    assert office.kept_text() == rotated.key
    assert isinstance(office.clock, ManualClock)
    office.clock.advance(61)
    assert office.kept_text() == ""
    kept.write_bytes(b"\xffno key")
    assert office.kept_text() == ""


def test_a_key_whose_tenant_is_gone_is_listed_as_refused_and_why(office: Administration) -> None:
    made = office.create_key(NewKey("ci", "search"), "me(1)")
    other = office.create_key(NewKey("ci", "research"), "me(1)")
    assert [row["state"] for row in office.list_keys()] == ["live", "live"]
    without = replace(office, tenants=("default", "research"))
    rows = {row["id"]: row for row in without.list_keys()}
    assert (rows[made.id]["state"], rows[other.id]["state"], rows[other.id]["refused"]) == ("refused", "live", None)
    assert rows[made.id]["refused"] == ("the spec has no tenant 'search'; put it back into the spec, or revoke the key")
    office.revoke_key(made.id, "me(1)")
    rows = {row["id"]: row for row in without.list_keys()}
    assert (rows[made.id]["state"], rows[made.id]["refused"]) == ("revoked", None)
