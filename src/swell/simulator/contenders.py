"""Who can be compared: Swell's own policy and its peers, each with its knob; and what their costs are set against."""

from dataclasses import replace

from swell.errors import UserError
from swell.simulator.bounds.program import linear_bound
from swell.simulator.compare import Contender, References
from swell.simulator.own import swell_scaler
from swell.simulator.peers import KNOBS, PEERS
from swell.simulator.references import Planned, RateClairvoyant
from swell.simulator.result import Scenario

OWN = "swell"
NAMES = (OWN, *PEERS)
_OWN_KNOB = (0.05, 20.0)  # from twenty times the misses that may be to a twentieth of them
_HEADROOM = (0.25, 8.0)  # on a reference's plan: too little for sure, and more than enough
_BOUND_TICK_SECONDS = 60.0


def contender(name: str) -> Contender:
    """One policy by its name. UserError where there is none of that name."""
    if name == OWN:
        return Contender(OWN, swell_scaler, *_OWN_KNOB, keeps_budgets=True)
    if name not in PEERS:
        raise UserError(f"unknown policy {name!r}; valid are: {', '.join(NAMES)}")
    return Contender(name, PEERS[name], *KNOBS[name])


def chosen(text: str) -> list[Contender]:
    """`all`, or names with commas between them; Swell's own comes first, and once."""
    if text.strip() == "all":
        return [contender(name) for name in NAMES]
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UserError(f"--compare names no policy; give all, or some of: {', '.join(NAMES)}")
    return [contender(name) for name in sorted(names, key=lambda each: each != OWN)]


def references() -> References:
    """The bound B1, the oracle and the rate-clairvoyant policy."""
    return References(
        bound_usd, Contender("oracle", Planned, *_HEADROOM), Contender("rate-clairvoyant", RateClairvoyant, *_HEADROOM)
    )


def bound_usd(scenario: Scenario, attainment: float) -> float:
    """What nobody pays less than for so much attainment, in US dollars (B1, linear)."""
    asked = replace(scenario, objective=replace(scenario.objective, attainment=attainment))
    return linear_bound(asked, _BOUND_TICK_SECONDS).usd
