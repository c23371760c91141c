"""Charts over time: replicas against demand, and what has been spent."""

from collections.abc import Sequence
from html import escape

import numpy as np

from swell.simulator.compare import Comparison, Found
from swell.simulator.demand import replicas_filled
from swell.simulator.report_svg import (
    Array,
    Frame,
    Scale,
    apart,
    area,
    averaged,
    label,
    line,
    picture,
    ticks,
    x_axis,
    y_axis,
)
from swell.simulator.result import Scenario
from swell.simulator.summary import usd

POINTS = 480  # a curve's, however long the trace is
_DAY, _HOUR, _MINUTE = 86_400.0, 3_600.0, 60.0
_WAITING = Frame(height=110.0, top=20.0)
_REPLICAS = Frame(height=300.0)
_COST = Frame(height=340.0, right=196.0)


def edges_of(scenario: Scenario) -> Array:
    """Bounds of the intervals that are drawn, from the first second to the last arrival."""
    return np.linspace(0.0, max(scenario.traffic.seconds, 1.0), POINTS + 1)


def replicas(comparison: Comparison, found: Found) -> str:
    """One policy's replicas, those that start, and the demand; below, the requests that wait."""
    scenario, timeline = comparison.scenario, found.result.timeline
    edges = edges_of(scenario)
    middle = (edges[:-1] + edges[1:]) / 2
    ready = averaged(timeline.seconds, timeline.ready, edges)
    present = averaged(timeline.seconds, timeline.present, edges)
    needed = replicas_filled(scenario.traffic, scenario.pools[0].profile, scenario.objective, edges)
    x = _REPLICAS.x(0.0, float(edges[-1]))
    y = _REPLICAS.y(0.0, max(1.0, float(max(present.max(), needed.max()))) * 1.06)

    def points(values: Array, scale: Scale = y) -> list[tuple[float, float]]:
        return [(x(t), scale(v)) for t, v in zip(middle, values, strict=True)]

    floor = [(x(t), y(0.0)) for t in middle]
    return picture(
        _REPLICAS,
        f"Replicas of {found.name} and demand over time",
        y_axis(_REPLICAS, y, ticks(0.0, y.high), lambda value: f"{value:g}"),
        area(points(ready), floor, "fill-ready"),
        area(points(present), points(ready), "fill-start"),
        line(points(ready), "line-ready", "replicas that are ready"),
        line(points(needed), "line-demand", "replicas that the arrivals would fill"),
        _time_axis(_REPLICAS, x),
    ) + _waiting(scenario, found, edges)


def costs(comparison: Comparison, names: dict[str, str]) -> str:
    """What every policy and reference has spent by when. `names` gives each its CSS class."""
    edges = edges_of(comparison.scenario)
    curves = [(each, names[each.name]) for each in _reference_first(comparison)]
    spent = [_spent(found, edges) for found, _ in curves]
    most = max([float(each[-1]) for each in spent] + [comparison.bound_usd or 0.0, 1e-6])
    x, y = _COST.x(0.0, float(edges[-1])), _COST.y(0.0, most * 1.04)
    bound = comparison.bound_usd
    ends = [y(float(each[-1])) for each in spent] + ([y(bound)] if bound else [])
    heights = apart(ends, _COST.top + 6, _COST.height - _COST.bottom)
    right = _COST.width - _COST.right
    drawn = []
    for (found, style), each, height in zip(curves, spent, heights, strict=False):
        said = f"{found.name} {usd(float(each[-1]))}"
        curve = [(x(t), y(v)) for t, v in zip(edges[1:], each, strict=True)]
        drawn.append(
            f'<g class="series {style}">'
            + line(curve, "curve", said)
            + label(right + 8, height + 4, said, "name")
            + "</g>"
        )
    if bound:
        text = f"bound {usd(bound)}"
        drawn.append(
            f'<g class="series reference">{line([(_COST.left, y(bound)), (right, y(bound))], "curve level", text)}'
            + label(right + 8, heights[-1] + 4, text, "name")
            + "</g>"
        )
    return picture(
        _COST,
        "Spend over time",
        y_axis(_COST, y, ticks(0.0, y.high), usd_short),
        *drawn,
        _time_axis(_COST, x),
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Swatches with their meaning: (CSS class, text)."""
    return (
        '<p class="legend">'
        + "".join(f'<span><i class="{escape(style)}"></i>{escape(text)}</span>' for style, text in entries)
        + "</p>"
    )


def usd_short(value: float) -> str:
    """For an axis."""
    return f"${value / 1000:g}k" if value >= 1000 else f"${value:g}"


def _waiting(scenario: Scenario, found: Found, edges: Array) -> str:
    """Requests in the gateway's queue, and those that run or wait."""
    timeline = found.result.timeline
    queued = averaged(timeline.seconds, timeline.queued, edges)
    inside = averaged(timeline.seconds, timeline.in_system, edges)
    middle = (edges[:-1] + edges[1:]) / 2
    x = _WAITING.x(0.0, float(edges[-1]))
    y = _WAITING.y(0.0, max(1.0, float(inside.max())) * 1.05)
    floor = [(x(t), y(0.0)) for t in middle]
    return picture(
        _WAITING,
        f"Requests of {found.name} that run and that wait",
        y_axis(_WAITING, y, ticks(0.0, y.high, 2), lambda value: f"{value:,.3g}"),
        label(_WAITING.left, 12, "requests in the system; in red, those that wait for a replica", "note"),
        area([(x(t), y(v)) for t, v in zip(middle, inside, strict=True)], floor, "fill-inside"),
        area([(x(t), y(v)) for t, v in zip(middle, queued, strict=True)], floor, "fill-queued"),
        _time_axis(_WAITING, x),
    )


def _spent(found: Found, edges: Array) -> Array:
    """USD by the end of each interval. Scaled to the bill, which also holds what ends after the last tick."""
    timeline = found.result.timeline
    if not len(timeline.seconds):
        return np.linspace(0.0, found.result.cost_usd, len(edges))[1:]
    hours = np.diff(timeline.seconds, prepend=0.0) / _HOUR
    total = np.cumsum(timeline.usd_per_hour * hours)
    at = np.interp(edges[1:], timeline.seconds, total, left=0.0)
    return np.asarray(at * (found.result.cost_usd / at[-1] if at[-1] > 0 else 0.0))


def _reference_first(comparison: Comparison) -> list[Found]:
    """References, then policies, so that policies are drawn on top."""
    others = [each for each in (comparison.oracle, comparison.rate_clairvoyant) if each is not None]
    return others + [score.found for score in comparison.scores]


def _time_axis(frame: Frame, x: Scale) -> str:
    """In days, hours or minutes from the start."""
    unit, name = next((each for each in ((_DAY, "day"), (_HOUR, "h")) if x.high >= 2 * each[0]), (_MINUTE, "min"))
    if name == "day":
        days = [day * _DAY for day in range(int(x.high // _DAY) + 1)]
        return x_axis(frame, x, days[:: max(1, len(days) // 15)], lambda at: f"day {at / _DAY + 1:g}", grid=True)
    values = [value * unit for value in ticks(0.0, x.high / unit, 8)]
    return x_axis(frame, x, values, lambda at: f"{at / unit:g} {name}", grid=True)
