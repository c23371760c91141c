"""One real container daemon for all of these tests, and Swell's own images, built once in it."""

import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "live"))  # the same clients ask replicas in containers

from base_image import ARCHIVE, NO_ARCHIVE, ROOT, require_base
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


@pytest.fixture(scope="session")
def build_image(docker: DockerDaemon, base_image: str) -> Callable[[str], str]:
    """Builds one of the images as `make images` does, but for the base image, which is at hand; its reference."""

    @functools.cache
    def build(name: str) -> str:
        command = [sys.executable, str(ROOT / "deploy" / "images" / "build.py"), "--base", base_image, name]
        environ = {**os.environ, "DOCKER_HOST": f"unix://{docker.socket}"}
        built = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
        return built.stdout.strip().removeprefix("building ")

    return build


@pytest.fixture
async def containers(docker: DockerDaemon, base_image: str, tmp_path: Path) -> AsyncIterator[ContainerHarness]:
    """A harness for the provider suite on real containers."""
    harness = ContainerHarness(docker, base_image, tmp_path)
    yield harness
    await harness.close()
