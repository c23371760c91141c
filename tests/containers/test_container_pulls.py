"""Images that are not there yet: pulled beside the fleet's steps, told as they come, and a reason where they do not."""

import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from container_harness import ContainerHarness
from image_registry import MISSING, PROGRAM, ImageRegistry

from swell.ports.provider import ChildSpec, Needs, Presence
from swell.testing.docker_daemon import DockerDaemon

pytestmark = [pytest.mark.services, pytest.mark.containers]


@pytest.fixture(scope="module")
def registry(docker: DockerDaemon) -> Iterator[ImageRegistry]:
    if shutil.which("docker-registry") is None:
        pytest.skip(MISSING)
    if platform.machine() != "x86_64":
        pytest.skip("the image that is pulled holds a program for x86-64 alone; run this on such a machine")
    with ImageRegistry(docker) as registry:
        yield registry


def child_of(containers: ContainerHarness, image: str) -> ChildSpec:
    return replace(containers.steady(), argv=(PROGRAM,), needs=Needs(image))


async def test_a_start_returns_while_its_image_is_pulled(containers: ContainerHarness, registry: ImageRegistry) -> None:
    registry.forget_locally()
    registry.halt()
    provider = containers.provider()
    try:
        handles = [await provider.start(child_of(containers, registry.image)) for _ in range(2)]
        for handle in handles:
            await containers.until(lambda handle=handle: "is pulled" in provider.status(handle).waiting)  # type: ignore[misc]
            assert provider.status(handle).presence is Presence.RUNNING
            assert registry.image in provider.status(handle).waiting
    finally:
        registry.resume()
    for handle in handles:
        await containers.settled(handle)
        assert provider.status(handle).waiting == ""
    assert containers.living() == {handle.child_id for handle in handles}


async def test_an_image_that_cannot_be_had_is_an_end_with_a_reason(
    containers: ContainerHarness, registry: ImageRegistry
) -> None:
    provider = containers.provider()
    handle = await provider.start(child_of(containers, registry.name_of("absent:1")))
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    reason = await provider.log_tail(handle.log_path)
    assert reason.startswith(f"swell: cannot pull image {registry.name_of('absent:1')}: ")
    assert "providers[].images" in reason
    assert containers.docker.containers(containers.labels) == []


async def test_a_child_that_waits_for_its_image_can_be_stopped(
    containers: ContainerHarness, registry: ImageRegistry
) -> None:
    registry.forget_locally()
    registry.halt()
    provider = containers.provider()
    try:
        handle = await provider.start(child_of(containers, registry.image))
        await containers.until(lambda: "is pulled" in provider.status(handle).waiting)
        await provider.stop(handle, grace_seconds=30.0)
        await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    finally:
        registry.resume()
    await provider.close()
    assert containers.docker.containers(containers.labels) == []
