"""Caches that follow a cluster through lost watches and forgotten versions, and requests at a bounded pace."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_children import SETTINGS
from kube_harness import FakeClusterHarness

from swell.adapters.providers.kubernetes.api import FORBIDDEN, ApiProblem, Kind
from swell.adapters.providers.kubernetes.client import PAGE_OBJECTS, LightkubeApi, find_config
from swell.adapters.providers.kubernetes.pacing import CONFLICT_TRIES, Bucket, Pace, PacedApi
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.adapters.providers.kubernetes.seen import NodeSeen, see_node
from swell.adapters.providers.kubernetes.watch import RELIST_SECONDS, Watched, Watching
from swell.clock import ManualClock
from swell.errors import AtCapacity, UserError
from swell.testing.cluster import Refused

WAIT_SECONDS = 10.0


class Followed:
    """Nodes of the harness's cluster, watched; `changes` counts what was told."""

    def __init__(self, harness: FakeClusterHarness) -> None:
        self.harness = harness
        self.changes = 0
        self.pauses: list[float] = []
        self.watched: Watched[NodeSeen] = Watched(
            Watching(harness.api(), Kind.NODES, "", harness.clock, self._pause), see_node, self._changed
        )

    def _changed(self, old: NodeSeen | None, new: NodeSeen | None) -> None:
        self.changes += 1

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def names(self) -> set[str]:
        return set(self.watched.views)


@asynccontextmanager
async def _following(harness: FakeClusterHarness) -> AsyncIterator[Followed]:
    followed = Followed(harness)
    task = asyncio.ensure_future(followed.watched.run())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await followed.watched.ready.wait()
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await followed.watched._api.close()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        turn = asyncio.Event()
        while not condition():
            asyncio.get_running_loop().call_later(0.005, turn.set)
            await turn.wait()
            turn.clear()


def _watches(harness: FakeClusterHarness) -> int:
    return harness.cluster.requests["watch nodes"]


async def test_a_cache_is_what_there_is_and_then_what_happens(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        assert followed.names() == {"node-1", "spot-1"}
        fake_harness.controllers.add_node("node-2")
        fake_harness.controllers.reclaim("spot-1")
        await _until(lambda: followed.names() == {"node-1", "node-2"})
        assert followed.changes == 4
        assert followed.watched.lists == 1


async def test_a_broken_watch_goes_on_where_it_was(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        await _until(lambda: _watches(fake_harness) == 1)
        fake_harness.clock.advance(60.0)
        fake_harness.cluster.break_watches()
        fake_harness.controllers.add_node("node-2")
        await _until(lambda: "node-2" in followed.names())
        assert (followed.watched.lists, followed.pauses) == (1, [])


async def test_a_version_that_is_forgotten_begins_with_a_list(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        await _until(lambda: _watches(fake_harness) == 1)
        fake_harness.clock.advance(60.0)
        fake_harness.cluster.create("secrets", {"metadata": {"name": "of others"}})
        fake_harness.cluster.forget_events()
        fake_harness.cluster.break_watches()
        fake_harness.controllers.add_node("node-2")
        fake_harness.controllers.reclaim("node-1")
        await _until(lambda: followed.watched.lists == 2)
        assert followed.names() == {"node-2", "spot-1"}


async def test_a_bookmark_spares_the_list(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        await _until(lambda: _watches(fake_harness) == 1)
        for number in range(5):  # of others, of which this watch is told nothing
            fake_harness.cluster.create("secrets", {"metadata": {"name": f"secret-{number}"}})
        fake_harness.cluster.bookmark()
        await _until(lambda: followed.watched._version == str(fake_harness.cluster.version))
        fake_harness.cluster.forget_events()
        fake_harness.cluster.break_watches()
        fake_harness.controllers.add_node("node-2")
        await _until(lambda: "node-2" in followed.names())
        assert followed.watched.lists == 1


async def test_an_api_that_is_away_is_asked_less_and_less_often(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        await _until(lambda: _watches(fake_harness) == 1)
        fake_harness.cluster.refuse_next.extend(Refused(503, "the server is starting") for _ in range(6))
        fake_harness.clock.advance(60.0)
        fake_harness.cluster.break_watches()
        fake_harness.controllers.add_node("node-2")
        await _until(lambda: "node-2" in followed.names())
        assert len(followed.pauses) == 6
        assert followed.pauses[-1] > 8 * followed.pauses[0]
        assert followed.watched.silent_seconds(fake_harness.clock.monotonic()) == 0.0


async def test_everything_is_listed_anew_from_time_to_time(fake_harness: FakeClusterHarness) -> None:
    async with _following(fake_harness) as followed:
        await _until(lambda: _watches(fake_harness) == 1)
        fake_harness.clock.advance(RELIST_SECONDS)
        fake_harness.cluster.break_watches()
        await _until(lambda: followed.watched.lists == 2)
        assert followed.changes == 2, "nothing was told twice"


async def test_long_lists_come_in_pages_of_one_moment(fake_harness: FakeClusterHarness) -> None:
    for number in range(PAGE_OBJECTS):
        fake_harness.controllers.add_node(f"more-{number}")
    api = fake_harness.api()
    pages = [page async for page in api.pages(Kind.NODES, "")]
    assert [len(page.items) for page in pages] == [PAGE_OBJECTS, 2]
    assert len({page.version for page in pages}) == 1
    await api.close()


async def test_what_may_not_be_read_is_done_without(fake_harness: FakeClusterHarness) -> None:
    def refuse_nodes(verb: str, kind: str) -> None:
        if kind == "nodes":
            raise Refused(FORBIDDEN, 'nodes is forbidden: User "swell" cannot list resource')

    fake_harness.cluster.before_request = refuse_nodes
    provider = fake_harness.provider()
    handle = await provider.start(fake_harness.steady())
    await fake_harness.settled(handle)
    assert provider.status(handle).machine.zone == ""


async def test_a_cluster_that_refuses_everything_is_an_error_that_says_so(fake_harness: FakeClusterHarness) -> None:
    fake_harness.server.token = "another"
    api = fake_harness.api()
    fake_harness.server.token = "again another"
    with pytest.raises(ApiProblem) as problem:
        await anext(api.pages(Kind.PODS, ""))
    assert (problem.value.status, problem.value.message) == (401, "Unauthorized")
    await api.close()


async def test_nothing_is_started_while_the_api_is_silent(fake_harness: FakeClusterHarness) -> None:
    provider: KubernetesProvider = fake_harness.provider()
    await provider.start(fake_harness.steady())
    fake_harness.cluster.before_request = _away
    fake_harness.cluster.break_watches()
    await fake_harness.until(lambda: provider.silent_seconds >= 30.0)
    with pytest.raises(AtCapacity, match="etcd is away"):
        await provider.start(fake_harness.steady())


def _away(verb: str, kind: str) -> None:
    raise Refused(503, "etcd is away")


async def test_a_conflict_is_tried_again_and_not_for_ever(fake_harness: FakeClusterHarness) -> None:
    api = PacedApi(fake_harness.api(), fake_harness.clock)
    cluster = fake_harness.cluster
    cluster.create("secrets", {"metadata": {"name": "a"}})
    cluster.refuse_next.extend(Refused(409, "modified") for _ in range(CONFLICT_TRIES - 1))
    await api.delete(Kind.SECRETS, "a")
    assert cluster.objects["secrets"] == {}
    cluster.refuse_next.extend(Refused(409, "modified") for _ in range(CONFLICT_TRIES))
    with pytest.raises(ApiProblem, match="modified"):
        await api.delete(Kind.SECRETS, "a")
    assert cluster.requests["delete secrets"] == 2 * CONFLICT_TRIES
    await api.close()


async def test_too_many_requests_hold_everything_for_as_long_as_the_server_says(
    fake_harness: FakeClusterHarness,
) -> None:
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        fake_harness.clock.advance(seconds)

    api = PacedApi(fake_harness.api(), fake_harness.clock, pause=pause)
    fake_harness.cluster.refuse_next.append(Refused(429, "too many requests", retry_after=7))
    with pytest.raises(ApiProblem) as problem:
        await api.delete(Kind.SECRETS, "a")
    assert problem.value.retry_after_seconds == 7.0
    with pytest.raises(ApiProblem, match="not found"):
        await api.delete(Kind.SECRETS, "a")
    assert sum(waited) >= 7.0
    await api.close()


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200), st.integers(1, 50), st.floats(1.0, 100.0))
def test_no_window_holds_more_than_the_pace_allows(gaps: list[float], burst: int, rate: float) -> None:
    bucket, now, times = Bucket(Pace(rate, burst), 0.0), 0.0, []
    for gap in gaps:
        now += gap
        times.append(now + bucket.take(now))
    assert times == sorted(times), "first come, first served"
    for index, begin in enumerate(times):
        for end in range(index, len(times)):
            assert end - index + 1 <= burst + rate * (times[end] - begin) + 1e-6 * (end + 1) + 1


def test_what_can_wait_leaves_room_for_what_cannot() -> None:
    bucket = Bucket(Pace(10.0, 20, spare=5), 0.0)
    for _ in range(15):
        assert bucket.has_spare(0.0)
        assert bucket.take(0.0) == 0.0
    assert not bucket.has_spare(0.0)
    assert bucket.take(0.0) == 0.0
    assert bucket.has_spare(1.0)


def test_credentials_are_looked_for_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    with pytest.raises(UserError, match="no credentials"):
        find_config(str(file), "")
    file.write_text(
        "{apiVersion: v1, kind: Config, current-context: a, users: [{name: u, user: {token: t}}],"
        " clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}],"
        " contexts: [{name: a, context: {cluster: k, user: u, namespace: models}},"
        " {name: b, context: {cluster: k, user: u, namespace: others}}]}"
    )
    assert LightkubeApi(find_config(str(file), ""), "").namespace == "models"
    assert LightkubeApi(find_config(str(file), "b"), "").namespace == "others"
    assert LightkubeApi(find_config(str(file), "b"), SETTINGS.namespace).namespace == SETTINGS.namespace
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert find_config("", "").context_name == "a"
    with pytest.raises(UserError, match="no credentials"):
        find_config(str(file), "c")


async def test_an_api_that_does_not_exist_is_unreachable(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(
        "{current-context: a, users: [{name: u, user: {token: t}}],"
        " contexts: [{name: a, context: {cluster: k, user: u}}],"
        " clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    api = PacedApi(LightkubeApi(find_config(str(file), ""), "models"), ManualClock())
    with pytest.raises(ApiProblem) as problem:
        await anext(api.watch(Kind.PODS, "", "1"))
    assert problem.value.status == 0
    with pytest.raises(ApiProblem):
        await anext(api.pages(Kind.PODS, ""))
    await api.close()
