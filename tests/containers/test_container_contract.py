"""Real containers keep the contract of the provider's port."""

import pytest
from container_harness import ContainerHarness

from swell.testing.provider_suite import ProviderSuite

pytestmark = [pytest.mark.services, pytest.mark.containers]


class TestContainerProvider(ProviderSuite):
    @pytest.fixture
    def harness(self, containers: ContainerHarness) -> ContainerHarness:
        return containers
