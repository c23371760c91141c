"""A daemon that is killed, hangs or was never there: waits are bounded, and what was known stays known."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from container_harness import ContainerHarness

from swell.adapters.providers.container_body import container_name
from swell.errors import AtCapacity
from swell.ports.provider import Presence
from swell.testing.docker_daemon import DockerDaemon

pytestmark = [pytest.mark.services, pytest.mark.containers]

A_STEP_SECONDS = 2.0  # of the fleet, at the very most


@pytest.fixture
def killable(docker: DockerDaemon) -> Iterator[DockerDaemon]:
    if not docker.is_ours:
        pytest.skip("the daemon is not the tests' own; unset SWELL_TEST_DOCKER to have it killed")
    yield docker
    os.kill(docker.pid, signal.SIGCONT)


async def test_without_a_daemon_a_start_says_what_to_do(containers: ContainerHarness, tmp_path: Path) -> None:
    place = replace(containers.place, socket=tmp_path / "absent.sock")
    with pytest.raises(AtCapacity, match=r"absent\.sock does not answer \(.+\); start it, or name its socket") as error:
        await containers.provider(place).start(containers.steady())
    assert 0 < error.value.retry_after_seconds <= 10


async def test_while_the_daemon_is_away_nothing_is_taken_to_have_ended(
    containers: ContainerHarness, killable: DockerDaemon
) -> None:
    provider = containers.provider()
    children = [await provider.start(containers.steady()) for _ in range(2)]
    for handle in children:
        await containers.settled(handle)
    killable.kill()
    later = containers.provider()
    try:
        assert [provider.status(handle).presence for handle in children] == [Presence.RUNNING] * 2
        with pytest.raises(AtCapacity):
            await provider.start(containers.steady())
        await provider.stop(children[0], grace_seconds=30.0)
        assert await later.adopt(children[1].child_id, children[1].log_path, None) == children[1]
        assert "does not answer" in later.status(children[1]).waiting
    finally:
        killable.start()
    await containers.until(lambda: provider.status(children[0]).presence is Presence.GONE)
    await containers.until(lambda: later.status(children[1]).waiting == "")
    assert provider.status(children[1]).presence is Presence.RUNNING
    assert containers.living() == {children[1].child_id}


async def test_what_ended_while_the_daemon_was_away_is_told_when_it_is_back(
    containers: ContainerHarness, killable: DockerDaemon
) -> None:
    provider = containers.provider()
    handle = await provider.start(containers.steady())
    await containers.settled(handle)
    pid = killable.ask("GET", f"/containers/{container_name(handle.child_id)}/json")["State"]["Pid"]
    killable.kill()
    try:
        os.kill(pid, signal.SIGKILL)
    finally:
        killable.start()
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    assert containers.living() == set()


async def test_an_end_is_told_that_a_daemon_which_has_just_begun_keeps_to_itself(
    containers: ContainerHarness, killable: DockerDaemon
) -> None:
    provider = containers.provider()
    handle = await provider.start(containers.steady())
    await containers.settled(handle)
    killable.kill()
    killable.start()
    killable.kill_container(container_name(handle.child_id))
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    assert provider.status(handle).exit_code == -9


async def test_a_daemon_that_hangs_holds_no_step_up(containers: ContainerHarness, killable: DockerDaemon) -> None:
    provider = containers.provider()
    os.kill(killable.pid, signal.SIGSTOP)
    begun = time.monotonic()
    handle = await provider.start(containers.steady())
    assert time.monotonic() - begun < A_STEP_SECONDS
    assert provider.status(handle).presence is Presence.RUNNING
    assert provider.status(handle).waiting == "its container is made"
    os.kill(killable.pid, signal.SIGCONT)
    await containers.settled(handle)
    await containers.until(lambda: provider.status(handle).waiting == "")
    assert containers.living() == {handle.child_id}
