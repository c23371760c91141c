"""The Kubernetes provider keeps the contract of its port."""

import pytest
from kube_harness import FakeClusterHarness, RealClusterHarness

from swell.testing.provider_suite import ProviderHarness, ProviderSuite, SpotHarness, SpotSuite


class TestOnAClusterOfMakeBelieve(ProviderSuite):
    @pytest.fixture
    def harness(self, fake_harness: FakeClusterHarness) -> ProviderHarness:
        return fake_harness


class TestSpotOnAClusterOfMakeBelieve(SpotSuite):
    @pytest.fixture
    def harness(self, fake_harness: FakeClusterHarness) -> SpotHarness:
        return fake_harness


class TestOnARealControlPlane(ProviderSuite):
    @pytest.fixture
    def harness(self, real_harness: RealClusterHarness) -> ProviderHarness:
        return real_harness


class TestSpotOnARealControlPlane(SpotSuite):
    @pytest.fixture
    def harness(self, real_harness: RealClusterHarness) -> SpotHarness:
        return real_harness
