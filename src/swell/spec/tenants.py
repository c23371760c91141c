"""Who may use the models, and how much of them."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from swell.spec.aliases import AliasTable
from swell.spec.base import Count, SpecModel, Text
from swell.spec.budgets import Budgets

MAX_TENANTS = 10_000
MAX_LIMIT = 10**15  # of a tenant or a key; far above any use, far below what a message can carry

TenantName = Annotated[Text, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Limit = Annotated[Count, Field(ge=0, le=MAX_LIMIT)]


class Priority(StrEnum):
    """Classes of requests, served in this order when replicas are busy."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class LimitsSpec(SpecModel):
    """Admission limits, held over all workers. A limit left out is no limit; 0 admits nothing."""

    aliases: ClassVar[AliasTable] = {
        "rpm_limit": ("requests_per_minute",),
        "tpm_limit": ("tokens_per_minute",),
        "max_parallel_requests": ("concurrent_requests",),
    }

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent_requests: Limit | None = None


class TenantSpec(SpecModel):
    """A group of keys that share limits."""

    aliases: ClassVar[AliasTable] = {
        "tenant_name": ("name",),
        "rpm_limit": ("limits", "requests_per_minute"),
        "tpm_limit": ("limits", "tokens_per_minute"),
        "max_parallel_requests": ("limits", "concurrent_requests"),
        "max_budget": ("budget", "usd"),
        "budget_duration": ("budget", "period"),
    }

    name: TenantName
    limits: LimitsSpec = LimitsSpec()
    budget: Budgets = Field(default=(), description="What its requests may cost; one budget, or several.")
    priority: Priority = Field(default=Priority.STANDARD, description="The best class its requests may ask for.")
