"""How a budget is spread over what is left of its period: less headroom first, then the peaks. Pure.

What each hour of the week wants is remembered, with all the headroom that the objective asks for and with less of it,
in steps (RUNGS). Every minute the hours that are left are added up for each step, and the first that fits what is left
of the money is taken, between two steps by how much it falls short of the first. Headroom goes first since it is what
fewest requests need: on a week of real traffic a third of the cost carried six of a hundred requests, and a ceiling
that saved as much lost eighteen. Where the last step does not fit either, the peaks are shaved off at the level at
which the money lasts (`water_level`); what whole replicas leave of it goes to the hours that want most.

Hours that were never seen count as those that were on average, at least as now. Those that were are corrected by how
much more or less was wanted of late than usual at such hours, which fades over half a day. What was paid is compared
with what was expected for it, and corrects what is expected: starts, releases and cheaper pools are in the one and not
in the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp

from swell.policy.scaling.spending import Hours, spend_of, water_level
from swell.state.funding import Fund, Funding

RUNGS = (1.0, 0.8, 0.65, 0.5, 0.35, 0.2)  # of the caution
RATION_SECONDS = 60.0  # between two looks at the hours that are left
HOUR_SECONDS = 3600
DAY_HOURS, WEEK_HOURS = 24, 168
MEMORY = 0.5  # how much of the old value an hour keeps when it is seen again
CORRECTION_SECONDS = 6 * 3600.0  # over which what was paid is compared with what was expected
CORRECTION_RANGE = (0.05, 3.0)
LATELY_SECONDS = 7200.0  # over which what is wanted is compared with what is usual
LATELY_RANGE = (1 / 3, 3.0)
FADING_HOURS = 12.0  # in which that comparison says a third as much
FADED_HOURS = 48  # after which it says nothing
UNBOUND_SECONDS = 600.0  # after a budget last bound, in which nothing is learnt of what it kept from being had
_LONG_AGO = 1e18

Wants = tuple[float, ...]  # by rung, in replicas


@dataclass(frozen=True, slots=True)
class Ration:
    """What may be had from now on. Levels are nano-dollars an hour."""

    thrift: float = 1.0  # times the caution
    level: int | None = None  # the most that the fleet may cost; None: no more than the thrift
    extra_from: int | None = None  # one replica more than the level for who wants at least so much
    even: int = 0  # what is left, spread evenly: as much may be had at any time, such as to work off what waits
    surplus: int = 0  # nano-dollars beyond what the rest of the period would cost
    fund: str = ""  # that bound it
    unbound: int = 0  # what the rest of the period would cost without it, nano-dollars

    @property
    def binds(self) -> bool:
        """Whether less may be had than is wanted."""
        return self.thrift < 1 or self.level is not None


@dataclass(frozen=True, slots=True)
class ThriftMemory:
    """What the hours wanted, and the ration of now."""

    day: tuple[Wants, ...] = ()  # by hour of the day; empty where unknown
    week: tuple[Wants, ...] = ()
    hour: int = -1  # of the week
    sums: Wants = ()  # of the hour that runs
    count: int = 0
    now: Wants = ()
    lately: float = 0.0  # replicas with all caution, smoothed
    usual: float = 0.0  # the same as it was known before; 0 where it was not
    paid: float = 0.0  # replicas, smoothed
    asked: float = 0.0
    seen_at: float = -_LONG_AGO
    ration: Ration = Ration()
    wanted: tuple[tuple[str, int], ...] = ()  # by fund: nano-dollars of the rest of its period, without any budget
    is_cut: bool = False  # the last decision had less than the ration, since money is all but out
    rationed_at: float = -_LONG_AGO
    bound_at: float = -_LONG_AGO

    def expected_price(self, price: int) -> int:
        """Of a replica's hour that is wanted, where one of the first pool costs `price`."""
        low, high = CORRECTION_RANGE
        return round(price * (min(high, max(low, self.paid / self.asked)) if self.asked else 1.0))


def learn(memory: ThriftMemory, now: float, clock: float, wants: Wants, paid: float | None) -> ThriftMemory:
    """Add what this moment wants by rung, and what the fleet costs, if there is one; in replicas of the first pool."""
    hour = int(clock // HOUR_SECONDS) % WEEK_HOURS
    if hour != memory.hour:
        if memory.count:
            mean = tuple(total / memory.count for total in memory.sums)
            memory = replace(
                memory,
                day=_put(memory.day, DAY_HOURS, memory.hour, mean),
                week=_put(memory.week, WEEK_HOURS, memory.hour, mean),
            )
        memory = replace(memory, hour=hour, sums=(0.0,) * len(wants), count=0)
    passed = min(CORRECTION_SECONDS, max(0.0, now - memory.seen_at))
    sums = tuple(total + want for total, want in zip(memory.sums, wants, strict=True))
    known, share = _at(memory, hour), min(1.0, passed / LATELY_SECONDS)
    if not known or not memory.usual:
        lately, usual = wants[0], known[0] if known else 0.0
    else:
        lately = memory.lately + (wants[0] - memory.lately) * share
        usual = memory.usual + (known[0] - memory.usual) * share
    memory = replace(memory, sums=sums, count=memory.count + 1, now=wants, seen_at=now, lately=lately, usual=usual)
    if paid is None or memory.ration.level is not None or memory.is_cut or not passed:
        return memory
    share = passed / CORRECTION_SECONDS
    asked = _between(wants, memory.ration.thrift)
    if not memory.asked:
        return replace(memory, paid=asked, asked=asked)
    return replace(
        memory,
        paid=memory.paid + (paid - memory.paid) * share,
        asked=memory.asked + (asked - memory.asked) * share,
    )


def ration(
    memory: ThriftMemory, funding: Funding, now: float, clock: float, price: int, least: int, most: int
) -> ThriftMemory:
    """With what may be had from now on, where it is time to look again. `least` and `most` bound the replicas."""
    is_known = {fund for fund, _ in memory.wanted} == {fund.name for fund in funding.funds}
    if not memory.now or (is_known and 0 <= now - memory.rationed_at < RATION_SECONDS):
        return memory
    rations = [
        _ration(fund, _expected(memory, clock, fund.ends_in_seconds, price, least, most), price)
        for fund in funding.funds
    ]
    found = Ration(
        thrift=min((each.thrift for each in rations), default=1.0),
        level=min((each.level for each in rations if each.level is not None), default=None),
    )
    tightest = min(rations, key=lambda each: (each.thrift, _or_more(each.level)), default=found)
    floor = least * price
    level = None if found.level is None else max(found.level, floor)
    even = min((_even(fund) for fund in funding.funds), default=0)
    surplus = min((each.surplus for each in rations), default=0)
    found = replace(tightest, thrift=found.thrift, level=level, even=max(even, floor), surplus=surplus)
    wanted = tuple((each.fund, each.unbound) for each in rations)
    bound_at = now if found.binds else memory.bound_at
    return replace(memory, ration=found, wanted=wanted, rationed_at=now, bound_at=bound_at)


def _ration(fund: Fund, by_rung: Sequence[Hours], price: int) -> Ration:
    """The ration of one fund."""
    left = fund.share_usd_nanos
    spends = [spend_of(hours) for hours in by_rung]
    if spends[0] <= left:
        return Ration(fund=fund.name, unbound=spends[0], surplus=left - spends[0])
    for i in range(1, len(RUNGS)):
        if spends[i] <= left:
            part = (left - spends[i]) / max(1, spends[i - 1] - spends[i])
            thrift = RUNGS[i] + (RUNGS[i - 1] - RUNGS[i]) * part
            return Ration(thrift=thrift, fund=fund.name, unbound=spends[0])
    leanest = by_rung[-1]
    level = water_level(leanest, left) or 0
    extra = _extra_from(leanest, left, level, price)
    return Ration(RUNGS[-1], level, extra, fund=fund.name, unbound=spends[0])


def _even(fund: Fund) -> int:
    return max(0, fund.share_usd_nanos) * HOUR_SECONDS // max(1, round(fund.ends_in_seconds))


def _extra_from(hours: Hours, left: int, level: int, price: int) -> int | None:
    """From which want on an hour gets one replica more than fits under the level: what the others leave is enough.

    Where not even one fits, who wants most has one until the money is out: none at all would keep it for nothing.
    """
    if price <= 0:
        return None
    whole = level // price * price
    rest = left * HOUR_SECONDS - sum(seconds * min(wanted, whole) for seconds, wanted in hours)
    found = None
    for seconds, wanted in sorted(hours, key=lambda each: -each[1]):
        rest -= seconds * min(price, max(0, wanted - whole))
        if wanted <= whole or (rest < 0 and (whole or found is not None)):
            break
        found = wanted
    return found


def _expected(
    memory: ThriftMemory, clock: float, seconds: float, price: int, least: int, most: int
) -> list[list[tuple[int, int]]]:
    """By rung: what the time to come costs, by hour of the week."""
    price = memory.expected_price(price)
    unknown, lately = _unknown(memory), _lately(memory)
    wants: list[tuple[int, Wants]] = []
    for ahead, (hour, span) in enumerate(_stretches(clock, seconds)):
        want, more = _at(memory, hour), (lately - 1) * exp(-ahead / FADING_HOURS) if ahead < FADED_HOURS else 0.0
        wants.append((span, tuple(each * (1 + more) for each in want) if want else unknown))
    return [
        [(span, round(min(most, max(least, want[rung])) * price)) for span, want in wants] for rung in range(len(RUNGS))
    ]


def _stretches(clock: float, seconds: float) -> list[tuple[int, int]]:
    """(hour of the week, seconds) to come: the first days one by one, then what is left of each hour of the week."""
    found: list[tuple[int, int]] = []
    left = max(0.0, seconds)
    while left > 0 and len(found) < FADED_HOURS:
        span = min(left, HOUR_SECONDS - clock % HOUR_SECONDS)
        found.append((int(clock // HOUR_SECONDS) % WEEK_HOURS, ceil(span)))
        clock, left = clock + max(span, 1e-3), left - max(span, 1e-3)
    weeks, rest = divmod(max(0.0, left), WEEK_HOURS * HOUR_SECONDS)
    first = int(clock // HOUR_SECONDS)
    for hour in range(WEEK_HOURS):
        span = int(weeks) * HOUR_SECONDS + ceil(min(HOUR_SECONDS, max(0.0, rest - hour * HOUR_SECONDS)))
        if span:
            found.append(((first + hour) % WEEK_HOURS, span))
    return found


def _lately(memory: ThriftMemory) -> float:
    """How many times the usual was wanted of late."""
    low, high = LATELY_RANGE
    return min(high, max(low, memory.lately / memory.usual)) if memory.usual > 0 else 1.0


def _at(memory: ThriftMemory, hour: int) -> Wants:
    return (memory.week[hour] if memory.week else ()) or (memory.day[hour % DAY_HOURS] if memory.day else ())


def _unknown(memory: ThriftMemory) -> Wants:
    """Of hours that were never seen: what those were on average that were, at least as now."""
    known = [wants for wants in memory.day if wants]
    if not known:
        return memory.now
    means = (sum(each) / len(known) for each in zip(*known, strict=True))
    return tuple(max(mean, now) for mean, now in zip(means, memory.now, strict=True))


def _between(wants: Wants, thrift: float) -> float:
    """What is wanted at a thrift between two rungs."""
    for i in range(1, len(RUNGS)):
        if thrift >= RUNGS[i]:
            part = (thrift - RUNGS[i]) / (RUNGS[i - 1] - RUNGS[i])
            return wants[i] + (wants[i - 1] - wants[i]) * min(1.0, part)
    return wants[-1]


def _put(table: tuple[Wants, ...], size: int, hour: int, mean: Wants) -> tuple[Wants, ...]:
    cells: list[Wants] = list(table) if table else [()] * size
    at = hour % size
    old = cells[at]
    cells[at] = mean if not old else tuple(MEMORY * a + (1 - MEMORY) * b for a, b in zip(old, mean, strict=True))
    return tuple(cells)


def _or_more(level: int | None) -> int:
    return 2**62 if level is None else level
