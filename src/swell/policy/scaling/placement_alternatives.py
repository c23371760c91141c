"""What else could have been placed, and why it was not: other machines, and rules let go one at a time. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from swell.policy.scaling.placement_choice import Alternative, Placement, choose
from swell.policy.scaling.placement_problem import PlacementInputs
from swell.state.scaling import Market, Pool

_MOST_MACHINES = 8
_CHEAPER = 0.999  # by more than the solver's gap


def alternatives(placement: Placement) -> tuple[Alternative, ...]:
    """Placements with fewer choices, dearest rule last. Those that come to the same placement are left out."""
    found: list[Alternative] = []
    seen = {_used(placement)}
    for name, inputs, ignored in _variants(placement):
        other = choose(inputs, placement.at)
        if _used(other) in seen:
            continue
        seen.add(_used(other))
        found.append(_judged(name, other, placement, ignored))
    return tuple(found)


def binding(placement: Placement, rejected: Sequence[Alternative]) -> tuple[str, ...]:
    """Rules that are used up, and those without which it would be cheaper or serve more."""
    total, served = placement.usd_per_hour + placement.disruption_usd_per_hour, _served(placement)
    found = [rule for rule in placement.binding if rule != "demand"]
    for other in rejected:
        is_cheaper = other.usd_per_hour + other.disruption_usd_per_hour < total * _CHEAPER
        if other.ignores and other.ignores not in found and (is_cheaper or other.served > served + 1e-6):
            found.append(other.ignores)
    return tuple(found) or ("demand",)


def machine(pool: Pool) -> str:
    """The accelerators of a replica, such as `L4` or `4xH100`."""
    return pool.profile.name.rpartition("@")[2]


def _variants(placement: Placement) -> Iterator[tuple[str, PlacementInputs, str]]:
    """(name, inputs, the rule that it ignores)."""
    inputs, rules = placement.inputs, placement.inputs.rules
    counts = dict(placement.counts)
    machines = list(dict.fromkeys(machine(pool) for pool in inputs.pools))
    spend = {
        kind: sum(counts[p.name] * p.usd_per_hour for p in inputs.pools if machine(p) == kind) for kind in machines
    }
    on_demand = tuple(pool for pool in inputs.pools if pool.market is Market.ON_DEMAND)
    if len(on_demand) < len(inputs.pools) and on_demand:
        yield "on demand only", replace(inputs, pools=on_demand), ""
    if len(machines) > 1:
        dearest = max(machines, key=lambda kind: spend[kind])
        without = tuple(pool for pool in inputs.pools if machine(pool) != dearest)
        yield f"without {dearest}", replace(inputs, pools=without), ""
        for kind in machines[:_MOST_MACHINES]:
            yield f"{kind} only", replace(inputs, pools=tuple(p for p in inputs.pools if machine(p) == kind)), ""
    if rules.on_demand_base and on_demand:
        yield "no on-demand base", replace(inputs, rules=replace(rules, on_demand_base=0)), "on-demand base"
    if rules.max_spot_fraction < 1:
        yield "any share of spot", replace(inputs, rules=replace(rules, max_spot_fraction=1.0)), "spot fraction"
    if any(pool.market is Market.SPOT for pool in inputs.pools) and rules.loss_share != 1:
        yield "no reserve", replace(inputs, rules=replace(rules, loss_share=1.0)), "loss of a zone"
    if rules.usd_per_hour is not None:
        yield "no spend ceiling", replace(inputs, rules=replace(rules, usd_per_hour=None)), "spend ceiling"


def _used(placement: Placement) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, count) for name, count in placement.counts if count))


def _judged(name: str, other: Placement, chosen: Placement, ignored: str) -> Alternative:
    served, mine = _served(other), _served(chosen)
    total = other.usd_per_hour + other.disruption_usd_per_hour
    saved = chosen.usd_per_hour + chosen.disruption_usd_per_hour - total
    if ignored:
        why = f"ignores the {ignored}"
    elif served < mine - 1e-6:
        why = f"serves only {served:.1%}"
    elif saved < 0:
        why = f"costs {-saved:.2f} usd/h more"
    else:
        why = "keeps fewer rules" if other.given_up else "would have to be started first"
    return Alternative(name, _used(other), other.usd_per_hour, other.disruption_usd_per_hour, served, why, ignored)


def _served(placement: Placement) -> float:
    """The weighted share of requests."""
    worth = {b.name: b.requests_per_second * b.weight for b in placement.inputs.demand}
    total = sum(worth.values())
    return sum(worth[name] * share for name, share in placement.served) / total if total > 0 else 1.0
