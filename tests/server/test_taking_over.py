"""Which places a server may begin without: those that some server has reached, or that it knows a replica of."""

from collections.abc import AsyncIterator, Callable

import pytest

from swell.clock import ManualClock
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.errors import AtCapacity
from swell.server.parts import Providers
from swell.server.stored_intents import StoredIntents
from swell.server.taking_over import take_over
from swell.server.troubles import Troubles
from swell.server.writer import Writer
from swell.state.records import ProcessRecord
from swell.testing.fake_provider import FakeMachine, FakeProvider
from swell.testing.memory_store import MemoryStore

DETAIL = {
    "workload": "chat", "provider": "far", "ordinal": 0, "fingerprint": "f", "log_path": "/nowhere/chat-0.log",
    "drain_seconds": 1.0, "stop_grace_seconds": 1.0, "key": "k",
}  # fmt: skip


async def _nobody(url: str, key: str) -> Answer:
    return Answer(None, "nobody listens")


class Servers:
    """One after another, over one store."""

    def __init__(self) -> None:
        self.clock, self.store, self.writer = ManualClock(), MemoryStore(), Writer()
        self.away: set[str] = set()
        self.said: list[str] = []

    async def begin(self, *places: str) -> Fleet:
        providers = {name: FakeProvider(FakeMachine(self.clock), self._gate(name)) for name in ("process", *places)}

        async def close() -> None:
            return

        made = Providers(providers, close)
        intents = StoredIntents(self.store, self.writer)
        fleet = Fleet(providers=providers, intents=intents, ask=_nobody, clock=self.clock)
        await take_over(fleet, made, self.store, self.writer, Troubles(self.said.append))
        return fleet

    def _gate(self, name: str) -> Callable[[str], None]:
        def before(call: str) -> None:
            if name in self.away and call in ("adopt", "end_orphans"):
                raise AtCapacity("nobody answers", retry_after_seconds=1.0)

        return before


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    made = Servers()
    yield made
    made.writer.close()


async def test_a_place_that_was_reached_once_is_awaited_by_any_later_server(servers: Servers) -> None:
    await servers.begin("far")
    assert servers.said == []
    servers.away = {"far"}
    for _ in range(2):
        fleet = await servers.begin("far")
        assert set(fleet.awaited) == {"far"}
    assert servers.said[0].startswith("far has not answered since this server began: nobody answers.")


async def test_a_place_that_no_server_has_reached_must_answer(servers: Servers) -> None:
    await servers.begin("near")
    servers.away = {"far"}
    for _ in range(2):
        with pytest.raises(AtCapacity, match="far: nobody answers"):
            await servers.begin("near", "far")
    servers.away = {"near", "far"}
    with pytest.raises(AtCapacity, match="far: nobody answers"):
        await servers.begin("near", "far")
    servers.away = {"near"}
    fleet = await servers.begin("near", "far")
    assert set(fleet.awaited) == {"near"}
    servers.away = {"far"}
    assert set((await servers.begin("near", "far")).awaited) == {"far"}


async def test_one_that_is_awaited_because_of_what_is_stored_counts_as_reached(servers: Servers) -> None:
    """As after an upgrade from a version that made no marks: what was stored there may be gone when it answers."""
    servers.store.record_processes(
        [ProcessRecord(process_id="c", kind="replica", marker="c", recorded_at_unix=1.0, detail=DETAIL)]
    )
    servers.away = {"far"}
    assert set((await servers.begin("far")).awaited) == {"far"}
    servers.store.remove_processes(["c"])
    assert set((await servers.begin("far")).awaited) == {"far"}
