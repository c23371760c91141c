"""Usage and charges as rows of FOCUS 1.2, the FinOps Open Cost and Usage Specification's cost and usage data set.

Pure. One row for each hour of UTC, tenant, key, model, status, price and kind of token. What each cost column holds:

- `BilledCost` and `EffectiveCost` are what the ledger charged. A request is charged once, rounded up to a nano-dollar;
  an hour's charge is split between prompt and completion in proportion to their cost at the rates, and what division
  leaves over goes to the completion, so that the two rows always sum to the ledger's charge, to the nano-dollar.
- `ListCost` and `ContractedCost` are `PricingQuantity x ListUnitPrice`, exactly: tokens in millions (six digits after
  the point) by dollars per million (nine) make fifteen digits, and none is cut off. Nobody negotiates: both are equal.

So the two differ by rounding, by less than a nano-dollar a request and one for the split; and by more only where an
engine reported more tokens than the request's bound, which is what was charged.

Beside 1.2's columns stand `ServiceProviderName`, which 1.3 has in place of `ProviderName`, and own ones (`x_`).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from swell.state.usage_groups import BUCKET_MS, GroupColumn, UsageGroup
from swell.units import usd_text

BY: tuple[GroupColumn, ...] = ("tenant", "key_id", "model", "status", "prompt_rate", "completion_rate")
CURRENCY: Final = "USD"
TAG_PREFIX: Final = "swell/"
_UNKNOWN_MODEL = "unknown"  # of a request whose outcome is in the ledger before its beginning
_PROMPT, _COMPLETION = "prompt", "completion"

COLUMNS: tuple[str, ...] = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId",
    "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory",
    "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags", "x_KeyId",
    "x_Requests", "x_Status", "x_TokenKind",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Line:
    """One kind of token of a group."""

    kind: str
    tokens: int
    rate: int
    charge: int
    requests: int | None


def split_charge(group: UsageGroup) -> tuple[int, int]:
    """Nano-dollars of a group's charge that its prompt and its completion tokens bear; they sum to the charge.

    The group has one price: it was grouped by both rates.
    """
    prompt = group.prompt_tokens * (group.prompt_rate or 0)
    whole = prompt + group.completion_tokens * (group.completion_rate or 0)
    share = group.charge_usd_nanos * prompt // whole if whole else group.charge_usd_nanos
    return share, group.charge_usd_nanos - share


def focus_rows(groups: Iterable[UsageGroup], organisation: str) -> Iterator[dict[str, str | None]]:
    """Rows for groups by `BY` and by hour, as text under `COLUMNS`; None is null. `organisation` bills its tenants.

    Void requests have no row: nothing of them was used.
    """
    for group in groups:
        if not group.requests:
            continue
        prompt, completion = split_charge(group)
        line = _Line(_PROMPT, group.prompt_tokens, group.prompt_rate or 0, prompt, group.requests)
        yield _row(group, line, organisation)
        if group.completion_tokens or completion:
            line = _Line(_COMPLETION, group.completion_tokens, group.completion_rate or 0, completion, None)
            yield _row(group, line, organisation)


def _row(group: UsageGroup, line: _Line, organisation: str) -> dict[str, str | None]:
    model, tenant = group.model or _UNKNOWN_MODEL, group.tenant or None
    listed = scaled(line.tokens * line.rate, 15)
    price, charged = scaled(line.rate, 9), scaled(line.charge, 9)
    sku = f"{model}:{line.kind}-tokens"
    return {
        **_times(group.start_unix_ms or 0),
        "AvailabilityZone": None,
        "BilledCost": charged,
        "BillingAccountId": organisation,
        "BillingAccountName": organisation,
        "BillingCurrency": CURRENCY,
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{line.kind.capitalize()} tokens of {model} at {usd_text(line.rate)} per million",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": str(line.tokens),
        "ConsumedUnit": "Tokens",
        "ContractedCost": listed,
        "ContractedUnitPrice": price,
        "EffectiveCost": charged,
        "InvoiceId": None,
        "InvoiceIssuerName": organisation,
        "ListCost": listed,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingCurrency": CURRENCY,
        "PricingQuantity": scaled(line.tokens, 6),
        "PricingUnit": "1000000 Tokens",
        "ProviderName": organisation,
        "PublisherName": "Swell",
        "RegionId": None,
        "RegionName": None,
        "ResourceId": f"{organisation}/models/{model}",
        "ResourceName": model,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Swell",
        "ServiceProviderName": organisation,
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuMeter": f"{line.kind.capitalize()} Tokens",
        "SkuPriceDetails": _json((("x_Model", model), ("x_TokenKind", line.kind))),
        "SkuPriceId": f"{sku}:{line.rate}",
        "SubAccountId": tenant,
        "SubAccountName": tenant,
        "Tags": _json(_tags(group, model)),
        "x_KeyId": group.key_id or None,
        "x_Requests": None if line.requests is None else str(line.requests),
        "x_Status": str(group.status),
        "x_TokenKind": line.kind,
    }


def _tags(group: UsageGroup, model: str) -> tuple[tuple[str, str], ...]:
    tags = (("tenant", group.tenant), ("key_id", group.key_id), ("model", model))
    return tuple((f"{TAG_PREFIX}{name}", value) for name, value in tags if value)


@lru_cache(maxsize=64)  # the hours of a day come again with every group
def _times(start_unix_ms: int) -> dict[str, str | None]:
    start = datetime.fromtimestamp(start_unix_ms / 1000, UTC)
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    end = datetime.fromtimestamp((start_unix_ms + BUCKET_MS["hour"]) / 1000, UTC)
    return {
        "BillingPeriodStart": _moment(month),
        "BillingPeriodEnd": _moment(after),
        "ChargePeriodStart": _moment(start),
        "ChargePeriodEnd": _moment(end),
    }


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def scaled(value: int, digits: int) -> str:
    """`value` with its last `digits` behind the point, every one of them and no exponent; zeros at the end left out."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    whole, part = divmod(value, 10**digits)
    fraction = f"{part:0{digits}d}".rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


@lru_cache(maxsize=10_000)
def _json(pairs: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(pairs), ensure_ascii=False, separators=(",", ":"))
