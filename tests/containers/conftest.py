"""One real container daemon for all of these tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from base_image import ARCHIVE, NO_ARCHIVE, require_base
from container_harness import ContainerHarness

from swell.errors import StateError
from swell.testing.docker_daemon import DockerDaemon


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerDaemon]:
    """A daemon of the tests' own."""
    try:
        daemon = DockerDaemon()
    except StateError as missing:
        pytest.skip(str(missing))
    with daemon:
        yield daemon


@pytest.fixture(scope="session")
def base_image(docker: DockerDaemon) -> str:
    """The name of an image with Python in it."""
    if not ARCHIVE.exists():
        pytest.skip(NO_ARCHIVE)
    return require_base(docker)


@pytest.fixture
async def containers(docker: DockerDaemon, base_image: str, tmp_path: Path) -> AsyncIterator[ContainerHarness]:
    """A harness for the provider suite on real containers."""
    harness = ContainerHarness(docker, base_image, tmp_path)
    yield harness
    await harness.close()
