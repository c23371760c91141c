"""Which steps of a budget that is nearly used up hold now. Pure: no clock, no memory.

A step begins when its share of the amount is spent for good; what is merely held comes and goes, and steps would flap
with it. It ends when spend has fallen by HYSTERESIS_PERCENT of the amount below that share: a window rolls on, or the
budget was raised. A new period begins without any.
"""

from collections.abc import Collection, Iterable

from swell.metering.accounts import Standing
from swell.spec.steps import BLOCK, Step

HYSTERESIS_PERCENT = 5


def steps_now(standing: Standing, steps: Iterable[Step], before: Collection[str]) -> tuple[str, ...]:
    """The names of the steps that hold, lowest share first. `before` are those that held when one looked last.

    `block` holds while requests of ordinary size are refused: it is what admission does, and told here for people.
    """
    limit, spent = standing.limit, standing.spent_usd_nanos
    found = []
    for step in sorted(steps):
        share = step.share_percent - (HYSTERESIS_PERCENT if step.name in before else 0)
        if step.name != BLOCK and spent > 0 and spent * 100 >= share * limit.cap_usd_nanos:
            found.append(step.name)
    if spent > 0 and (spent >= limit.most_usd_nanos or standing.is_used_up):
        found.append(BLOCK)
    return tuple(found)
