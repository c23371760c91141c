"""`swell costs`: what replicas cost, who used it, and whether charges recover it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json
from swell.cli.usage import SpecOption, ZoneOption
from swell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swell.cli.access import Access
    from swell.cli.usage_report import Wish
    from swell.metering.attribution import Capability
    from swell.metering.costs import CostQuestion
    from swell.spec import Spec
    from swell.state.replica_runs import ReplicaRun

_GROUPS = {"model": "model", "tenant": "tenant", "key": "key_id"}


class Idle(StrEnum):
    """Who bears what nobody used."""

    OWN = "own"
    SPREAD = "spread"


WorkProfilesOption = Annotated[
    Path | None, typer.Option(help="Your own latency profiles, by which work is measured, besides those that ship.")
]


@command
def costs(
    period: Annotated[str, typer.Option(help="month, day, 2026-11, 2026-11-29, 2026 or all.")] = "month",
    by: Annotated[str, typer.Option(help="Lines by model, tenant, key; with commas.")] = "model,tenant",
    idle: Annotated[Idle, typer.Option(help="A line of its own, or spread over tenants by what they used.")] = Idle.OWN,
    time_zone: ZoneOption = "UTC",
    profiles: WorkProfilesOption = None,
    file: SpecOption = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """What replicas cost: starting, serving by who used it, and idle; and whether charges recover it."""
    from dataclasses import replace

    from swell.cli import cost_report
    from swell.cli.access import server_or_store
    from swell.cli.usage_report import spec_of, wish_of
    from swell.metering.attribution import spread
    from swell.metering.costs import model_costs, span_of

    groups, wish, spec = _groups(by), wish_of(None, period, time_zone, None), spec_of(file)
    with server_or_store(state) as access:
        question = cost_question(access, wish, spec, profiles)
        span = span_of(question.runs, access.usage_span())
        found = model_costs(access.group_usage, question, span)
    if idle is Idle.SPREAD:
        found = [replace(cost, attribution=spread(cost.attribution)) for cost in found]
    work = {cost.model: _measure(question.capability(cost.model)) for cost in found}
    shown = cost_report.document(found, groups, idle.value, question.period, wish.zone.key, work)
    if as_json:
        print_json(shown)
    else:
        cost_report.show(shown)


def _groups(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = next((name for name in names if name not in _GROUPS), None)
    if unknown is not None or not names:
        raise UserError(f"--by {(unknown or text)[:40]!r} is unknown; there are {', '.join(_GROUPS)}")
    return list(dict.fromkeys(_GROUPS[name] for name in names))


def cost_question(access: "Access", wish: "Wish", spec: "Spec | None", profiles: Path | None) -> "CostQuestion":
    """What is asked about replicas' costs: their lives in the period, and how much each model's replica can do."""
    from swell.cli.usage_report import period_of
    from swell.metering.capability import capability_of
    from swell.metering.costs import CostQuestion, span_of
    from swell.metering.reports import ALL
    from swell.state import catalogue

    if wish.period == ALL:
        runs = access.runs(None, None)
        period = period_of(wish, span_of(runs, access.usage_span()))
    else:
        period = period_of(wish, None)
        end = None if period.end_unix is None else round(period.end_unix * 1000)
        runs = access.runs(round(period.start_unix * 1000), end)
    declared = {} if spec is None else {model.name: model for model in spec.models}
    adapters = {adapter.name: model.name for model in declared.values() for adapter in model.lora}
    own = {} if profiles is None else catalogue.load_profiles(profiles, extend=False)

    def capability(model: str) -> "Capability":
        spec_of = declared.get(model)
        is_spanning = spec_of is not None and spec_of.nodes > 1  # profiles that ship are of one machine
        return capability_of(model, spec_of, "" if is_spanning else _accelerator(runs, model), own)

    return CostQuestion(runs, period, wish.zone, capability, lambda name: adapters.get(name, name))


def _accelerator(runs: "Sequence[ReplicaRun]", model: str) -> str:
    """What the model's replicas ran on for the longest time; empty where nobody said."""
    lived: dict[str, int] = {}
    for run in runs:
        if run.model == model and run.accelerator:
            lived[run.accelerator] = lived.get(run.accelerator, 0) + run.until_unix_ms - run.started_unix_ms
    return max(lived, key=lambda name: (lived[name], name), default="")


def _measure(capability: "Capability") -> str:
    """By what work was measured, in words."""
    return "tokens, no profile" if capability.profile is None else capability.profile.name
