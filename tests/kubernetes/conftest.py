"""Harnesses for what is tested against a cluster."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from control_plane import MISSING, ControlPlane, find_programs
from kube_harness import FakeClusterHarness, RealClusterHarness


@pytest.fixture
async def fake_harness(tmp_path: Path) -> AsyncIterator[FakeClusterHarness]:
    harness = FakeClusterHarness(tmp_path)
    async with harness.server:
        yield harness
        await harness.close()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    programs = find_programs()
    if programs is None:
        pytest.skip(MISSING)
    with ControlPlane(programs, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture
async def real_harness(tmp_path: Path, control_plane: ControlPlane) -> AsyncIterator[RealClusterHarness]:
    harness = RealClusterHarness(tmp_path, control_plane)
    yield harness
    await harness.close()
