"""`swell plan`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.output import JsonOption, command, print_json, print_table
from swell.errors import UserError

if TYPE_CHECKING:
    from swell.policy.scaling.placement import Placement, PlacementRules
    from swell.server.planning import Level, Plan
    from swell.state.scaling import Objective, Pool

_DEFAULT_WAIT_MS = 5000.0
_MAX_REPLICAS = 10_000

TraceOption = Annotated[Path | None, typer.Option(help="Requests to plan for, plain or compressed.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="The trace's format. Without: by its columns.")]
RateOption = Annotated[float | None, typer.Option(help="Requests a second, instead of a trace.", min=0, max=1e9)]
PromptOption = Annotated[float | None, typer.Option(help="Mean tokens of a prompt, with --rate.", min=1, max=1e7)]
OutputOption = Annotated[float | None, typer.Option(help="Mean tokens of an answer, with --rate.", min=1, max=1e7)]
ModelOption = Annotated[str, typer.Option(help="The model, by its profile's name or its publisher's.")]
AcceleratorsOption = Annotated[
    str | None, typer.Option(help="Candidates, such as L4,A100-80GB,4xH100. Without: all with a profile and a price.")
]
TtftOption = Annotated[
    float | None,
    typer.Option(help="To the first token. Without: 5000 beyond the prompt's own processing.", min=1, max=86_400_000),
]
ItlOption = Annotated[float, typer.Option(help="Longest mean time between two tokens.", min=0.1, max=600_000)]
AttainmentOption = Annotated[float, typer.Option(help="Share of requests that shall meet both.", min=0.5, max=0.9999)]
SpotOption = Annotated[bool, typer.Option("--spot/--no-spot", help="Whether spot machines may be part of the mix.")]
FractionOption = Annotated[
    float | None, typer.Option(help="The most of the capacity that spot may be; implies --spot.", min=0, max=1)
]
BaseOption = Annotated[int, typer.Option(help="On-demand replicas at least.", min=0, max=_MAX_REPLICAS)]
LeastOption = Annotated[int, typer.Option(help="Replicas at least.", min=0, max=_MAX_REPLICAS)]
CeilingOption = Annotated[float | None, typer.Option(help="Spend no more; serve what that allows.", min=0)]
HazardOption = Annotated[
    float | None, typer.Option(help="Preemptions of one spot replica in an hour. Without: 0.25.", min=0, max=3600)
]
StartOption = Annotated[float | None, typer.Option(help="From order to ready. Without: 120.", min=0, max=86_400)]
CloudsOption = Annotated[str | None, typer.Option(help="Only these, such as aws,gcp.")]
RegionsOption = Annotated[str | None, typer.Option(help="Only these, such as us-east-1.")]
HeadroomOption = Annotated[
    float | None, typer.Option(help="Times the rate. Without: what bursts inside ten minutes need.", min=1, max=100)
]
ProfilesOption = Annotated[Path | None, typer.Option(help="Your own latency profiles, besides those that ship.")]
FitOption = Annotated[
    str | None, typer.Option(help="Only on what this model fits, and why: a folder with its config.json, or a name.")
]
ContextOption = Annotated[int | None, typer.Option(help="Of the longest request, with --fit.", min=64, max=100_000_000)]
WeightBitsOption = Annotated[
    int | None, typer.Option(help="Of a weight, with --fit. Without: as published.", min=2, max=32)
]
KvBitsOption = Annotated[int, typer.Option(help="Of a number in the KV cache, with --fit: 16 or 8.", min=8, max=16)]
NodesOption = Annotated[int, typer.Option(help="Machines of one replica, with --fit.", min=1, max=64)]
PricesOption = Annotated[Path | None, typer.Option(help="Your own prices, in place of those that ship.")]


@command
def plan(
    trace: TraceOption = None,
    trace_format: FormatOption = None,
    rate: RateOption = None,
    prompt_tokens: PromptOption = None,
    output_tokens: OutputOption = None,
    model: ModelOption = "llama-3.1-8b",
    accelerators: AcceleratorsOption = None,
    ttft_ms: TtftOption = None,
    itl_ms: ItlOption = 100.0,
    attainment: AttainmentOption = 0.99,
    spot: SpotOption = False,
    max_spot_fraction: FractionOption = None,
    on_demand_base: BaseOption = 0,
    min_replicas: LeastOption = 0,
    usd_per_hour: CeilingOption = None,
    hazard_per_hour: HazardOption = None,
    start_seconds: StartOption = None,
    clouds: CloudsOption = None,
    regions: RegionsOption = None,
    headroom: HeadroomOption = None,
    profiles: ProfilesOption = None,
    prices: PricesOption = None,
    fit: FitOption = None,
    context_tokens: ContextOption = None,
    weight_bits: WeightBitsOption = None,
    kv_bits: KvBitsOption = 16,
    nodes: NodesOption = 1,
    as_json: JsonOption = False,
) -> None:
    """The cheapest machines for some traffic and an objective: accelerators, replicas, spot, and what was rejected."""
    if fit is not None:
        from swell.cli.fit import plan_fit

        if trace is not None or rate is not None:
            raise UserError("--fit asks only what memory allows; leave --trace and --rate out, or --fit")
        plan_fit(fit, _names(accelerators), context_tokens, weight_bits, kv_bits, prices, nodes=nodes, as_json=as_json)
        return
    from swell.policy.scaling.placement import PlacementRules
    from swell.server import planning
    from swell.state.scaling import Objective

    objective = Objective(
        _DEFAULT_WAIT_MS if ttft_ms is None else ttft_ms, itl_ms, attainment, beyond_prefill=ttft_ms is None
    )
    pools = _pools(
        model, accelerators, spot or max_spot_fraction is not None, hazard_per_hour, start_seconds, profiles, prices,
        _names(clouds), _names(regions),
    )  # fmt: skip
    levels = _levels(trace, trace_format, rate, prompt_tokens, output_tokens, headroom, pools, objective)
    rules = PlacementRules(
        on_demand_base=on_demand_base,
        max_spot_fraction=1.0 if max_spot_fraction is None else max_spot_fraction,
        min_replicas=min_replicas,
        usd_per_hour=usd_per_hour,
    )
    with _progress(shown=not as_json and sys.stderr.isatty()) as told:
        found = planning.plan(pools, levels, objective, rules, told)
    if as_json:
        print_json(_document(model, objective, rules, found))
    else:
        _print(model, objective, found)


def _levels(
    trace: Path | None, trace_format: str | None, rate: float | None, prompt: float | None, output: float | None,
    headroom: float | None, pools: "tuple[Pool, ...]", objective: "Objective",
) -> "list[Level]":  # fmt: skip
    from swell.server.planning import level_of_rate, levels_of_traffic
    from swell.simulator.traffic import load

    if (trace is None) == (rate is None):
        raise UserError("give either --trace FILE, or --rate R with --prompt-tokens N and --output-tokens M")
    if trace is not None:
        if prompt is not None or output is not None:
            raise UserError("--prompt-tokens and --output-tokens go with --rate; a trace has lengths of its own")
        return levels_of_traffic(load(trace, trace_format), pools, objective, headroom)
    if rate is None or prompt is None or output is None:
        raise UserError("--rate needs --prompt-tokens N and --output-tokens M, the mean lengths of a request")
    return [level_of_rate(rate, prompt, output, headroom)]


def _pools(
    model: str, accelerators: str | None, spot: bool, hazard: float | None, start: float | None,
    own_profiles: Path | None, own_prices: Path | None, clouds: list[str] | None, regions: list[str] | None,
) -> "tuple[Pool, ...]":  # fmt: skip
    from swell.server.planning import known_accelerators
    from swell.state import catalogue
    from swell.state.scaling import Market

    profiles = catalogue.profiles() if own_profiles is None else catalogue.load_profiles(own_profiles)
    prices = catalogue.prices() if own_prices is None else catalogue.load_prices(own_prices)
    if accelerators is None:
        sold = [
            price.accelerator
            for price in prices
            if price.on_demand_usd_per_hour is not None and catalogue.is_there(price, clouds, regions)
        ]
        names = known_accelerators(model, list(profiles.values()), sold)
        if not names:
            profile = catalogue.find_profile(model, catalogue.DEFAULT_ACCELERATOR, None, profiles)
            raise UserError(f"no price of anything that {profile.model} runs on is listed there; name other clouds")
    else:
        names = _names(accelerators) or []
    if not names:
        raise UserError("--accelerators names none; give names with commas, such as L4,A100-80GB")
    return catalogue.pools_for(
        model,
        list(dict.fromkeys(names)),
        markets=(Market.ON_DEMAND, Market.SPOT) if spot else (Market.ON_DEMAND,),
        start_seconds=catalogue.DEFAULT_START_SECONDS if start is None else start,
        hazard_per_hour=catalogue.DEFAULT_HAZARD_PER_HOUR if hazard is None else hazard,
        clouds=clouds,
        regions=regions,
        known_profiles=profiles,
        known_prices=prices,
    )


def _names(text: str | None) -> list[str] | None:
    """What stands between commas; None where nothing was said."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, where a person waits."""
    if not shown:
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("planning", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _mix(placement: "Placement") -> "list[tuple[Pool, int]]":
    counts = dict(placement.counts)
    return [(pool, counts[pool.name]) for pool in placement.inputs.pools if counts[pool.name]]


def _document(model: str, objective: "Objective", rules: "PlacementRules", found: "Plan") -> dict[str, Any]:
    from dataclasses import asdict
    from math import isfinite

    from swell.server.planning import HOURS_PER_MONTH

    peak, level = found.peak, found.levels[0]
    served, hourly = dict(peak.served), peak.usd_per_hour
    return {
        "model": model,
        "objective": asdict(objective),
        "requests_per_second": level.requests_per_second,
        "headroom": level.headroom,
        "mix": [
            {"pool": pool.name, "accelerator": pool.profile.accelerator, "count": pool.profile.accelerator_count,
             "market": pool.market, "zone": pool.zone, "replicas": count, "usd_per_hour": count * pool.usd_per_hour}
            for pool, count in _mix(peak)
        ],
        "replicas": peak.replicas,
        "usd_per_hour": hourly,
        "usd_per_month": hourly * HOURS_PER_MONTH,
        "disruption_usd_per_hour": peak.disruption_usd_per_hour,
        "zone_loss_missed": peak.zone_loss_missed,
        "following_demand": {
            "usd_per_hour": found.following_usd_per_hour,
            "usd_per_month": found.following_usd_per_hour * HOURS_PER_MONTH,
            "levels": [
                {"share": each.share, "requests_per_second": each.requests_per_second, "headroom": each.headroom,
                 "replicas": {pool.name: count for pool, count in _mix(placement)},
                 "usd_per_hour": placement.usd_per_hour + placement.disruption_usd_per_hour}
                for each, placement in zip(found.levels, found.placements, strict=True)
            ],
        },
        "binding": peak.binding,
        "given_up": peak.given_up,
        "spend_ceiling_usd_per_hour": rules.usd_per_hour,
        "alternatives": [
            {"name": other.name, "replicas": dict(other.counts), "usd_per_hour": other.usd_per_hour,
             "disruption_usd_per_hour": other.disruption_usd_per_hour, "served": other.served, "why_not": other.why}
            for other in peak.rejected
        ],
        "replica": [
            {key: value for key, value in asdict(each).items() if not isinstance(value, float) or isfinite(value)}
            for each in found.replicas
        ],
        "demand": [
            {"name": bucket.name, "requests_per_second": bucket.requests_per_second,
             "prompt_tokens": bucket.mix.prompt, "output_tokens": bucket.mix.output, "served": served[bucket.name]}
            for bucket in level.demand
        ],
        "method": peak.method,
    }  # fmt: skip


def _print(model: str, objective: "Objective", found: "Plan") -> None:
    from swell.server.planning import HOURS_PER_MONTH

    level, peak = found.levels[0], found.peak
    first = f"{objective.ttft_ms:g} ms" + (" beyond the prompt's own processing" if objective.beyond_prefill else "")
    when = "in the busiest ten minutes" if len(found.levels) > 1 else "all the time"
    print(f"{model}: {level.requests_per_second:.3g} requests/s {when}, {level.headroom:.2f} times that for bursts;")
    print(f"{objective.attainment:.1%} with the first token in {first}, then one every {objective.itl_ms:g} ms")
    print_table(
        ("machine", "market", "zone", "replicas", "usd/h", "usd/month"),
        [
            (pool.profile.name.rpartition("@")[2], pool.market.replace("_", "-"), pool.zone, count,
             f"{count * pool.usd_per_hour:.2f}", f"{count * pool.usd_per_hour * HOURS_PER_MONTH:,.0f}")
            for pool, count in _mix(peak)
        ],
        empty="Nothing is needed.",
    )  # fmt: skip
    print(
        f"  in all               {peak.usd_per_hour:.2f} usd/h, {peak.usd_per_hour * HOURS_PER_MONTH:,.0f} usd a month"
    )
    if peak.disruption_usd_per_hour > 0:
        print(f"  preemptions          {peak.disruption_usd_per_hour:.2f} usd/h more, for starts and work done twice;")
        print(f"                       {peak.zone_loss_missed:.2%} of requests miss because a zone is lost")
    if len(found.levels) > 1:
        following = found.following_usd_per_hour
        print(f"  following demand     {following:.2f} usd/h, {following * HOURS_PER_MONTH:,.0f} usd a month")
    print(f"  what binds           {', '.join(peak.binding)}")
    for given_up in peak.given_up:
        print(f"  given up             {given_up}")
    print_table(
        ("rejected", "replicas", "usd/h", "why"),
        [(o.name, ", ".join(f"{n} {p}" for p, n in o.counts) or "none", f"{o.usd_per_hour:.2f}", o.why)
         for o in peak.rejected],
        empty="Nothing else was possible.",
    )  # fmt: skip
    print_table(
        ("one replica", "prompt ms", "batch", "step ms", "token ms", "requests/s", "tokens/s", "usd/million requests"),
        [
            (each.machine, f"{each.prefill_ms:.0f}", each.batch, f"{each.step_ms:.1f}", f"{each.itl_ms:.1f}",
             f"{each.requests_per_second:.3g}", f"{each.output_tokens_per_second:.0f}",
             each.why_not or f"{each.usd_per_million_requests:,.0f}")
            for each in found.replicas
        ],
        empty="",
    )  # fmt: skip
