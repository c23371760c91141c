"""An upstream that stands still is taken out, harms nobody else, and is taken in again when it moves."""

import signal
from pathlib import Path

import pytest
from kill_asks import End
from kill_world import CLIENTS, SEED, StartSwell, World, status_of

pytestmark = [pytest.mark.kill, pytest.mark.process]

UNHARMED = {End.COMPLETE, End.LEFT}
# Those it held when it stopped, as many again until each worker has ejected it, and a probe now and then.
MOST_HARMED = 2 * CLIENTS + 6


async def test_a_stuck_upstream_is_ejected_and_readmitted(swell_up: StartSwell, tmp_path: Path) -> None:
    async with World(swell_up, tmp_path, SEED + 400, upstreams=2, patience_seconds=1.0) as world:
        stuck = world.upstreams[0]
        await world.served(20)
        await world.point("upstream-0 stopped", lambda: stuck.signal(signal.SIGSTOP))
        await world.eventually(lambda: "ready" not in phases(world, stuck.url), "the server has taken it out")
        await world.served(CLIENTS)  # whoever waited for it has been told
        before = len(world.outcomes)
        await world.served(60)
        assert {outcome.end for outcome in world.outcomes[before:]} - {End.ERROR_EVENT} <= UNHARMED
        stuck.signal(signal.SIGCONT)
        await world.eventually(lambda: "ready" in phases(world, stuck.url), "it is taken in again")
        done = (stuck.stats() or {})["done"]
        await world.eventually(lambda: (stuck.stats() or {"done": 0})["done"] > done + 10, "it serves again")
        await world.account()
    harmed = [outcome for outcome in world.outcomes if outcome.end not in UNHARMED]
    unscripted = [outcome for outcome in harmed if outcome.ask.script.die_after is None]
    assert {outcome.code for outcome in unscripted} <= {"replica_timeout", "replica_lost"}
    assert len(unscripted) <= MOST_HARMED


def phases(world: World, url: str) -> set[str]:
    """Of the replicas at `url`, as the server sees them; a phase changes while a server starts as well."""
    status = status_of(world.server)
    assert status is not None
    return {replica["phase"] for replica in status["replicas"] if replica["address"] == url}
