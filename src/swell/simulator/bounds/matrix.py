"""The program's rows and columns (see `program`).

Columns: on and start (both pool by pool, tick by tick), runs (a lot's work on a profile in a tick), misses (by piece).
Upper rows: capacity (profile by profile, tick by tick), switching (pool by pool, tick by tick), then, where there are
any, the fleet's lower bound (tick by tick) and the misses.
"""

from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from swell.simulator.bounds.demand import Demand, Limits
from swell.simulator.bounds.work import SECONDS_PER_HOUR
from swell.simulator.result import Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Entries = tuple[Ints, Ints, Floats]  # rows, columns, values


def most_replicas(scenario: Scenario, ticks: int, limits: Limits | None) -> Floats:
    """[pool, tick]: how many there can be."""
    most = np.zeros((len(scenario.pools), ticks))
    for row, pool in zip(most, scenario.pools, strict=True):
        row[:] = min(pool.max_replicas, scenario.max_replicas)
        if limits is not None and pool.name in limits:
            limit = limits[pool.name][:ticks]
            row[: len(limit)] = np.minimum(row[: len(limit)], limit)
            row[len(limit) :] = 0
    return most


class Matrix:
    """Costs, bounds and constraints of a demand on a scenario's pools, and where to find what in a solution."""

    def __init__(
        self, scenario: Scenario, demand: Demand, tick_seconds: float, limits: Limits | None, misses: int
    ) -> None:
        """`misses` counts for the demand's pieces."""
        self._scenario = scenario
        self._demand = demand
        self._tick = tick_seconds
        self.pools, self.ticks, self.profiles = len(scenario.pools), demand.ticks, len(demand.profiles)
        self._on = np.arange(self.pools * self.ticks).reshape(self.pools, self.ticks)
        self._runs_at = 2 * self._on.size
        self._run_profile, self._run_lot, self._run_tick = _runs(demand)
        self._misses_at = self._runs_at + len(self._run_lot)
        self.columns = self._misses_at + len(demand.piece_lot)
        # The lower bound holds in ticks that lie wholly within the trace: afterwards a fleet may end.
        self.floor_ticks = int(scenario.traffic.seconds // tick_seconds) if scenario.min_replicas > 0 else 0
        self.costs = self._build_costs()
        self.highest = np.full(self.columns, inf)
        self.highest[: self._on.size] = most_replicas(scenario, self.ticks, limits).ravel()
        self.highest[self._misses_at :] = demand.piece_work / demand.piece_largest
        # Where the upper rows' kinds begin after the first.
        self.sections = np.cumsum((self.profiles * self.ticks, self._on.size, self.floor_ticks))
        self.equal = self._sparse(self._conservation(), len(demand.work))
        self.upper, self.upper_limits = self._build_upper(misses)

    @property
    def whole(self) -> Ints:
        """Which columns are whole numbers in the integer program: replicas that are on; starts follow."""
        return (np.arange(self.columns) < self._on.size).astype(np.int64)

    def on(self, solution: Floats) -> Floats:
        """[pool, tick]."""
        return solution[: self._on.size].reshape(self._on.shape)

    def starts(self, solution: Floats) -> float:
        """Over all pools and ticks."""
        return float(solution[self._on.size : self._runs_at].sum())

    def missed(self, solution: Floats) -> float:
        """Requests."""
        return float(solution[self._misses_at :].sum())

    def _build_costs(self) -> Floats:
        costs = np.zeros(self.columns)
        for on, pool in zip(self._on, self._scenario.pools, strict=True):
            price = pool.usd_per_hour / SECONDS_PER_HOUR
            costs[on] = price * self._tick
            costs[on + self._on.size] = price * pool.start_seconds
        return costs

    def _conservation(self) -> Entries:
        """Per lot: what runs, and what is missed, is its work."""
        runs, misses = np.arange(self._runs_at, self._misses_at), np.arange(self._misses_at, self.columns)
        return (
            np.concatenate((self._run_lot, self._demand.piece_lot)),
            np.concatenate((runs, misses)),
            np.concatenate((np.ones(len(runs)), self._demand.piece_largest)),
        )

    def _build_upper(self, misses: int) -> tuple[csr_array, Floats]:
        columns = np.arange(self._misses_at, self.columns)
        blocks = [
            (self._capacity(), np.zeros(self.profiles * self.ticks)),
            (self._switching(), np.zeros(self._on.size)),
            (self._floor(), np.full(self.floor_ticks, -float(self._scenario.min_replicas))),
            ((np.zeros_like(columns), columns, np.ones(len(columns))), np.array([float(misses)])),
        ]
        entries, at = [], 0
        for (rows, block_columns, values), limits in blocks:
            entries.append((rows + at, block_columns, values))
            at += len(limits)
        return self._sparse(_joined(entries), at), np.concatenate([limits for _, limits in blocks])

    def _capacity(self) -> Entries:
        """Per profile and tick: what runs is at most what the replicas that are on can do."""
        demand, ticks = self._demand, np.arange(self.ticks)
        runs = np.arange(self._runs_at, self._misses_at)
        entries = [
            (self._run_profile * self.ticks + self._run_tick, runs, demand.ratios[self._run_profile, self._run_lot])
        ]
        for on, pool in zip(self._on, self._scenario.pools, strict=True):
            rows = demand.profiles.index(pool.profile) * self.ticks + ticks
            entries.append((rows, on, np.full(self.ticks, -self._tick)))
        return _joined(entries)

    def _switching(self) -> Entries:
        """Per pool and tick: what is on and was not on before has been started. The first pool is warm at the start."""
        rows, started = self._on.ravel(), self._on.ravel() + self._on.size
        later = self._on[:, 1:].ravel()
        is_paid = np.ones(len(rows))
        is_paid[0] = 0
        return _joined([(rows, rows, is_paid), (later, later - 1, -np.ones(len(later))), (rows, started, -is_paid)])

    def _floor(self) -> Entries:
        """Per tick: at least the scenario's least replicas, over all pools."""
        columns = self._on[:, : self.floor_ticks].ravel()
        return np.tile(np.arange(self.floor_ticks), self.pools), columns, -np.ones(len(columns))

    def _sparse(self, entries: Entries, height: int) -> csr_array:
        rows, columns, values = entries
        return coo_array((values, (rows, columns)), shape=(height, self.columns)).tocsr()


def _joined(entries: list[Entries]) -> Entries:
    rows, columns, values = zip(*entries, strict=True)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)


def _runs(demand: Demand) -> tuple[Ints, Ints, Ints]:
    """Profile, lot and tick of every way to run a lot's work."""
    lengths = demand.last_tick - demand.first_tick + 1
    lot = np.repeat(np.arange(len(lengths)), lengths)
    tick = demand.first_tick[lot] + np.arange(len(lot)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    profiles = len(demand.profiles)
    return np.repeat(np.arange(profiles), len(lot)), np.tile(lot, profiles), np.tile(tick, profiles)
