"""The thresholds of a budget's alerts as they are written: `50%` of what was spent, or `forecast 100%` of what will be.

Kept with the spec so that there is one grammar: what is accepted here is what `swell.metering.thresholds` judges.
"""

import re
from dataclasses import dataclass

MOST_PERCENT = 1000
_PERCENT = re.compile(r"([0-9]+)\s*%")
_THRESHOLD = re.compile(r"(?:(actual|forecast|forecasted)\s+)?([0-9]+)\s*%", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Threshold:
    """A share of the budget in percent, 1 to MOST_PERCENT, of actual or of forecast spend. In order of the share."""

    share_percent: int
    is_forecast: bool

    @property
    def text(self) -> str:
        """The canonical text, such as `50%` or `forecast 100%`: equal for equal thresholds."""
        return f"forecast {self.share_percent}%" if self.is_forecast else f"{self.share_percent}%"

    def is_reached(self, cap_usd_nanos: int, amount_usd_nanos: int) -> bool:
        """Whether the amount is this share of the cap or more, exactly. Nothing spent is no share, not even of 0."""
        return amount_usd_nanos > 0 and amount_usd_nanos * 100 >= self.share_percent * cap_usd_nanos


def parse_percent(text: str, most: int) -> int:
    """Whole percent, such as `5%`, from 1 to `most`. ValueError with a sentence, without the name of the field."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a share; write whole percent, such as 5%")
    share = int(found[1]) if len(found[1]) <= len(str(most)) else most + 1
    if not 1 <= share <= most:
        raise ValueError(f"must be from 1% to {most}% of the budget")
    return share


def parse_threshold(text: str) -> Threshold:
    """`50%`, `actual 50%` or `forecast 100%`, whatever the case; also `50 %` and `forecasted 100%`.

    ValueError with a sentence, without the name of the field.
    """
    found = _THRESHOLD.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a threshold; write whole percent, such as 80%, or forecast 100%")
    share = int(found[2]) if len(found[2]) <= len(str(MOST_PERCENT)) else MOST_PERCENT + 1
    if not 1 <= share <= MOST_PERCENT:
        raise ValueError(f"must be from 1% to {MOST_PERCENT}% of the budget")
    return Threshold(share, (found[1] or "").lower().startswith("forecast"))
