"""The rate that is posted for a period, from what a model's replicas cost in the time before. Pure, whole nano-dollars.

    due  = cost * (1 + markup), rounded up
    sum  = due + what is carried over
    rate = sum * the token kind's share of the work * 10^6 / its tokens, rounded up

The work of prompts and completions is that of the latency profile (`metering.work`). So the tokens of that time,
charged at the rate, come to the sum, rounded up. A rate is never negative, and higher costs never make it lower.

*Missed* is what charges have not brought in of what was due, summed since the first rate (negative: too much).
Stretches of time tile: each rate goes by what came after that of the rate before, so nothing is counted twice or left
out. What was missed goes into the next rate, over the tokens of all of its period, and at most half of what is due, so
that rates do not jump; the rest is carried on.

Where there were no tokens or no costs, the last rate stays. Where there was no rate either, it is what a replica costs
divided over the tokens that it can carry at the stated utilisation.
"""

from dataclasses import dataclass
from decimal import Decimal

from swell.metering.attribution import Attribution, Capability
from swell.metering.infrastructure import MS_PER_HOUR
from swell.metering.periods import Period
from swell.metering.work import COMPLETION_WEIGHT, NO_LOAD, Load, token_work
from swell.spec.prices import PostedPrice
from swell.state.posted_rates import PostedRate, RateBasis
from swell.units import TOKENS_PER_RATE, usd_text

CARRIED_SHARE = 2  # one half
PPM = 1_000_000
_MICROSECONDS_PER_SECOND = 1_000_000
_MICROSECONDS_PER_HOUR = MS_PER_HOUR * 1000
_REQUESTS = 1000  # of the expected lengths, so that rounding work to microseconds does not matter

Rates = tuple[int, int]
"""Nano-dollars per million prompt tokens, and per million completion tokens."""


_NOTHING = Attribution()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model's replicas and requests in [since, until)."""

    since_unix_ms: int
    until_unix_ms: int
    attribution: Attribution = _NOTHING

    @property
    def load(self) -> Load:
        """All requests."""
        return sum((line.load for line in self.attribution.used.values()), NO_LOAD)


@dataclass(frozen=True, slots=True)
class Offer:
    """What does not change with time: the model, its price as it is declared, what a replica can do and costs."""

    model: str
    terms: PostedPrice
    capability: Capability
    usd_nanos_per_hour: int


def capacity_rates(offer: Offer) -> Rates | None:
    """What a replica's hour costs, divided over the tokens that it carries at the stated utilisation.

    None where nobody knows what a replica can carry.
    """
    terms = offer.terms
    prompt, completion = terms.expected_prompt_tokens, terms.expected_completion_tokens
    load = Load(_REQUESTS, _REQUESTS * prompt, _REQUESTS * completion)
    if terms.tokens_per_second is not None:
        weights = token_work(load, None, offer.capability.objective)
        microseconds = _ceil(sum(weights) * _MICROSECONDS_PER_SECOND, COMPLETION_WEIGHT * terms.tokens_per_second)
    elif offer.capability.profile is not None:
        weights = token_work(load, offer.capability.profile, offer.capability.objective)
        microseconds = sum(weights)
    else:
        return None
    cost = _ceil(offer.usd_nanos_per_hour * microseconds * PPM, _MICROSECONDS_PER_HOUR * terms.utilisation_ppm)
    return _capped(_divided(marked_up(cost, terms.markup_ppm), load, weights, (0, 0)), terms)


def marked_up(cost_usd_nanos: int, markup_ppm: int) -> int:
    """What charges should come to."""
    return _ceil(cost_usd_nanos * (PPM + markup_ppm), PPM)


def divided(amount_usd_nanos: int, load: Load, capability: Capability, otherwise: Rates = (0, 0)) -> Rates:
    """Rates at which the tokens of `load` come to the amount (0 or more), rounded up.

    A kind of which there were no tokens keeps the rate in `otherwise`.
    """
    weights = token_work(load, capability.profile, capability.objective)
    if not (load.prompt_tokens and load.completion_tokens and all(weights)):  # one kind bears it all
        weights = token_work(load, None, capability.objective)
    return _divided(amount_usd_nanos, load, weights, otherwise)


def posted(offer: Offer, period: Period, facts: Facts, last: PostedRate | None, now_unix_ms: int) -> PostedRate:
    """The rate of a period that ends. `last` is the newest one before it, if there is one.

    `facts` are of the time that `last` does not count, where it stood until the period begins; else of the time before.
    Raises ValueError where neither they, nor a last rate, nor the replica's capacity say anything.
    """
    start, end = _ms(period.start_unix), _ms(period.end_unix or 0)
    follows = last is not None and last.end_unix_ms == start
    load, spent = facts.load, facts.attribution
    cost = spent.total_usd_nanos if offer.terms.include_unused else spent.used_usd_nanos
    due = marked_up(cost, offer.terms.markup_ppm)
    missed = last.missed_usd_nanos + due - load.charge_usd_nanos if follows and last is not None else 0
    carried = _carried(missed, due, facts, end - start) if offer.terms.recover else 0
    basis: RateBasis
    if due and load.prompt_tokens + load.completion_tokens:
        otherwise = last.rates if last is not None else capacity_rates(offer) or (0, 0)
        rates, basis = divided(due + carried, load, offer.capability, otherwise), "cost"
    else:
        carried = 0
        rates, basis = _without_use(offer, last)
    capped = _capped(rates, offer.terms)
    reason = _reason(offer, basis, facts, cost, carried)
    if capped != rates:
        reason += f"; no more than {usd_text(offer.terms.max_rate)} per million tokens"
    return PostedRate(
        model=offer.model, start_unix_ms=start, end_unix_ms=end, label=period.label, prompt_rate=capped[0],
        completion_rate=capped[1], basis=basis, reason=reason, since_unix_ms=facts.since_unix_ms,
        until_unix_ms=facts.until_unix_ms, starting_usd_nanos=spent.starting_usd_nanos,
        used_usd_nanos=spent.used_usd_nanos, idle_usd_nanos=spent.idle_usd_nanos,
        charge_usd_nanos=load.charge_usd_nanos, requests=load.requests, prompt_tokens=load.prompt_tokens,
        completion_tokens=load.completion_tokens,
        markup_ppm=offer.terms.markup_ppm, carried_usd_nanos=carried, missed_usd_nanos=missed,
        counted_until_unix_ms=facts.until_unix_ms if follows else now_unix_ms, posted_at_unix_ms=now_unix_ms,
    )  # fmt: skip


def _without_use(offer: Offer, last: PostedRate | None) -> tuple[Rates, RateBasis]:
    if last is not None:
        return last.rates, "last"
    rates = capacity_rates(offer)
    if rates is None:
        raise ValueError(f"nothing is known that a rate of {offer.model} could follow from")
    return rates, "capacity"


def _divided(amount: int, load: Load, weights: tuple[int, int], otherwise: Rates) -> Rates:
    """`weights` are the work of the prompts and that of the completions, of which a kind without tokens has none."""
    prompt = _ceil(amount * weights[0], max(1, sum(weights)))
    return (
        _ceil(prompt * TOKENS_PER_RATE, load.prompt_tokens) if load.prompt_tokens else otherwise[0],
        _ceil((amount - prompt) * TOKENS_PER_RATE, load.completion_tokens) if load.completion_tokens else otherwise[1],
    )


def _carried(missed: int, due: int, facts: Facts, period_ms: int) -> int:
    """What of `missed` goes into the sum, which is of the facts' time and will be charged over the period's."""
    known_ms = min(facts.until_unix_ms - facts.since_unix_ms, period_ms)
    carried = _ceil(missed * known_ms, max(1, period_ms))
    most = due // CARRIED_SHARE
    return max(-most, min(most, carried))


def _capped(rates: Rates, terms: PostedPrice) -> Rates:
    return min(rates[0], terms.max_rate), min(rates[1], terms.max_rate)


def _reason(offer: Offer, basis: RateBasis, facts: Facts, cost: int, carried: int) -> str:
    terms, profile = offer.terms, offer.capability.profile
    if basis == "capacity":
        by = f"{terms.tokens_per_second} tokens a second" if terms.tokens_per_second or not profile else profile.name
        share = (Decimal(terms.utilisation_ppm) / 10_000).normalize()
        text = (
            f"no cost is known yet: {usd_text(offer.usd_nanos_per_hour)} a replica-hour, used to {share:f}% of {by}, "
            f"for requests of {terms.expected_prompt_tokens} and {terms.expected_completion_tokens} tokens"
        )
    elif basis == "last":
        why = "nothing that counts was spent on replicas" if facts.load.requests else "there were no requests"
        return f"{why}: the last rate stays"
    else:
        what = "all that the replicas cost" if terms.include_unused else "what requests used of the replicas"
        text = f"{what}, {usd_text(cost)}, over the tokens, by {profile.name if profile else 'their number'}"
    if terms.markup_ppm:
        text += f"; with a markup of {(Decimal(terms.markup_ppm) / 10_000).normalize():f}%"
    if carried > 0:
        text += f"; {usd_text(carried)} of under-recovery added"
    elif carried < 0:
        text += f"; {usd_text(-carried)} of over-recovery taken off"
    return text


def _ceil(amount: int, by: int) -> int:
    return -(-amount // by)


def _ms(unix: float) -> int:
    return round(unix * 1000)
