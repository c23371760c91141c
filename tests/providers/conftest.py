"""Harnesses for the provider suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from provider_harness import FakeHarness, LateHarness, ProcessHarness


@pytest.fixture
def fake_harness(tmp_path: Path) -> FakeHarness:
    return FakeHarness(tmp_path)


@pytest.fixture
def late_harness(tmp_path: Path) -> LateHarness:
    return LateHarness(tmp_path)


@pytest.fixture
async def process_harness(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    harness = ProcessHarness(tmp_path)
    yield harness
    await harness.close()
