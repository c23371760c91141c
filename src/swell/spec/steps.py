"""The steps of a budget that is nearly used up, as they are written: `shed_batch 80%`, or `shed_batch` alone.

Kept with the spec so that there is one grammar: what is accepted here is what `swell.metering.ladder` goes by.
"""

import difflib
import re
from dataclasses import dataclass

SHED_BATCH = "shed_batch"
CHEAPER_VARIANT = "cheaper_variant"
THROTTLE = "throttle"
BLOCK = "block"  # always there, at the amount and its grace
USUAL_PERCENT = {SHED_BATCH: 90, CHEAPER_VARIANT: 95, THROTTLE: 98, BLOCK: 100}
STEPS = tuple(USUAL_PERCENT)
MOST_PERCENT = 200  # of the amount; a grace is at most as much again

_STEP = re.compile(r"([a-z_]+)(?:\s+([0-9]+)\s*%)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """What begins when so much of the budget is spent, in whole percent. In order of the share."""

    share_percent: int
    name: str

    @property
    def text(self) -> str:
        """The canonical text, such as `shed_batch 90%`."""
        return f"{self.name} {self.share_percent}%"


def parse_step(text: str) -> Step:
    """A step with its share, or with its usual one. ValueError with a sentence, without the name of the field."""
    found = _STEP.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a step; write one such as shed_batch 80%")
    name, share = found[1].lower(), found[2]
    if name not in USUAL_PERCENT:
        near = difflib.get_close_matches(name[:50], STEPS, n=1)
        raise ValueError(f"is not one of {', '.join(STEPS)}{f'; did you mean {near[0]}?' if near else ''}")
    if share is None:
        return Step(USUAL_PERCENT[name], name)
    percent = int(share) if len(share) <= len(str(MOST_PERCENT)) else MOST_PERCENT + 1
    if not 1 <= percent <= MOST_PERCENT:
        raise ValueError(f"must be from 1% to {MOST_PERCENT}% of the budget")
    if name == BLOCK and percent != USUAL_PERCENT[BLOCK]:
        raise ValueError("has no share of its own: requests are refused when the amount and its grace are spent")
    return Step(percent, name)
