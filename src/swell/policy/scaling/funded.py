"""What a budget makes of a decision: how many of the replicas that are asked for may be had, and what is given up.

Pure."""

from collections.abc import Sequence
from dataclasses import replace

from swell.policy.scaling.spending import coarse, cost, lasts_seconds, most_affordable, rate_ceiling
from swell.policy.scaling.thrift import Ration, ThriftMemory
from swell.state.funding import Fund, Funding, Tariff
from swell.state.scaling import Decision, Observation, Option, Pool
from swell.units import NANOS_PER_USD, usd_text

BINDING = "budget"
BURST_SECONDS = 3600.0  # that the surplus of a budget pays for more than is forecast, at least
_UNBOUNDED = 1_000_000  # replicas
_CENT = NANOS_PER_USD // 100
_HOUR, _DAY = 3600, 86_400


def funded(
    pool: Pool, bounds: tuple[int, int], memory: ThriftMemory, seen: Observation, asked: Decision
) -> tuple[Decision, ThriftMemory]:
    """The decision with no more replicas of the only pool than the budgets pay for, and what of it is remembered."""
    funding, found = seen.funding, memory.ration
    if funding is None:
        return asked, memory
    price = funding.tariff.price(pool.name)
    usual = _usual(memory, bounds, asked)
    most = min(asked.replicas, rationed(memory, usual, funding.tariff, pool))
    count = most_affordable(funding, pool.name, seen.replicas, seen.now, pool.start_seconds, most)
    is_cut = count < most
    memory = replace(memory, is_cut=is_cut, bound_at=seen.now if count < asked.replicas else memory.bound_at)
    asked = replace(asked, wanted=memory.wanted)
    wanted = max(asked.replicas, usual) if found.binds else asked.replicas
    if count >= wanted:
        return asked, memory
    why = asked.reason if asked.is_hold else asked.reason.partition(": ")[2]
    fund = _binding_fund(funding, found, is_cut=is_cut)
    given_up = f"{count} of {wanted} replicas: {1 - count / wanted:.0%} of what is asked for is given up"
    reason = f"{why}; {given_up}{_so_that(fund, count * price, is_cut=is_cut)}"
    is_hold = count == seen.present
    if not is_hold:
        reason = f"{'up' if count > seen.present else 'down'} from {seen.present} to {count}: {reason}"
    return _told(replace(asked, counts=((pool.name, count),), is_hold=is_hold), reason, memory, fund, wanted, price), (
        memory
    )


def funded_mix(
    pool: Pool, memory: ThriftMemory, seen: Observation, asked: Decision, found: Decision
) -> tuple[Decision, ThriftMemory]:
    """The same of a mix that was decided under `rate_allowed`, for `asked` in replicas of the first pool."""
    funding = seen.funding
    if funding is None:
        return found, memory
    is_bound = found.binding == BINDING
    memory = replace(memory, is_cut=is_bound, bound_at=seen.now if is_bound else memory.bound_at)
    found = replace(found, wanted=memory.wanted)
    usual = _usual(memory, (0, asked.replicas), asked) if not memory.now else round(memory.now[0])
    wanted = max(asked.replicas, usual)
    if not is_bound and not (memory.ration.binds and asked.replicas < wanted):
        return found, memory
    price = funding.tariff.price(pool.name)
    rate = sum(funding.tariff.price(name) * count for name, count in found.counts)
    short = 1 - asked.replicas / wanted * (1 - dict(found.inputs).get("short", 0.0)) if wanted else 0.0
    fund = _binding_fund(funding, memory.ration, is_cut=is_bound)
    reason = f"{found.reason}; {short:.0%} of what is asked for is given up{_so_that(fund, rate, is_cut=False)}"
    return _told(found, reason, memory, fund, wanted, price), memory


def capped(pool: Pool, bounds: tuple[int, int], memory: ThriftMemory, seen: Observation, asked: Decision) -> Decision:
    """What is asked of a mix, in replicas of the first pool, without what the ration does not allow."""
    if seen.funding is None or memory.ration.level is not None:
        return asked  # the level is kept in money
    most = rationed(memory, _usual(memory, bounds, asked), seen.funding.tariff, pool)
    return asked if asked.replicas <= most else replace(asked, counts=((pool.name, most),))


def rate_allowed(memory: ThriftMemory, seen: Observation, start_seconds: float) -> int | None:
    """Nano-dollars an hour that a mix may cost, in coarse steps, lest it is planned anew for every cent; None: all."""
    if seen.funding is None:
        return None
    rate = rate_ceiling(seen.funding, seen.replicas, seen.now, start_seconds)
    if memory.ration.level is not None:
        rate = min(rate, memory.ration.level)
    return coarse(rate)


def rationed(memory: ThriftMemory, usual: int, tariff: Tariff, pool: Pool) -> int:
    """Replicas of one pool that the ration allows where `usual` are wanted by what is forecast.

    More than that, such as to work off what waits, as long as an even part of the money or its surplus pays for it.
    """
    found, price = memory.ration, tariff.price(pool.name)
    expected = memory.expected_price(price)
    if expected <= 0:
        return _UNBOUNDED
    if found.level is not None:
        count = found.level // price
        return count + (found.extra_from is not None and usual * expected >= found.extra_from)
    each = cost(expected, max(BURST_SECONDS, pool.start_seconds + tariff.turn_seconds + tariff.drain_seconds))
    return max(usual, -(-found.even // expected)) + found.surplus // each


def span(seconds: float) -> str:
    """A length of time, as exact as anybody needs it."""
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.1f} days"
    return f"{seconds / _HOUR:.1f} h" if seconds >= 2 * _HOUR else f"{seconds / 60:.0f} min"


def _usual(memory: ThriftMemory, bounds: tuple[int, int], asked: Decision) -> int:
    """What the forecast alone asks for, with all caution."""
    wanted = max(round(memory.now[0]), min(1, asked.replicas)) if memory.now else asked.replicas
    return min(max(wanted, bounds[0]), bounds[1])


def _told(decision: Decision, reason: str, memory: ThriftMemory, fund: Fund, wanted: int, price: int) -> Decision:
    without = f"what there would be without a budget, for {_about(wanted * price)} an hour"
    return replace(
        decision,
        reason=reason,
        binding=BINDING,
        inputs=(*decision.inputs, ("thrift", memory.ration.thrift), ("without_budget", float(wanted))),
        rejected=(*decision.rejected, Option(wanted, without + _runs_out(fund, wanted * price))),
        fund=fund,
    )


def _so_that(fund: Fund, rate: int, *, is_cut: bool) -> str:
    left, ends = _about(fund.left_usd_nanos), span(fund.ends_in_seconds)
    if is_cut:
        return f", since {left} left of {fund.name} pay for no more to its end; it begins anew in {ends}"
    lasts = lasts_seconds(fund, rate)
    now = "" if lasts is None else f"; were it always as now, {span(lasts)}"
    return f", so that {left} left of {fund.name} last until it begins anew in {ends}{now}"


def _runs_out(fund: Fund, rate: int) -> str:
    lasts = lasts_seconds(fund, rate)
    return "" if lasts is None else f": {fund.name} would run out in {span(lasts)}"


def _binding_fund(funding: Funding, found: Ration, *, is_cut: bool) -> Fund:
    """The one that sets the number; where money is all but out, the one with the least left."""
    named: Sequence[Fund] = [fund for fund in funding.funds if fund.name == found.fund]
    if named and not is_cut:
        return named[0]
    return min(funding.funds, key=lambda fund: fund.left_usd_nanos)


def _about(nanos: int) -> str:
    return usd_text(nanos // _CENT * _CENT if nanos >= NANOS_PER_USD else nanos)
