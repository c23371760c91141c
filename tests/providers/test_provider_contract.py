"""Every provider keeps the contract of its port, the fake included."""

import pytest

from swell.testing.provider_suite import ProviderHarness, ProviderSuite


class TestFakeProvider(ProviderSuite):
    @pytest.fixture
    def harness(self, fake_harness: ProviderHarness) -> ProviderHarness:
        return fake_harness


class TestProcessProvider(ProviderSuite):
    @pytest.fixture
    def harness(self, process_harness: ProviderHarness) -> ProviderHarness:
        return process_harness
