"""How `swell costs` shows what was added up: lines that sum to the cost, and each model's figures."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from swell.cli.output import print_table
from swell.metering.costs import ModelCost
from swell.metering.infrastructure import MS_PER_HOUR
from swell.metering.periods import Period
from swell.units import usd, usd_text

USED, STARTING, IDLE = "used", "starting", "idle"
_AMOUNTS = ("cost", "charge", "recovery")


def document(
    costs: Sequence[ModelCost], by: Sequence[str], idle: str, period: Period, zone: str, work: dict[str, str]
) -> dict[str, Any]:
    """For machines: lines whose costs add up to the total's, whole nano-dollars and decimal text of each amount."""
    return {
        "period": {
            "label": period.label,
            "start_unix": period.start_unix,
            "end_unix": period.end_unix,
            "time_zone": zone,
        },
        "by": list(by),
        "idle": idle,
        "lines": _lines(costs, by),
        "models": [
            {
                "model": cost.model,
                "work": work[cost.model],
                **_money({STARTING: cost.attribution.starting_usd_nanos, USED: cost.attribution.used_usd_nanos,
                          IDLE: cost.attribution.idle_usd_nanos}),
                **_sums(cost.attribution.total_usd_nanos, cost.attribution.charge_usd_nanos),
                "replica_hours": {market: _hours(ms) for market, ms in sorted(cost.replica_ms.items())},
            }
            for cost in costs
        ],
        "total": _sums(
            sum(cost.attribution.total_usd_nanos for cost in costs),
            sum(cost.attribution.charge_usd_nanos for cost in costs),
        ),
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """For people."""
    period, by = found["period"], found["by"]
    columns = (*by, "line", "requests", *_AMOUNTS)
    rows = [
        (*(line[name] for name in by), line["line"], line["requests"] or "", *_texts(line))
        for line in found["lines"]
        if line["cost_usd_nanos"] or line["charge_usd_nanos"]
    ]
    if rows:
        print(f"{period['label']}, {period['time_zone']}")
        rows.append(("total", *("" for _ in by), "", *_texts(found["total"])))
    print_table(columns, rows, empty=f"No replica cost anything in {period['label']} ({period['time_zone']}).")
    for model in found["models"]:
        hours = ", ".join(f"{hours} {market}" for market, hours in model["replica_hours"].items()) or "0"
        print(f"{model['model']}: replica-hours {hours}; work by {model['work']}")


def _lines(costs: Sequence[ModelCost], by: Sequence[str]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, ...], list[int]] = {}

    def add(line: str, values: dict[str, str], requests: int, cost: int, charge: int) -> None:
        found = sums.setdefault((*(values.get(name, "") for name in by), line), [0, 0, 0])
        for place, amount in enumerate((requests, cost, charge)):
            found[place] += amount

    for cost in costs:
        for (tenant, key_id), line in cost.attribution.used.items():
            values = {"model": cost.model, "tenant": tenant, "key_id": key_id}
            add(USED, values, line.load.requests, line.cost_usd_nanos, line.load.charge_usd_nanos)
        add(STARTING, {"model": cost.model}, 0, cost.attribution.starting_usd_nanos, 0)
        add(IDLE, {"model": cost.model}, 0, cost.attribution.idle_usd_nanos, 0)
    return [
        {**dict(zip(by, key, strict=False)), "line": key[-1], "requests": requests, **_sums(cost, charge)}
        for key, (requests, cost, charge) in sorted(sums.items(), key=lambda item: _order(item[0], by))
    ]


def _order(key: tuple[str, ...], by: Sequence[str]) -> tuple[object, ...]:
    """A model's used lines first, then starting and idle; where models are not told apart, those come last."""
    lines = (USED, STARTING, IDLE)
    model = key[by.index("model")] if "model" in by else ""
    return model, lines.index(key[-1]), key


def _sums(cost: int, charge: int) -> dict[str, Any]:
    return _money({"cost": cost, "charge": charge, "recovery": charge - cost})


def _money(amounts: dict[str, int]) -> dict[str, Any]:
    return {
        f"{name}_{unit}": value
        for name, nanos in amounts.items()
        for unit, value in (("usd_nanos", nanos), ("usd", format(usd(nanos), "f")))
    }


def _texts(line: dict[str, Any]) -> list[str]:
    return [usd_text(line[f"{name}_usd_nanos"]) for name in _AMOUNTS]


def _hours(ms: int) -> str:
    return format((Decimal(ms) / MS_PER_HOUR).quantize(Decimal("0.001")), "f")
