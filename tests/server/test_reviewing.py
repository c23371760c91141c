"""Reviews: the best combination beside the simulator's own best mix, what misses, how sure it is, and the ledger."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from review_catalogue import WRONG, write_catalogue
from swell.errors import UserError
from swell.ports.store import MAX_LISTED
from swell.server import review_usage
from swell.server.review_apply import put_in_place
from swell.server.review_edits import Change, changed
from swell.server.review_levers import of_idle, of_precision, of_routing, with_room
from swell.server.review_replays import Case, Replays, scenario
from swell.server.review_saving import DAY_SECONDS, HOUR_SECONDS, hourly_usd, saving
from swell.server.review_usage import idle, traffic_of
from swell.server.reviewing import Review, review
from swell.simulator.compare import bisect_to
from swell.simulator.contenders import contender
from swell.simulator.own import swell_scaler
from swell.simulator.result import Timeline
from swell.simulator.traffic import between
from swell.spec import parse_spec
from swell.state.records import SpoolPosition, UsageFilter
from swell.state.traffic import Traffic
from swell.state.usage_groups import UsageGroup
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import audit_entry, key_record, usage_change

NOW_MS = 1_793_491_200_000


def requests(hours: float, per_second: float, seed: int = 3) -> Traffic:
    """Some traffic with an ebb: twice as much in the middle as at the ends."""
    dice = np.random.default_rng(seed)
    count = int(hours * HOUR_SECONDS * per_second)
    at = np.sort(dice.triangular(-hours, hours / 2, 2 * hours, 4 * count) * HOUR_SECONDS)
    at = at[(at >= 0) & (at < hours * HOUR_SECONDS)]
    prompts, outputs = dice.integers(100, 3000, len(at)), dice.integers(20, 400, len(at))
    return Traffic(at, prompts.astype(np.int32), outputs.astype(np.int32))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = parse_spec(WRONG, origin="swell.yaml").models[0]
    return Case(model, requests(1.1, 0.1), *write_catalogue(tmp_path_factory.mktemp("catalogue")))


@pytest.fixture(scope="module")
def reviewed(wrong: Case) -> Review:
    shares: list[float] = []
    found = review(wrong, progress=shares.append)
    assert shares == sorted(shares)
    assert 0.5 < shares[-1] <= 1
    return found


def test_the_recommended_combination_saves_what_the_simulators_best_mix_does(wrong: Case, reviewed: Review) -> None:
    best = reviewed.recommended
    assert best is not None
    assert best.after.reached
    elastic = [
        Change(("replicas", "min"), 0),
        Change(("spot", "max_fraction"), 1.0),
        Change(("accelerators",), reviewed.machines.usable),
    ]
    mix = scenario(wrong, changed(wrong.model, elastic))
    found = bisect_to(mix, contender("swell"), mix.objective.attainment, replays=5)
    assert found.reached
    saved = best.saving.usd_nanos / 1e9
    by_the_mix = best.before.cost_usd_nanos / 1e9 - found.result.cost_usd
    assert by_the_mix > 0
    assert saved >= 0.95 * by_the_mix


def test_changes_are_ranked_and_what_misses_is_last_and_pays_nothing(reviewed: Review) -> None:
    savings = [each.saving.usd_nanos_per_month for each in reviewed.changes if each.after.reached]
    assert savings == sorted(savings, reverse=True)
    assert {each.lever for each in reviewed.changes} >= {"accelerators", "spot", "replicas"}
    assert all(each.before == reviewed.now for each in reviewed.changes)
    missing = [each for each in reviewed.changes if not each.after.reached]
    assert reviewed.changes[len(savings) :] == tuple(missing)
    assert not any(each.pays for each in missing)
    assert [name for name, share in reviewed.machines.unusable if share < 0.9] == ["TINY"]


def test_less_than_a_day_is_low_confidence_and_a_huge_fleet_is_seen(reviewed: Review) -> None:
    assert {each.saving.confidence for each in reviewed.changes} == {"low"}
    assert 0 < reviewed.now.busiest_share < 0.2
    assert reviewed.shared_prompt_share is None


def test_objectives_and_precision_come_on_top_and_are_never_recommended(reviewed: Review) -> None:
    assert [each.lever for each in reviewed.what_ifs][-2:] == ["objectives", "objectives"]
    assert reviewed.recommended is not None
    assert all(each.before == reviewed.recommended.after for each in reviewed.what_ifs)
    assert not {"objectives", "precision"} & {each.lever for each in reviewed.changes}


def test_a_fleet_that_is_right_is_left_alone(wrong: Case, reviewed: Review) -> None:
    best = reviewed.recommended
    assert best is not None
    again = review(replace(wrong, model=changed(wrong.model, best.changes)))
    assert again.recommended is None or again.recommended.saving.usd_nanos < 0.02 * best.saving.usd_nanos


def test_a_fleet_that_is_too_small_gets_what_meets_the_objective_though_it_costs_more(wrong: Case) -> None:
    few = (Change(("replicas", "min"), 1), Change(("replicas", "max"), 1), Change(("accelerators",), ("SMALL",)))
    found = review(replace(wrong, model=changed(wrong.model, few), traffic=requests(0.2, 4.0)))
    assert not found.now.reached
    assert found.recommended is not None
    assert found.recommended.after.reached


def test_a_long_trace_is_searched_on_a_part_and_what_is_found_is_replayed_on_the_whole(wrong: Case) -> None:
    shares: list[float] = []
    found = review(wrong, 1, shares.append, searched_on=between(wrong.traffic, 0.0, 900.0))
    assert shares == sorted(shares)
    whole = [each for each in found.changes if each.whole]
    levers = [each.lever for each in whole]
    assert sorted(levers) == sorted(set(levers))  # the best of each
    assert {each.before.requests for each in whole} == {len(wrong.traffic)}
    others = [each for each in found.changes if not each.whole]
    assert {each.lever for each in others} <= set(levers)
    assert all(each.before.requests < len(wrong.traffic) / 2 for each in others)
    assert found.recommended in whole


def test_levers_that_do_not_apply_are_not_moved(wrong: Case) -> None:
    assert of_idle(wrong.model) == []
    assert of_routing(wrong, wrong.model) == []
    told = replace(wrong.traffic, prefix_blocks=[(1, 2)] * len(wrong.traffic))
    assert [each.lever for each in of_routing(replace(wrong, traffic=told), wrong.model)] == ["routing"]
    on_mid = changed(wrong.model, [Change(("accelerators",), ("MID",))])
    assert of_precision(wrong, on_mid) == []
    (fp8,) = of_precision(wrong, wrong.model)
    assert scenario(wrong, changed(wrong.model, fp8.changes)).pools[0].profile.model == "house-8b-fp8"


def test_idle_retention_reaches_the_policy(wrong: Case) -> None:
    staged = scenario(wrong, changed(wrong.model, [Change(("scaling", "idle_seconds"), 60.0)]))
    assert swell_scaler(staged).settings.idle_seconds == 60.0


def test_smaller_machines_get_more_replicas_but_cannot_cost_more_an_hour(wrong: Case) -> None:
    busy = replace(wrong, traffic=requests(0.5, 60.0))
    narrow = changed(busy.model, [Change(("replicas", "min"), 0), Change(("replicas", "max"), 2)])
    fields = {change.path: change.value for change in with_room(busy, narrow, ["SMALL"])}
    most = fields[("replicas", "max")]
    assert isinstance(most, int)
    here, there = (
        scenario(busy, narrow).pools[0],
        scenario(busy, changed(narrow, with_room(busy, narrow, ["SMALL"]))).pools[0],
    )
    assert most > 2
    assert most * there.usd_per_hour <= 2 * here.usd_per_hour


def test_an_outcome_is_replayed_once_and_says_why_it_is_not_possible(wrong: Case) -> None:
    replays = Replays(wrong, 1, 4, lambda share: None)
    nowhere = (Change(("accelerators",), ("MI300X",)),)
    first, second, third = replays.outcomes([(), nowhere, ()])
    assert first is third
    assert first is replays.outcome()
    assert "MI300X" in second.why_not
    assert not second.reached


# Savings


def test_spend_by_the_hour_counts_each_interval_where_it_lies() -> None:
    seconds = np.arange(10.0, 3 * HOUR_SECONDS + 1, 10.0)
    zeros = np.zeros(len(seconds), dtype=np.int32)
    usd = np.where(seconds <= HOUR_SECONDS, 2.0, 5.0)
    line = Timeline(seconds, zeros, zeros, zeros, zeros, usd)
    assert hourly_usd(line, 2.5 * HOUR_SECONDS) == pytest.approx((2.0, 5.0))


@pytest.mark.parametrize(
    ("hours", "differences", "unit", "confidence"),
    [
        (2, [1.0] * 2, "", "low"),
        (20, [1.0] * 20, "hour", "low"),
        (30, [1.0] * 30, "hour", "medium"),
        (30, [5.0, -4.9] * 15, "hour", "low"),
        (7 * 24, [1.0, 2.0] * 84, "day", "high"),
    ],
)
def test_confidence_follows_what_was_seen(hours: int, differences: list[float], unit: str, confidence: str) -> None:
    before, after = [10.0 + each for each in differences], [10.0] * hours
    saved = round(sum(differences) * 1e9)
    found = saving(saved + 7, 7, before, after, hours * HOUR_SECONDS)
    assert found.usd_nanos == saved
    assert (found.unit, found.confidence) == (unit, confidence)
    assert found.usd_nanos_per_month == pytest.approx(saved * 30.44 * DAY_SECONDS / (hours * HOUR_SECONDS), abs=1)
    if found.interval is not None:
        assert found.interval[0] <= saved <= found.interval[1]
        assert found.is_sure == (found.interval[0] > 0)


# The ledger


class KeptLedger:
    """A store as a command reaches it."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.asked = 0

    def usage(self, where: UsageFilter, limit: int) -> object:
        self.asked += 1
        return msgspec.to_builtins(self.store.list_usage(where, limit))

    def list_keys(self) -> object:
        return [
            {"id": key.key_id, "name": key.name, "tenant": key.tenant, "state": "live",
             "created_at_unix": key.created_at_unix}
            for key in self.store.list_keys()
        ]  # fmt: skip

    def group_usage(self, where: UsageFilter, by: object = (), bucket: object = None) -> list[UsageGroup]:
        return self.store.group_usage(where, by, bucket)  # type: ignore[arg-type]


def ledger_of(*changes: dict[str, object]) -> KeptLedger:
    store = MemoryStore()
    made = [usage_change(f"r{i:06}", "pair", **{"model": "chat", **each}) for i, each in enumerate(changes)]
    store.apply_usage(made, SpoolPosition("spool1", 1, 1))
    return KeptLedger(store)


def test_usage_becomes_traffic_page_by_page_each_request_once(wrong: Case) -> None:
    # Four requests a millisecond, so that pages end inside one.
    count = 2 * MAX_LISTED + 51
    ledger = ledger_of(*({"reserved_at_unix_ms": NOW_MS + i // 4, "prompt_tokens": i} for i in range(count)))
    seen: list[str] = []
    found = traffic_of(
        ledger, wrong.model, NOW_MS - 5000, seen=lambda page: seen.extend(row["request_id"] for row in page)
    )
    assert found is not None
    assert len(found) == len(seen) == len(set(seen)) == count
    assert sorted(found.prompt_tokens.tolist()) == [1, *range(1, count)]  # no prompt has less than a token
    assert found.arrival_seconds[0] == 0
    assert found.start_unix == NOW_MS / 1000
    assert ledger.asked >= 3


def test_only_what_was_served_of_this_model_since_then_counts(wrong: Case) -> None:
    ledger = ledger_of(
        {"reserved_at_unix_ms": NOW_MS - 1},
        {"reserved_at_unix_ms": NOW_MS + 1500},
        {"reserved_at_unix_ms": NOW_MS + 2000, "model": "embed"},
        {"reserved_at_unix_ms": NOW_MS + 3000, "status": "void"},
    )
    found = traffic_of(ledger, wrong.model, NOW_MS)
    assert found is not None
    assert found.arrival_seconds.tolist() == [1.5]  # it was served before, so the trace begins with the period
    assert traffic_of(ledger, wrong.model, NOW_MS + 60_000) is None


def test_the_newest_count_where_there_are_too_many(wrong: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_usage, "MOST_REQUESTS", 10)
    ledger = ledger_of(*({"reserved_at_unix_ms": NOW_MS + 1000 * i} for i in range(25)))
    found = traffic_of(ledger, wrong.model, NOW_MS - 9000)
    assert found is not None
    assert len(found) == 10
    assert found.start_unix == NOW_MS / 1000 + 15


def test_keys_and_models_without_a_request_are_named(wrong: Case) -> None:
    ledger = ledger_of(
        {"reserved_at_unix_ms": NOW_MS + 1, "key_id": "used"}, {"reserved_at_unix_ms": 1, "key_id": "old"}
    )
    for key_id in ("used", "old", "young"):
        made = NOW_MS / 1000 + (60 if key_id == "young" else -60)
        ledger.store.insert_key(key_record(key_id, created_at_unix=made), audit_entry())
    other = wrong.model.model_copy(update={"name": "other"})
    found = idle(ledger, [wrong.model, other], NOW_MS)
    assert found.keys == (("old", "laptop", "search"),)
    assert found.models == ("other",)


# The file


def test_the_file_is_replaced_whole_with_the_old_one_beside_it(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "swell.yaml"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    backup = put_in_place(link, b"old", b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert backup.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.yaml", "real.yaml.bak", "swell.yaml"]


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "swell.yaml"
    file.write_bytes(b"somebody else's")
    with pytest.raises(UserError, match="changed while it was reviewed"):
        put_in_place(file, b"old", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["swell.yaml"]
    assert file.read_bytes() == b"somebody else's"
