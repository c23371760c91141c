"""Shocks that give zones the correlation they are known to have, and what is left for the zones' own runs.

With A_i the own process of zone i (up a share a_i of the time) and independent shocks, each in force a share s of the
time and hitting zone i with chance h_i, zone i is up a share p_i = a_i · prod(1 - h_i·s), and the states of two zones
correlate as

    corr_ij = sqrt(odds_i · odds_j) · (prod(1 + m_i·m_j·s·(1 - s)) - 1),    m_i = h_i / (1 - h_i·s),  odds = p / (1 - p)

where products run over the shocks that both zones share. One shock lies over everything, one over each region with
more than one zone. Taking m_i in proportion to 1 / sqrt(odds_i) gives all pairs the same correlation; h_i is at most
1, and shocks may cause at most a share of a zone's down time and of its losses, so pairs can fall short while the mean
is kept. Own runs then follow: availability and number of losses of the whole are those that the zone was given.
Medians are near, since short runs are mostly the zone's own.

Defaults: V100 zones of AWS over 45 days of 2023 correlate 0.43 within a region and 0.14 across regions (SkyPilot spot
traces, Wu et al., "Can't Be Late", NSDI 2024).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from swell.simulator.spot.runs import Runs
from swell.simulator.spot.semi_markov import Shock, Zone

SHARED_WITHIN_REGION = 0.43
SHARED_ACROSS_REGIONS = 0.14

_SHARES = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # of time that a shock is in force: tried, the best taken
_MOST_DOWN_TIME = 0.8  # of a zone, by shocks
_MOST_DOWN_TIME_FAR = 0.35  # of a zone, by the shock over everything: the rest is left for that of its region
_MOST_LOSSES = 0.15  # of a zone, by one shock: a shock ends in the middle of own runs, long ones mostly
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Coupling:
    """What `semi_markov_market` needs for correlated zones, and the correlations that come of it, by pair of names."""

    zones: tuple[Zone, ...]  # with their own runs
    shocks: tuple[Shock, ...]
    correlations: dict[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One shock to be: how long in force, and each zone's m."""

    share: float
    strength: dict[str, float]

    def hit(self, name: str) -> float:
        m = self.strength.get(name, 0.0)
        return min(1.0, m / (1 + m * self.share))  # rounding must not make it more than certain

    def up(self, name: str) -> float:
        """The share of time that it leaves the zone alone."""
        return 1 - self.hit(name) * self.share

    def factor(self, one: str, other: str) -> float:
        return 1 + self.strength.get(one, 0.0) * self.strength.get(other, 0.0) * self.share * (1 - self.share)


def couple(
    zones: Sequence[Zone], within: float = SHARED_WITHIN_REGION, across: float = SHARED_ACROSS_REGIONS
) -> Coupling:
    """Zones and shocks such that availability correlates, on average over pairs, `within` a region, `across` regions.

    The zones keep their availability and their number of losses. Where the wanted correlation cannot be reached, the
    nearest is taken; `correlations` tells.
    """
    if not (0 <= across < 1 and 0 <= within < 1):
        raise ValueError("correlations of zones must be from 0 to below 1")
    layers: list[_Layer] = []
    far = [(a, b) for a, b in combinations(zones, 2) if a.region != b.region]
    if far and across > 0:
        layers.append(_best_layer(zones, far, across, layers, _MOST_DOWN_TIME_FAR))
    for region in dict.fromkeys(zone.region for zone in zones):
        inside = [zone for zone in zones if zone.region == region]
        if len(inside) > 1 and within > 0:
            layers.append(_best_layer(inside, list(combinations(inside, 2)), within, layers, _MOST_DOWN_TIME))
    correlations = {(a.name, b.name): _correlation(a, b, layers) for a, b in combinations(zones, 2)}
    shocks = tuple(_shock(layer, zones) for layer in layers)
    return Coupling(tuple(_own(zone, layers, shocks) for zone in zones), shocks, correlations)


def _best_layer(
    zones: Sequence[Zone], pairs: Sequence[tuple[Zone, Zone]], wanted: float, below: Sequence[_Layer], most: float
) -> _Layer:
    """Over `zones`, so that the mean of the pairs comes to `wanted` and single pairs are as near as can be."""

    def error(layer: _Layer) -> tuple[float, float]:
        found = [_correlation(a, b, [*below, layer]) for a, b in pairs]
        mean_error = abs(sum(found) / len(found) - wanted)
        return round(mean_error, 3), sum((value - wanted) ** 2 for value in found)

    return min((_layer(zones, pairs, wanted, below, most, share) for share in _SHARES), key=error)


def _layer(
    zones: Sequence[Zone],
    pairs: Sequence[tuple[Zone, Zone]],
    wanted: float,
    below: Sequence[_Layer],
    most: float,
    share: float,
) -> _Layer:
    caps = {zone.name: _strongest(zone, below, most, share) for zone in zones}

    def at(scale: float) -> _Layer:
        return _Layer(share, {z.name: min(caps[z.name], scale / math.sqrt(_odds(z))) for z in zones})

    def excess(scale: float) -> float:
        return sum(_correlation(a, b, [*below, at(scale)]) for a, b in pairs) / len(pairs) - wanted

    return at(_root(excess, 100.0))


def _root(rising: Callable[[float], float], high: float) -> float:
    """Where a rising function crosses 0, between 0 and `high`; the nearest end where it does not."""
    low = 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _strongest(zone: Zone, below: Sequence[_Layer], most: float, share: float) -> float:
    """The largest m with which this shock and those below cause at most a share of the zone's down time."""
    left = math.prod(layer.up(zone.name) for layer in below)
    least_up = 1 - most * (1 - zone.availability)
    hit = max(0.0, min(1.0, (1 - least_up / left) / share))
    return hit / (1 - hit * share)


def _odds(zone: Zone) -> float:
    return zone.availability / (1 - zone.availability)


def _correlation(a: Zone, b: Zone, layers: Sequence[_Layer]) -> float:
    product = math.prod(layer.factor(a.name, b.name) for layer in layers)
    return math.sqrt(_odds(a) * _odds(b)) * (product - 1)


def _shock(layer: _Layer, zones: Sequence[Zone]) -> Shock:
    """As long as the zones' own down runs, or longer where it would otherwise strike more often than zones go down."""
    hits = {zone.name: layer.hit(zone.name) for zone in zones if layer.hit(zone.name) > 0}
    struck = [zone for zone in zones if zone.name in hits]
    mean = max(zone.down.mean_seconds for zone in struck) if struck else 3600.0
    for zone in struck:  # which it hits hit · share / mean times a second
        mean = max(mean, hits[zone.name] * layer.share * zone.cycle_seconds / _MOST_LOSSES)
    shape = _shape(struck)
    calm = mean * (1 - layer.share) / layer.share
    return Shock(Runs(calm, calm / 2), Runs(mean, mean / shape), hits)


def _shape(zones: Sequence[Zone]) -> float:
    ratios = [zone.down.mean_seconds / zone.down.median_seconds for zone in zones]
    return max(1.0, math.exp(sum(map(math.log, ratios)) / len(ratios))) if ratios else 2.0


def _own(zone: Zone, layers: Sequence[_Layer], shocks: Sequence[Shock]) -> Zone:
    """The runs that, under the shocks, give the zone's availability and number of losses."""
    clear = math.prod(layer.up(zone.name) for layer in layers)
    up_share = min(zone.availability / clear, 1 - 1e-6)
    by_shocks = sum(
        layer.hit(zone.name) * layer.share / shock.storm.mean_seconds * up_share * clear / layer.up(zone.name)
        for layer, shock in zip(layers, shocks, strict=True)
    )
    losses = max(1 / zone.cycle_seconds - by_shocks, 0.05 / zone.cycle_seconds) / clear  # a second, of its own
    return replace(zone, up=_scaled(zone.up, up_share / losses), down=_scaled(zone.down, (1 - up_share) / losses))


def _scaled(runs: Runs, mean_seconds: float) -> Runs:
    """Of another mean; the median stays, since most runs are short and the zone's own, while it is below the mean."""
    return replace(runs, mean_seconds=mean_seconds, median_seconds=min(runs.median_seconds, mean_seconds))
