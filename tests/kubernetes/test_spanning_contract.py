"""Children that span several nodes keep the contract of the provider's port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_plane import ControlPlane
from kube_spanning import FakeSpanningHarness, RealSpanningHarness

from swell.testing.provider_suite import ProviderHarness, ProviderSuite, SpotHarness, SpotSuite


@pytest.fixture
async def fake_spanning(tmp_path: Path) -> AsyncIterator[FakeSpanningHarness]:
    harness = FakeSpanningHarness(tmp_path)
    async with harness.server:
        yield harness
        await harness.close()


@pytest.fixture
async def real_spanning(tmp_path: Path, control_plane: ControlPlane) -> AsyncIterator[RealSpanningHarness]:
    harness = RealSpanningHarness(tmp_path, control_plane)
    yield harness
    await harness.close()


class TestOnAClusterOfMakeBelieve(ProviderSuite):
    @pytest.fixture
    def harness(self, fake_spanning: FakeSpanningHarness) -> ProviderHarness:
        return fake_spanning


class TestSpotOnAClusterOfMakeBelieve(SpotSuite):
    @pytest.fixture
    def harness(self, fake_spanning: FakeSpanningHarness) -> SpotHarness:
        return fake_spanning


class TestOnARealControlPlane(ProviderSuite):
    @pytest.fixture
    def harness(self, real_spanning: RealSpanningHarness) -> ProviderHarness:
        return real_spanning


class TestSpotOnARealControlPlane(SpotSuite):
    @pytest.fixture
    def harness(self, real_spanning: RealSpanningHarness) -> SpotHarness:
        return real_spanning
