"""The Kubernetes provider keeps the contract of its port."""

import pytest
from kube_harness import FakeClusterHarness

from swell.testing.provider_suite import ProviderHarness, ProviderSuite


class TestOnAClusterOfMakeBelieve(ProviderSuite):
    @pytest.fixture
    def harness(self, fake_harness: FakeClusterHarness) -> ProviderHarness:
        return fake_harness
