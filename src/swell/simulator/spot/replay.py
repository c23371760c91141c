"""Markets that were recorded: files of node events, such as those of fleets that kept asking for spot nodes.

A file is CSV with the columns `time_ms`, `event` (`add` or `remove`) and `node`, and optionally `zone`. What such a
fleet held is what could be had: an `add` is room for one more replica, a `remove` takes one away with what runs on it.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from swell.errors import UserError
from swell.simulator.spot.market import NOTICE_SECONDS, SpotEvent, SpotEventKind, Timeline

MAX_EVENTS = 5_000_000


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A node came (`added`) or went, `at` seconds after the recording began."""

    at: float
    node: str
    added: bool
    zone: str = ""


def read_node_events(path: Path) -> list[NodeEvent]:
    """The events of a file, in order of time. UserError where it cannot be read as such."""
    found: list[NodeEvent] = []
    try:
        with path.open(newline="") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                found.append(_event(row, f"{path}, line {line}"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file ({error})") from error
    if not found:
        raise UserError(f"{path}: has no node events; it needs the columns time_ms, event and node")
    return sorted(found, key=lambda event: event.at)


def _event(row: dict[str, str], where: str) -> NodeEvent:
    try:
        at, kind, node = float(row["time_ms"]) / 1000, row["event"].strip(), row["node"].strip()
    except (KeyError, ValueError, AttributeError, TypeError):
        raise UserError(f"{where}: needs time_ms (a number), event (add or remove) and node") from None
    if kind not in ("add", "remove") or not 0 <= at < float("inf"):
        raise UserError(f"{where}: {kind!r} at {at} is not an event; give add or remove, at 0 or later")
    return NodeEvent(at, node, kind == "add", (row.get("zone") or "").strip())


def replay_market(
    events: Sequence[NodeEvent],
    *,
    zones: Sequence[str],
    horizon_seconds: float,
    nodes_per_node: int = 1,
    shift_seconds: float | None = None,
    notice_seconds: float = NOTICE_SECONDS,
) -> Timeline:
    """The recording, in a loop until `horizon_seconds`, from its first node on.

    Events that name a zone happen there; the others in each of `zones`, whose recordings begin `shift_seconds` apart
    (by default spread evenly over the recording, so that zones do not fall together). A recorded node stands for
    `nodes_per_node` replicas. Capacity at the end of the recording turns into that of its beginning.
    """
    if not events or nodes_per_node < 1 or not 0 < horizon_seconds < float("inf"):
        raise ValueError("a replay needs events, at least one replica per node, and a positive finite horizon")
    begin = min(event.at for event in events)
    period = max(max(event.at for event in events) - begin, 1.0)
    apart = period / max(1, len(zones)) if shift_seconds is None else shift_seconds
    found: list[SpotEvent] = []
    for index, zone in enumerate(zones):
        steps = _steps([event for event in events if event.zone in ("", zone)], begin)
        repeated = _looped(steps, period, index * apart % period, horizon_seconds)
        found += _changes(zone, repeated, nodes_per_node)
    order = {zone: index for index, zone in enumerate(zones)}
    found.sort(key=lambda event: (event.at, order[event.zone]))  # a zone's events keep their order: sorting is stable
    return Timeline(zones, found, notice_seconds)


def _steps(events: Sequence[NodeEvent], begin: float) -> list[tuple[float, int]]:
    """(seconds, nodes held from then on), one per moment. A node that is added twice counts once."""
    held: set[str] = set()
    steps: list[tuple[float, int]] = []
    for at, moment in groupby(sorted(events, key=lambda event: event.at), key=lambda event: event.at):
        for event in moment:
            held.add(event.node) if event.added else held.discard(event.node)
        steps.append((at - begin, len(held)))
    return steps


def _looped(
    steps: Sequence[tuple[float, int]], period: float, shift: float, horizon: float
) -> Iterable[tuple[float, int]]:
    """The recording from `shift` seconds into it, again and again, as (seconds, nodes)."""
    if not steps:
        return
    if len(steps) * (horizon / period + 1) > MAX_EVENTS:
        raise ValueError(f"the replay would have over {MAX_EVENTS} events; give a shorter horizon")
    yield 0.0, next((nodes for at, nodes in reversed(steps) if at <= shift), steps[-1][1])
    turn = -shift
    while turn < horizon:
        yield from ((turn + at, nodes) for at, nodes in steps if 0 < turn + at < horizon)
        turn += period


def _changes(zone: str, steps: Iterable[tuple[float, int]], scale: int) -> Iterable[SpotEvent]:
    last = 0
    for at, nodes in steps:
        change = (nodes - last) * scale
        last = nodes
        if change > 0:
            yield SpotEvent(at, zone, SpotEventKind.UP, change)
        elif change < 0:
            yield SpotEvent(at, zone, SpotEventKind.DOWN, -change)
            yield SpotEvent(at, zone, SpotEventKind.KILL, -change)
