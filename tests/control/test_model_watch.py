"""Alerts about models: each episode is told once when it begins, and once when it is over, whatever restarts."""

from pathlib import Path

import pytest
from fleet_world import World
from model_watch_world import MINUTE, Watched, model, watched

from swell.control.workload import Workload
from swell.errors import AtCapacity
from swell.metering.burn_rates import CALM_SECONDS
from swell.server.capacity_watch import UNWANTED_SECONDS
from swell.server.model_watch import WATCH_SECONDS
from swell.server.objective_watch import KEEP_SECONDS
from swell.spec.alerts import AlertsSpec
from swell.state.messages import Load, ModelLoad


async def test_a_missed_objective_is_told_once_when_it_begins_and_once_when_it_is_over(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.serve(330, 100, 100)
        assert world.told() == []
        await world.serve(30, 100, 70)
        assert world.told() == ["model chat objective critical"]
        await world.serve(60, 100, 100)
        assert world.told() == ["model chat objective critical", "model chat objective resolved"]
        begun, over = (record.alert for record in world.records())
        assert (begun.severity, over.severity) == ("critical", "info")
        assert begun.title == "Model chat misses its objective: 14.75% of requests in an hour"
        assert begun.values["episode"] == over.values["episode"] == world.records()[0].limit_name
        assert (begun.values["state"], over.values["state"]) == ("open", "resolved")
        assert over.at_unix - begun.at_unix >= CALM_SECONDS


async def test_what_becomes_worse_is_told_again_and_what_becomes_better_is_not(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.serve(60, 100, 92)
        assert world.told() == ["model chat objective warning"]
        await world.serve(60, 100, 50)
        await world.serve(60, 100, 92)
        assert world.told() == ["model chat objective warning", "model chat objective critical"]
        await world.serve(40, 100, 100)
        assert world.told()[2:] == ["model chat objective resolved"]
        await world.serve(60, 100, 50)
        anew = ["model chat objective warning", "model chat objective critical"]
        assert world.told()[3:] == anew, "another episode"
        assert len({record.limit_name for record in world.records()}) == 2


async def test_restarts_tell_nothing_twice_and_forget_nothing(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        for _ in range(20):  # no server lives for longer than five minutes
            await world.serve(5, 100, 80)
            await world.begin()
        assert world.told() == ["model chat objective critical"]
        await world.serve(CALM_SECONDS // 60 - 1, 100, 100)
        assert world.told() == ["model chat objective critical"], "what was before is not known to be over"
        await world.serve(5, 100, 100)
        assert world.told()[1:] == ["model chat objective resolved"]


async def test_a_server_that_restarts_often_still_sees_what_lasts(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        for _ in range(24):
            await world.serve(15, 10, 9)  # killed: nothing is kept but what was written each minute
            world.clock.advance(KEEP_SECONDS)
            await world.begin()
        assert world.told() == ["model chat objective warning"]


async def test_a_worker_that_outlived_its_server_is_not_counted_twice(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.serve(10, 100, 100)
        world.report(chat=(1000, 0))  # while no server runs
        await world.begin()
        await world.serve(10, 100, 100)
        assert world.told() == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 9, "at_unix": 0, "counts": {}}', b"[1]", b"\xff"])
async def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "objectives.json").write_bytes(content)
    async with watched(tmp_path, model()) as world:
        await world.serve(10, 100, 50)
        assert world.told() == ["model chat objective critical"]


async def test_models_without_objectives_in_the_file_are_not_watched_for_them(tmp_path: Path) -> None:
    async with watched(tmp_path, model(objectives=None), model("other", source="/m", lora={"sql": "/a"})) as world:
        await world.serve(10, 100, 0)
        assert world.told() == []
        await world.serve(10, 100, 0, name="sql")
        assert world.told() == ["model other objective critical"], "an adapter's requests are its model's"


async def test_an_alert_that_cannot_be_stored_is_told_when_it_can(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.serve(2, 100, 50)
        world.report(chat=(100, 50))
        world.store.fail_next(AtCapacity("the disk is full", retry_after_seconds=1.0))
        with pytest.raises(AtCapacity):
            await world.turn(MINUTE)
        assert world.told() == []
        await world.turn()
        await world.turn()
        assert world.told() == ["model chat objective critical"]
        assert len(world.said) == 1


class Sick(dict[str, int | None]):
    """Whoever is asked does not answer well."""

    def get(self, child_id: str, default: object = None) -> int:  # type: ignore[override]
        return 503


def breaking(world: World, **fields: object) -> Workload:
    def launch(_: object) -> object:
        raise OSError("no such engine")

    return world.workload(launch=launch, **fields)


async def run(world: Watched, seconds: float) -> None:
    """Fleet and watch, ten seconds at a time."""
    for _ in range(int(seconds // WATCH_SECONDS)):
        await world.world.steps(1, seconds=0.0)
        await world.turn()


async def test_replicas_that_keep_failing_are_told_once_over_restarts_until_one_is_ready(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.begin(breaking(world.world))
        await run(world, 50)
        assert world.told() == []
        await run(world, 200)
        assert world.told() == ["model chat replicas critical"]
        alert = world.records()[0].alert
        assert alert.title == "Model chat has no replica that is ready"
        assert "no such engine" in alert.text
        await world.begin(breaking(world.world))
        await run(world, 300)
        assert world.told() == ["model chat replicas critical"]
        world.world.fleet.want([world.world.workload(fingerprint="v2")])
        await run(world, 60)
        assert len(world.told()) == 1, "not before it has been ready for a while"
        await run(world, 300)
        assert world.told()[1:] == ["model chat replicas resolved"]


async def test_a_slow_start_and_a_model_at_zero_are_no_alerts(tmp_path: Path) -> None:
    async with watched(tmp_path, model("slow"), model("none")) as world:
        slow = world.world.workload("slow", start_timeout_seconds=600.0)
        await world.begin(slow, world.world.workload("none", count=0))
        world.world.health = Sick()
        await run(world, 500)
        assert world.told() == []
        await run(world, UNWANTED_SECONDS)
        assert world.told() == ["model slow replicas critical"]


async def test_nothing_is_told_of_a_server_that_ends(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.begin(breaking(world.world))
        world.stopping.set()
        await run(world, 600)
        assert world.told() == []


async def test_a_sink_gets_what_it_wants_and_hears_that_it_is_over(tmp_path: Path) -> None:
    sinks = {
        "pager": {"kinds": ["objective", "replicas"], "min_severity": "critical"},
        "money": {"kinds": ["budget"]},
        "all": {},
    }
    spec = AlertsSpec.model_validate(
        {"sinks": [{"kind": "command", "name": name, "argv": ["true"], **more} for name, more in sinks.items()]}
    )
    async with watched(tmp_path, model(), sinks=spec.sinks) as world:
        await world.serve(60, 100, 92)
        await world.serve(30, 100, 50)
        await world.serve(60, 100, 100)
        await world.decide(60, "ceiling")
        got = [(each.threshold, [sent.sink for sent in each.deliveries]) for each in world.records()]
        assert got == [
            ("warning", ["all"]),
            ("critical", ["all", "pager"]),
            ("resolved", ["all", "pager"]),
            ("warning", ["all"]),
        ]


async def test_batch_is_promised_no_time_so_it_misses_none(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        late = 0
        for _ in range(60):
            late += 100
            batch = ModelLoad("chat", judged=late, attained=0)
            loads = (ModelLoad("chat", judged=2 * late, attained=late, batch=batch),)
            world.watch.report("w", Load(0, 0, (), (), loads))
            await world.turn(MINUTE)
        assert world.told() == []
