"""The fleet, fault by fault, on a make-believe machine."""

from pathlib import Path

import pytest
from fleet_world import ServerKilledError, World

from swell.control.decide import BACKOFF_FIRST_SECONDS
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.workload import EXTERNAL_RETRY_SECONDS
from swell.errors import AtCapacity, LaunchFailed, StateError
from swell.ports.engine import Address
from swell.ports.provider import Binding, Expected, Needs, Preparation, Progress
from swell.state.replica import Phase
from swell.testing.fake_provider import FakeMachine, FakeProvider


async def _nobody(url: str, key: str) -> Answer:
    return Answer(None, "nobody listens")


async def test_a_replica_is_ready_once_it_answers(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(2)
    assert world.only().phase is Phase.STARTING
    await world.steps(1)
    replica = world.only()
    assert (replica.phase, replica.routable, replica.restarts) == (Phase.READY, True, 0)
    assert replica.address is not None
    assert replica.address.host == "127.0.0.1"
    record = world.intents.records[replica.child_id]
    assert (record.pid, record.marker) == (replica.pid, replica.child_id)
    assert world.changes > 0


async def test_a_loading_replica_gets_no_requests_until_its_timeout(world: World) -> None:
    world.fleet.want([world.workload(start_timeout_seconds=5.0)])
    await world.steps(2)
    world.health[world.only().child_id] = 503
    await world.steps(16)
    assert world.only().phase is Phase.STARTING
    await world.steps(4)
    assert world.only().phase is Phase.FAILED
    assert "start_timeout_seconds" in world.only().last_error
    assert world.machine.living == {}


async def test_a_child_with_a_network_of_its_own_is_reached_where_its_provider_says(world: World) -> None:
    world.machine.binding = Binding("0.0.0.0", 8000)  # noqa: S104  of its own network
    world.fleet.want([world.workload()])
    await world.steps(3)
    replica = world.only()
    assert (replica.phase, replica.address) == (Phase.STARTING, None)
    assert world.machine.started[-1].port == 8000
    world.machine.addresses[replica.child_id] = Address("10.1.2.3", 8000)
    await world.steps(2)
    assert world.only().phase is Phase.READY
    assert world.only().address == Address("10.1.2.3", 8000)
    await world.restart(world.workload())
    assert (world.only().phase, world.only().address) == (Phase.READY, Address("10.1.2.3", 8000))
    world.machine.addresses[replica.child_id] = Address("10.1.2.4", 8000)  # its machine gave it another
    await world.steps(1)
    assert world.only().address == Address("10.1.2.4", 8000)


async def test_children_of_one_template_ask_for_one_key(world: World) -> None:
    world.machine.binding = Binding("0.0.0.0", 8000, alike=True)  # noqa: S104  of its own network
    world.fleet.want([world.workload(count=2, key="shared")])
    await world.steps(2)
    assert [replica.key for replica in world.fleet.replicas] == ["shared", "shared"]
    world.fleet.want([world.workload(count=2)])
    await world.restart(world.workload(count=3))
    await world.steps(2)
    assert "no key" in world.fleet.replicas[-1].last_error


async def test_what_a_start_waits_for_is_told_while_it_waits_and_when_it_fails(world: World) -> None:
    world.fleet.want([world.workload(start_timeout_seconds=5.0)])
    await world.steps(2)
    child_id = world.only().child_id
    world.health[child_id] = 503
    world.machine.waiting[child_id] = "0/3 nodes have room: Insufficient nvidia.com/gpu"
    await world.steps(1)
    assert "nvidia.com/gpu" in world.only().waiting
    await world.steps(20)
    assert world.only().phase is Phase.FAILED
    assert "Insufficient nvidia.com/gpu" in world.only().last_error


async def test_a_place_that_watches_health_itself_is_believed_and_nobody_asks(world: World) -> None:
    world.fleet.want([world.workload(unhealthy_seconds=3.0)])
    await world.steps(2)
    child_id = world.only().child_id
    world.machine.ready[child_id] = False  # though it would answer
    await world.steps(4)
    assert world.only().phase is Phase.STARTING
    world.machine.ready[child_id], world.health[child_id] = True, None
    await world.steps(2)
    assert world.only().phase is Phase.READY
    await world.steps(40)
    assert (world.only().phase, world.only().restarts) == (Phase.READY, 0)
    world.machine.ready[child_id] = False
    await world.steps(14)
    assert (world.only().phase, world.only().failures) == (Phase.FAILED, 1)
    assert "has not been healthy for 3 s" in world.only().last_error


async def test_what_waits_is_not_ready_even_where_nothing_is_asked(world: World) -> None:
    world.fleet.want([world.workload(health=None)])
    await world.steps(2)
    world.machine.waiting[world.only().child_id] = "an image"
    await world.steps(1)
    assert world.only().phase is Phase.STARTING
    world.machine.waiting.clear()
    await world.steps(1)
    assert world.only().phase is Phase.READY


async def test_a_provider_is_told_once_that_adoption_is_over(world: World) -> None:
    await world.restart(world.workload())
    assert world.machine.adoptions_over == 1
    await world.steps(4)
    assert (world.only().phase, world.machine.adoptions_over) == (Phase.READY, 1)


async def test_a_crash_is_followed_by_longer_and_longer_waits(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(3)
    waits = []
    for _ in range(4):
        world.machine.crash(world.only().child_id)
        await world.steps(1)
        failed = world.only()
        assert failed.phase is Phase.FAILED
        assert "killed by signal 9" in failed.last_error
        waits.append(failed.not_before - world.clock.monotonic())
        await world.steps(40)
        assert world.only().phase is Phase.READY
    assert waits == [BACKOFF_FIRST_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert world.only().restarts == 4
    assert len(world.intents.records) == 1


async def test_a_healthy_minute_forgives_earlier_failures(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(3)
    world.machine.crash(world.only().child_id)
    await world.steps(10)
    assert world.only().failures == 1
    await world.steps(2, seconds=61.0)
    replica = world.only()
    assert (replica.failures, replica.last_error, replica.restarts) == (0, "", 1)


async def test_a_child_that_ends_before_it_is_ready_says_why(world: World) -> None:
    world.machine.crash_at_start = 1
    world.fleet.want([world.workload()])
    await world.steps(3)
    replica = world.only()
    assert replica.phase is Phase.FAILED
    assert "exit code 1" in replica.last_error
    assert replica.child_id in replica.last_error  # what the fake writes to its log


@pytest.mark.parametrize(
    "error", [LaunchFailed("no such program"), AtCapacity("no memory", retry_after_seconds=7.0)], ids=str
)
async def test_a_refused_start_is_tried_again(world: World, error: LaunchFailed | AtCapacity) -> None:
    world.machine.refuse_next.append(error)
    world.fleet.want([world.workload()])
    await world.steps(2)
    replica = world.only()
    assert (replica.phase, replica.last_error) == (Phase.FAILED, str(error))
    assert replica.not_before - world.clock.monotonic() >= getattr(error, "retry_after_seconds", 0.0)
    await world.steps(40)
    assert world.only().phase is Phase.READY
    assert set(world.intents.records) == set(world.machine.living)


async def test_nothing_is_started_that_the_store_does_not_know(world: World) -> None:
    world.intents.failing = StateError("the disk is full; make room")
    world.fleet.want([world.workload()])
    await world.steps(20)
    assert world.machine.started == type(world.machine.started)()
    assert "disk is full" in world.only().last_error
    world.intents.failing = None
    await world.steps(300)
    assert world.only().phase is Phase.READY


async def test_a_stuck_replica_gets_a_minute_and_is_then_replaced(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(3)
    stuck = world.only().child_id
    world.health[stuck] = None
    await world.steps(50, seconds=1.0)
    assert world.only().child_id == stuck
    assert "does not answer" in world.only().last_error
    world.health[stuck] = 200
    await world.steps(5, seconds=1.0)
    world.health[stuck] = None
    await world.steps(58, seconds=1.0)
    assert (world.only().child_id, world.only().phase) == (stuck, Phase.READY)
    await world.steps(10, seconds=1.0)
    assert world.only().child_id != stuck
    assert world.only().phase is Phase.READY


async def test_a_drain_waits_for_open_requests(world: World) -> None:
    world.fleet.want([world.workload(count=2)])
    await world.steps(3)
    world.fleet.set_count("chat", 1)
    await world.steps(1)
    (draining,) = [replica for replica in world.fleet.replicas if replica.phase is Phase.DRAINING]
    assert draining.ordinal == 1
    for _ in range(8):
        world.fleet.report_in_flight({draining.child_id: 1})
        await world.steps(1)
    assert draining.child_id in world.machine.living
    world.fleet.report_in_flight({})
    await world.steps(3)
    assert set(world.machine.living) == world.ready()
    assert len(world.ready()) == 1


async def test_a_report_from_before_the_drain_ends_no_drain(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(3)
    world.fleet.want([])
    world.fleet.report_in_flight({})
    await world.steps(12)
    assert world.phases() == [Phase.DRAINING]  # a gateway may have sent something since


async def test_a_drain_ends_at_its_deadline_and_a_stubborn_child_is_killed(world: World) -> None:
    world.machine.stubborn = True
    world.fleet.want([world.workload(drain_seconds=10.0, stop_grace_seconds=3.0)])
    await world.steps(3)
    world.fleet.want([])
    await world.steps(38)
    assert world.phases() == [Phase.DRAINING]
    await world.steps(6)
    assert world.phases() == [Phase.STOPPING]
    await world.steps(14)
    assert world.fleet.replicas == ()
    assert world.machine.living == {}
    assert world.intents.records == {}


async def test_a_changed_launch_replaces_without_a_gap(world: World) -> None:
    world.fleet.want([world.workload(count=2, drain_seconds=0.0)])
    await world.steps(3)
    world.fleet.want([world.workload(count=2, fingerprint="v2")])
    for _ in range(40):
        await world.steps(1)
        assert len(world.ready()) >= 2
    assert {replica.fingerprint for replica in world.fleet.replicas} == {"v2"}
    assert len(world.machine.living) == 2


async def test_endpoints_of_others_are_watched_and_taken_up_again(world: World) -> None:
    addresses = (Address("10.0.0.1", 80), Address("10.0.0.2", 80))
    external = {"provider": "external", "launch": None, "addresses": addresses, "key": "secret"}
    world.fleet.want([world.workload(count=2, unhealthy_seconds=5.0, backoff_max_seconds=5.0, **external)])
    await world.steps(3)
    assert [replica.address for replica in world.fleet.replicas] == list(addresses)
    assert {replica.key for replica in world.fleet.replicas} == {"secret"}
    assert len(world.ready()) == 2
    broken = world.fleet.replicas[0].child_id
    world.health[broken] = None
    await world.steps(10, seconds=1.0)
    assert broken not in world.ready()
    await world.steps(int(EXTERNAL_RETRY_SECONDS) + 3, seconds=1.0)
    assert len(world.ready()) == 2
    assert world.intents.records == {}


async def test_a_workload_without_health_path_is_ready_when_it_runs(world: World) -> None:
    world.fleet.want([world.workload(health=None, wants_port=False)])
    await world.steps(3)
    assert world.only().phase is Phase.READY
    assert world.only().address is None


@pytest.mark.parametrize(("port", "moves"), [(None, False), (8000, True)])
async def test_a_server_elsewhere_keeps_the_logs_of_what_it_adopts_in_its_own_folder(
    world: World, tmp_path: Path, port: int | None, moves: bool
) -> None:
    world.machine.binding = Binding(port=port)
    world.fleet.want([world.workload()])
    await world.steps(4)
    (before,) = world.fleet.replicas
    await world.restart(world.workload(log_dir=tmp_path / "elsewhere"))
    (after,) = world.fleet.replicas
    assert after.child_id == before.child_id
    folder = tmp_path / "elsewhere" if moves else before.log_path.parent
    assert after.log_path == folder / before.log_path.name


async def test_a_restarted_server_adopts_at_once_what_answers(world: World) -> None:
    world.fleet.want([world.workload(count=2)])
    await world.steps(3)
    before = world.ready()
    dead = min(before)
    world.machine.crash(dead)
    await world.restart(world.workload(count=2))
    assert world.ready() == before - {dead}
    assert set(world.intents.records) == before - {dead}
    await world.steps(4)
    assert len(world.ready()) == 2
    assert max(world.machine.starts.values()) == 1


async def test_a_restarted_server_ends_what_nobody_wants(world: World) -> None:
    world.fleet.want([world.workload(), world.workload("other")])
    await world.steps(3)
    await world.restart(world.workload())
    assert len(world.ready()) == 2
    world.clock.advance(2.0)
    await world.steps(1)
    world.clock.advance(2.0)
    world.fleet.report_in_flight({})
    await world.steps(4)
    assert [replica.workload for replica in world.fleet.replicas] == ["chat"]
    assert len(world.machine.living) == 1


@pytest.mark.parametrize("renamed", [{"process": "elsewhere"}, {}])
async def test_what_runs_in_a_place_that_is_called_otherwise_now_is_adopted_by_its_new_name(
    world: World, renamed: dict[str, str]
) -> None:
    world.fleet.want([world.workload(), world.workload("other")])
    await world.steps(3)
    before = world.ready()
    places = {"elsewhere": FakeProvider(world.machine), "process": FakeProvider(FakeMachine(world.clock))}
    if not renamed:
        del places["process"]  # a server that has the store alone: it knows no place of that name
    later = Fleet(providers=places, intents=world.intents, ask=_nobody, clock=world.clock, renamed=renamed)
    later.want([world.workload(provider="elsewhere")])
    await later.adopt()
    adopted = {replica.child_id: replica for replica in later.replicas}
    assert {replica.provider for replica in adopted.values()} == {"elsewhere"}
    assert set(world.intents.records) == before
    recorded = [world.intents.records[child_id] for child_id in adopted]
    assert [each.detail["provider"] for each in recorded] == ["elsewhere"] * len(recorded)
    assert [each.pid for each in recorded] == [replica.pid for replica in adopted.values()]
    assert {replica.workload for replica in adopted.values()} == {"chat", *(["other"] if renamed else [])}


async def test_a_server_killed_between_start_and_its_record_finds_the_child_by_its_id(world: World) -> None:
    world.fleet.want([world.workload()])
    await world.steps(1)
    world.kill_at_call = world.calls + 4  # record_process, recorded, start, started
    with pytest.raises(ServerKilledError):
        await world.steps(1)
    (record,) = world.intents.records.values()
    assert record.pid is None
    await world.restart(world.workload())
    assert world.ready() == set(world.machine.living) == {record.process_id}
    assert world.intents.records[record.process_id].pid is not None


async def test_two_workloads_of_one_name_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="chat"):
        world.fleet.want([world.workload(), world.workload()])


async def test_the_replica_that_is_named_leaves_and_no_other(world: World) -> None:
    world.fleet.want([world.workload(count=3)])
    await world.steps(4)
    named = world.fleet.replicas[0].child_id
    others = world.ready() - {named}
    assert world.fleet.drain(named, drain_seconds=100.0)
    assert world.fleet.workload("chat").count == 2
    world.fleet.report_in_flight({named: 1})
    await world.steps(4 * 60)
    assert [r.phase for r in world.fleet.replicas if r.child_id == named] == [Phase.DRAINING]
    assert world.ready() == others
    world.fleet.report_in_flight({})
    await world.steps(4)
    assert {replica.child_id for replica in world.fleet.replicas} == others == set(world.machine.living)
    assert not world.fleet.drain(named)
    assert world.fleet.workload("chat").count == 2


async def test_a_replica_that_fails_after_it_was_named_is_not_started_again(world: World) -> None:
    world.fleet.want([world.workload(count=2)])
    await world.steps(4)
    named = world.fleet.replicas[0].child_id
    assert world.fleet.drain(named)
    world.machine.crash(named)
    await world.steps(400)
    assert len(world.fleet.replicas) == 1
    assert sum(world.machine.starts.values()) == 2


async def test_a_failed_place_that_is_named_is_given_up(world: World) -> None:
    world.fleet.want([world.workload(count=1)])
    world.machine.refuse_next.append(LaunchFailed("absent"))
    await world.steps(1)
    await world.steps(1)
    assert world.only().phase is Phase.FAILED
    assert world.fleet.drain(world.only().child_id)
    await world.steps(100)
    assert world.fleet.replicas == ()
    assert not world.machine.starts


async def test_ordering_more_after_one_was_named_starts_a_new_one(world: World) -> None:
    world.fleet.want([world.workload(count=1)])
    await world.steps(4)
    named = world.only().child_id
    assert world.fleet.drain(named)
    world.fleet.set_count("chat", world.fleet.workload("chat").count + 1)
    world.fleet.report_in_flight({named: 1})
    await world.steps(8)
    assert len(world.fleet.replicas) == 2
    assert len(world.ready() - {named}) == 1


async def test_places_are_told_what_may_come_even_where_nothing_shall_run(world: World) -> None:
    needs = Needs(image="engine:1")
    pool = world.workload("chat@spot", 0, model="chat", needs=needs)
    world.fleet.want([pool, world.workload("other", provider="external", addresses=())])
    assert world.machine.expected == (Expected("chat", needs),)
    world.machine.preparations = (Preparation("image", "engine:1", ("chat",), Progress.RUNNING),)
    assert world.fleet.preparations() == [("process", world.machine.preparations[0])]
    world.fleet.want([])
    assert world.machine.expected == ()


@pytest.mark.parametrize("call", ["adopt", "end_orphans"])
async def test_a_place_that_cannot_be_asked_is_left_out_where_nothing_is_wanted_there_any_more(
    world: World, call: str
) -> None:
    world.fleet.want([world.workload()])
    await world.steps(3)
    known = dict(world.intents.records)

    def away(called: str) -> None:
        if called == call:
            raise AtCapacity("nobody answers", retry_after_seconds=5.0)

    places = {"process": FakeProvider(world.machine, away), "elsewhere": FakeProvider(FakeMachine(world.clock))}
    needed = Fleet(providers=places, intents=world.intents, ask=_nobody, clock=world.clock)
    with pytest.raises(AtCapacity, match="process: nobody answers"):
        await needed.adopt()
    spared = Fleet(providers=places, intents=world.intents, ask=_nobody, clock=world.clock, spared={"process"})
    spared.want([world.workload("other", provider="elsewhere")])
    await spared.adopt()
    assert spared.left_out == {"process": "nobody answers"}
    await spared.step(world.clock.monotonic())
    assert {replica.workload for replica in spared.replicas} >= {"other"}
    assert known.items() <= world.intents.records.items(), "a later server finds what runs there"
