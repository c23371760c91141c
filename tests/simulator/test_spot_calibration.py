"""Coupled zones against what real zones did: statistics of nine V100 zones over 45 days, a recording of g4dn nodes."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from swell.policy.scaling.regions import region_of
from swell.simulator.spot import (
    Coupling,
    Runs,
    SpotEventKind,
    Timeline,
    Zone,
    couple,
    read_node_events,
    replay_market,
    semi_markov_market,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "spot"
HOUR = 3600.0
HORIZON = 2000 * 24 * HOUR
Simulated = tuple[list[Zone], Coupling, Timeline, dict[str, NDArray[np.bool_]]]

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the spot statistics in {'/'.join(DATA.parts[-3:])}"),
]


def real_zones() -> list[Zone]:
    with (DATA / "spot_availability_stats.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["collected"] == "aws-02-15-2023"]
    return [
        Zone(
            row["zone"],
            region_of(row["zone"]),
            Runs(float(row["up_mean_h"]) * HOUR, float(row["up_median_h"]) * HOUR),
            Runs(float(row["down_mean_h"]) * HOUR, float(row["down_median_h"]) * HOUR),
            nodes=1,
        )
        for row in rows
    ]


def real_correlations() -> dict[tuple[str, str], float]:
    with (DATA / "zone_availability_correlation_v100_2023.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row[""], other): float(value) for row in rows for other, value in row.items() if other != ""}


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    zones = real_zones()
    coupling = couple(zones)
    market = semi_markov_market(coupling.zones, seed=1, horizon_seconds=HORIZON, shocks=coupling.shocks)
    grid = np.arange(0, HORIZON, 195.0)  # as often as the real zones were looked at
    return zones, coupling, market, {zone.name: _up(market, zone.name, grid) for zone in zones}


def _up(market: Timeline, zone: str, grid: NDArray[np.float64]) -> NDArray[np.bool_]:
    changes = [event for event in market.events if event.zone == zone and event.kind is not SpotEventKind.KILL]
    times = np.array([event.at for event in changes])
    up = np.array([event.kind is SpotEventKind.UP for event in changes])
    before = np.searchsorted(times, grid, side="right") - 1
    return np.where(before >= 0, up[np.maximum(before, 0)], False)


def _runs(up: NDArray[np.bool_], value: bool) -> NDArray[np.float64]:
    changes = np.flatnonzero(np.diff(up.astype(np.int8))) + 1
    lengths, values = np.diff(changes) * 195 / HOUR, up[changes[:-1]]
    return lengths[values == value]


def test_zones_are_as_available_as_real_ones_and_run_as_long(simulated: Simulated) -> None:
    zones, _, _, up = simulated
    ratios: dict[str, list[float]] = {"up mean": [], "down mean": [], "up median": [], "down median": []}
    for zone in zones:
        assert abs(float(up[zone.name].mean()) - zone.availability) < 0.04
        for name, value, runs in (("up", True, zone.up), ("down", False, zone.down)):
            found = _runs(up[zone.name], value)
            ratios[f"{name} mean"].append(float(found.mean()) / (runs.mean_seconds / HOUR))
            ratios[f"{name} median"].append(float(np.median(found)) / (runs.median_seconds / HOUR))
    fit = {name: float(np.median(values)) for name, values in ratios.items()}
    print("simulated over real, median over nine zones:", fit)
    assert abs(fit["up mean"] - 1) < 0.15
    assert abs(fit["down mean"] - 1) < 0.15
    assert 0.6 < fit["up median"] < 1.6
    assert 0.6 < fit["down median"] < 1.6


def test_zones_correlate_as_real_ones(simulated: Simulated) -> None:
    zones, coupling, _, up = simulated
    names, real = [zone.name for zone in zones], real_correlations()
    found = np.corrcoef(np.array([up[name] for name in names], dtype=float))
    at = {(a, b): float(found[names.index(a), names.index(b)]) for a, b in combinations(names, 2)}
    within = [pair for pair in at if region_of(pair[0]) == region_of(pair[1])]
    across = [pair for pair in at if pair not in within]
    means = {kind: np.mean([at[pair] for pair in pairs]) for kind, pairs in (("in", within), ("over", across))}
    print("mean correlation within and across regions:", means)
    assert abs(means["in"] - 0.43) < 0.06
    assert abs(means["over"] - 0.14) < 0.04
    errors = [at[pair] - real[pair] for pair in at]
    print("root mean square error over pairs:", float(np.sqrt(np.mean(np.square(errors)))))
    assert float(np.sqrt(np.mean(np.square(errors)))) < 0.11
    promised = [at[pair] - coupling.correlations[pair] for pair in at]
    assert abs(float(np.mean(promised))) < 0.03


def test_the_best_of_several_zones_is_up_as_often_as_in_reality(simulated: Simulated) -> None:
    zones, _, _, up = simulated
    any_zone = float(np.max([up[zone.name] for zone in zones], axis=0).mean())
    west = float(np.max([up[zone.name] for zone in zones if zone.region == "us-west-2"], axis=0).mean())
    print("any of nine, any of three:", any_zone, west)
    assert abs(any_zone - 0.992) < 0.006
    assert abs(west - 0.961) < 0.015


def test_the_recording_is_replayed_node_for_node() -> None:
    events = read_node_events(DATA / "aws_g4dn_node_events.csv")
    assert (len(events), sum(event.added for event in events)) == (153, 79)
    begin, end = events[0].at, events[-1].at
    market = replay_market(events, zones=["g4dn"], horizon_seconds=end - begin)
    room = 0
    for index, event in enumerate(events):
        room += 1 if event.added else -1
        if index + 1 < len(events) and events[index + 1].at > event.at:
            assert market.capacity("g4dn", event.at - begin) == room
    kills = [event.nodes for event in market.events if event.kind is SpotEventKind.KILL]
    assert max(kills) >= 5  # batches
