"""Where replicas run."""

from enum import StrEnum

from swell.spec.base import SpecModel
from swell.spec.tenants import TenantName


class ProviderKind(StrEnum):
    """What starts the machines or processes beneath replicas."""

    PROCESS = "process"  # child processes of this machine's server


class ProviderSpec(SpecModel):
    """One place where replicas can run."""

    name: TenantName
    kind: ProviderKind = ProviderKind.PROCESS
