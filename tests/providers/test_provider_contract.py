"""Every provider keeps the contract of its port, the fake included."""

import pytest

from swell.testing.provider_suite import ProviderHarness, ProviderSuite, SpotHarness, SpotSuite


class TestFakeProvider(ProviderSuite):
    @pytest.fixture
    def harness(self, fake_harness: ProviderHarness) -> ProviderHarness:
        return fake_harness


class TestFakeProviderOnSpot(SpotSuite):
    @pytest.fixture
    def harness(self, fake_harness: SpotHarness) -> SpotHarness:
        return fake_harness


class TestFakeProviderOnALateMarket(SpotSuite):
    @pytest.fixture
    def harness(self, late_harness: SpotHarness) -> SpotHarness:
        return late_harness


class TestProcessProvider(ProviderSuite):
    @pytest.fixture
    def harness(self, process_harness: ProviderHarness) -> ProviderHarness:
        return process_harness
