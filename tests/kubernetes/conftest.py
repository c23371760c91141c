"""Harnesses for what is tested against a cluster."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kube_harness import FakeClusterHarness


@pytest.fixture
async def fake_harness(tmp_path: Path) -> AsyncIterator[FakeClusterHarness]:
    harness = FakeClusterHarness(tmp_path)
    async with harness.server:
        yield harness
        await harness.close()
