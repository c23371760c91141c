"""FOCUS 1.2's normative requirements for the columns of the export, column by column, as the specification words them.

Data types, nullability, value formats and allowed values of version 1.2, and of `ServiceProviderName` in 1.3. What the
specification asks only of providers with commitments, capacity reservations, several currencies, regions or invoices
does not arise; such columns are absent or null.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

Row = Mapping[str, str | None]

MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName",
}  # fmt: skip
RECOMMENDED = {"AvailabilityZone", "ChargeFrequency", "InvoiceId", "ServiceSubcategory"}
# Present because the condition holds: usage is measured, unit prices are published, sub accounts and tags exist.
CONDITIONAL = {
    "ConsumedQuantity", "ConsumedUnit", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingCurrency",
    "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "SkuId", "SkuMeter", "SkuPriceDetails",
    "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
}  # fmt: skip
LATER = {"ServiceProviderName"}  # 1.3

MOMENT = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")  # no plus, no comma, no unit, no currency
CURRENCY = re.compile(r"[A-Z]{3}")  # ISO 4217
_UNIT = r"(Counts|Units|Requests|Tokens|Connections|Certificates|Domains|Cores)"
UNIT = re.compile(rf"([1-9]\d* )?{_UNIT}(/(Year|Month|Day|Hour|Minute|Second))?")
PASCAL = re.compile(r"([A-Z][a-z]*)+")
CUSTOM = re.compile(r"x_([A-Z][a-z]*)+")

CHARGE_CATEGORIES = {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
CHARGE_CLASSES = {"Correction"}
CHARGE_FREQUENCIES = {"One-Time", "Recurring", "Usage-Based"}
PRICING_CATEGORIES = {"Standard", "Dynamic", "Committed", "Other"}
SERVICE_CATEGORIES = {
    "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools",
    "Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration",
    "Mobile", "Networking", "Security", "Storage", "Web", "Other",
}  # fmt: skip
SUBCATEGORIES = {
    "AI and Machine Learning": {
        "AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing",
        "Other (AI and Machine Learning)",
    },
}  # fmt: skip
PRICE_PROPERTIES = {
    "CoreCount", "DiskMaxIops", "DiskSpace", "DiskType", "GpuCount", "InstanceType", "InstanceSeries", "MemorySize",
    "NetworkMaxIops", "NetworkMaxThroughput", "OperatingSystem", "Redundancy", "StorageClass",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """What a value must look like; `is_null_allowed` is the column's "Allows nulls"."""

    check: Callable[[str], bool]
    is_null_allowed: bool = False


def is_text(value: str) -> bool:
    return bool(value.strip())  # neither empty nor spaces alone


def is_decimal(value: str) -> bool:
    return NUMBER.fullmatch(value) is not None and Decimal(value).is_finite()


def is_price(value: str) -> bool:
    return is_decimal(value) and Decimal(value) >= 0


def is_moment(value: str) -> bool:
    return MOMENT.fullmatch(value) is not None


def is_object(value: str) -> bool:
    """A JSON object with unique keys, and values that are neither objects nor arrays."""
    pairs = json.loads(value, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    return len(set(names)) == len(names) and not any(isinstance(inner, list | dict) for _, inner in pairs)


def one_of(values: set[str]) -> Callable[[str], bool]:
    return values.__contains__


def matching(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


COLUMNS: dict[str, Column] = {
    "AvailabilityZone": Column(is_text, is_null_allowed=True),
    "BilledCost": Column(is_decimal),
    "BillingAccountId": Column(is_text),
    "BillingAccountName": Column(is_text, is_null_allowed=True),
    "BillingCurrency": Column(matching(CURRENCY)),
    "BillingPeriodEnd": Column(is_moment),
    "BillingPeriodStart": Column(is_moment),
    "ChargeCategory": Column(one_of(CHARGE_CATEGORIES)),
    "ChargeClass": Column(one_of(CHARGE_CLASSES), is_null_allowed=True),
    "ChargeDescription": Column(is_text, is_null_allowed=True),
    "ChargeFrequency": Column(one_of(CHARGE_FREQUENCIES)),
    "ChargePeriodEnd": Column(is_moment),
    "ChargePeriodStart": Column(is_moment),
    "ConsumedQuantity": Column(is_decimal, is_null_allowed=True),
    "ConsumedUnit": Column(matching(UNIT), is_null_allowed=True),
    "ContractedCost": Column(is_decimal),
    "ContractedUnitPrice": Column(is_price, is_null_allowed=True),
    "EffectiveCost": Column(is_decimal),
    "InvoiceId": Column(is_text, is_null_allowed=True),
    "InvoiceIssuerName": Column(is_text),
    "ListCost": Column(is_decimal),
    "ListUnitPrice": Column(is_price, is_null_allowed=True),
    "PricingCategory": Column(one_of(PRICING_CATEGORIES), is_null_allowed=True),
    "PricingCurrency": Column(matching(CURRENCY)),
    "PricingQuantity": Column(is_decimal, is_null_allowed=True),
    "PricingUnit": Column(matching(UNIT), is_null_allowed=True),
    "ProviderName": Column(is_text),
    "PublisherName": Column(is_text),
    "RegionId": Column(is_text, is_null_allowed=True),
    "RegionName": Column(is_text, is_null_allowed=True),
    "ResourceId": Column(is_text, is_null_allowed=True),
    "ResourceName": Column(is_text, is_null_allowed=True),
    "ResourceType": Column(is_text, is_null_allowed=True),
    "ServiceCategory": Column(one_of(SERVICE_CATEGORIES)),
    "ServiceName": Column(is_text),
    "ServiceProviderName": Column(is_text),
    "ServiceSubcategory": Column(one_of(SUBCATEGORIES["AI and Machine Learning"])),
    "SkuId": Column(is_text, is_null_allowed=True),
    "SkuMeter": Column(is_text, is_null_allowed=True),
    "SkuPriceDetails": Column(is_object, is_null_allowed=True),
    "SkuPriceId": Column(is_text, is_null_allowed=True),
    "SubAccountId": Column(is_text, is_null_allowed=True),
    "SubAccountName": Column(is_text, is_null_allowed=True),
    "Tags": Column(is_object, is_null_allowed=True),
    "x_KeyId": Column(is_text, is_null_allowed=True),
    "x_Requests": Column(is_decimal, is_null_allowed=True),
    "x_Status": Column(one_of({"settled", "estimated", "reserved"})),
    "x_TokenKind": Column(one_of({"prompt", "completion"})),
}
# For a usage charge that is no correction these must not be null, though the column allows nulls.
NEVER_NULL_FOR_USAGE = {
    "ConsumedQuantity", "ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingQuantity", "SkuId",
    "SkuPriceId",
}  # fmt: skip
# Null together, or not at all.
TOGETHER = (
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
    ("SubAccountId", "SubAccountName"),
    ("SkuId", "SkuMeter"),
    ("SkuPriceId", "SkuPriceDetails"),
)


def check_row(row: Row) -> None:
    """Every rule that one row can keep or break."""
    for name, column in COLUMNS.items():
        value = row[name]
        if value is None:
            assert column.is_null_allowed, f"{name} must not be null"
            assert name not in NEVER_NULL_FOR_USAGE, f"{name} must not be null for usage"
        else:
            assert column.check(value), f"{name} cannot be {value!r}"
    for one, other in TOGETHER:
        assert (row[one] is None) == (row[other] is None), f"{one} and {other} must be null together"
    _check_times(row)
    _check_costs(row)
    assert row["ChargeCategory"] == "Usage"
    assert row["ChargeFrequency"] == "Usage-Based"
    assert row["ResourceName"] != row["ResourceId"]
    for name in json.loads(row["SkuPriceDetails"] or "{}"):
        assert name in PRICE_PROPERTIES or CUSTOM.fullmatch(name), f"{name} is no property of a price"


def _check_times(row: Row) -> None:
    """ISO 8601 in UTC sorts as text. Starts are included and ends are not."""
    start, end = row["ChargePeriodStart"], row["ChargePeriodEnd"]
    first, last = row["BillingPeriodStart"], row["BillingPeriodEnd"]
    assert start is not None and end is not None and first is not None and last is not None  # noqa: PT018
    assert first <= start < end <= last, "the charge period must lie in the billing period"


def _check_costs(row: Row) -> None:
    def amount(name: str) -> Decimal:
        return Decimal(row[name] or "")

    quantity = amount("PricingQuantity")
    assert quantity * amount("ListUnitPrice") == amount("ListCost")
    assert quantity * amount("ContractedUnitPrice") == amount("ContractedCost")
    assert amount("ContractedCost") == amount("ListCost"), "without negotiated discounts it defaults to the list cost"
    assert amount("EffectiveCost") == amount("BilledCost"), "nothing is paid ahead, so nothing is amortized"
    usage_is_positive = (quantity, amount("BilledCost"), amount("ListCost"), amount("ConsumedQuantity"))
    assert min(usage_is_positive) >= 0, "usage that is no refund has no negative quantity or cost"
    assert quantity * 10**6 == amount("ConsumedQuantity"), "the pricing unit is a million consumed units"


def check_rows(rows: list[Row]) -> None:
    """What must hold between rows."""
    parents: dict[str | None, set[str | None]] = {}
    prices: dict[str | None, set[tuple[str | None, str | None]]] = {}
    services: dict[str | None, set[tuple[str | None, str | None]]] = {}
    for row in rows:
        check_row(row)
        parents.setdefault(row["SkuPriceId"], set()).add(row["SkuId"])
        prices.setdefault(row["SkuPriceId"], set()).add((row["ListUnitPrice"], row["SkuPriceDetails"]))
        services.setdefault(row["ServiceName"], set()).add((row["ServiceCategory"], row["ServiceSubcategory"]))
    assert all(len(each) == 1 for each in parents.values()), "a SKU price has one and only one parent SKU"
    assert all(len(each) == 1 for each in prices.values()), "a SKU price leads to one unit price and its details"
    assert all(len(each) == 1 for each in services.values()), "a service has one category and one subcategory"
