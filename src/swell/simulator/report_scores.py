"""Charts that set policies side by side: latency and objective, cost and attainment, what set the number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from swell.simulator.compare import Comparison, Found, Probe
from swell.simulator.report_svg import (
    Frame,
    apart,
    decades,
    dot,
    label,
    line,
    picture,
    ticks,
    x_axis,
    y_axis,
)
from swell.simulator.report_time import legend, usd_short
from swell.simulator.summary import duration, ranked, reason_shares, share, usd

_ROW_PIXELS = 30.0
_FEWEST_MISSES = 1e-4  # more than 99.99 % is drawn as that
_MOST_MISSES = 0.2
_MARKED_MISSES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
_FRONT = Frame(height=380.0, right=150.0, bottom=46.0)
_COLOURED_REASONS = 8
_SHORTEST_SHARE = 0.004


def latencies(comparison: Comparison, which: str) -> str:
    """p50, p95 and p99 of every policy; `which` is "ttft" or "itl". A line marks the objective."""
    founds = [score.found for score in ranked(comparison)]
    objective = comparison.scenario.objective
    limit = objective.ttft_ms if which == "ttft" else objective.itl_ms
    spreads = {f.name: dict(f.result.ttft_ms if which == "ttft" else f.result.itl_ms) for f in founds}
    measured = [value for each in spreads.values() for value in each.values() if value > 0]
    if not measured:
        return '<p class="note">Nothing was answered, so there is nothing to measure.</p>'
    frame = Frame(width=470.0, height=44 + _ROW_PIXELS * len(founds), left=128.0, top=24.0, bottom=24.0)
    x = frame.x(max(min(measured) * 0.8, limit / 1e4, 0.1), max(*measured, limit) * 1.25, log=True)
    marks = decades(x.low, x.high)
    parts = [x_axis(frame, x, marks if len(marks) > 2 else ticks(x.low, x.high, 4), duration, grid=True)]
    for row, found in enumerate(founds):
        y = frame.top + _ROW_PIXELS * (row + 0.5)
        own = spreads[found.name]
        parts.append(label(frame.left - 12, y + 4, found.name, "row", "end"))
        parts.append(line([(x(value), y) for value in own.values()], "span"))
        parts += [
            dot(x(value), y, 3.5 + 1.5 * index, f"at at{index}", f"{found.name} {name} {duration(value)}")
            for index, (name, value) in enumerate(own.items())
        ]
    at = x(limit)
    parts.append(line([(at, frame.top - 4), (at, frame.height - frame.bottom)], "limit"))
    suffix = " + own prompt" if which == "ttft" and objective.beyond_prefill else ""
    anchor = "end" if at > frame.width * 0.6 else "start"
    parts.append(
        label(at + (-6 if anchor == "end" else 6), 14, f"objective {duration(limit)}{suffix}", "limit-name", anchor)
    )
    title = "time to first token" if which == "ttft" else "inter-token latency"
    return picture(frame, f"{title} of every policy against the objective", *parts)


def front(comparison: Comparison, names: Mapping[str, str]) -> str:
    """Cost against attainment: every replay of every search, joined by policy. Empty where nothing was searched."""
    references = [each for each in (comparison.oracle, comparison.rate_clairvoyant) if each]
    founds = references + [score.found for score in comparison.scores]
    series = [(found, _drawn(comparison, found)) for found in founds]
    series = [(found, probes) for found, probes in series if probes]
    if not any(len(probes) > 1 for _, probes in series):
        return ""
    reaching = [p.cost_usd for _, probes in series for p in probes if p.attainment >= comparison.attainment]
    every = [p.cost_usd for _, probes in series for p in probes]
    top = min(max(every), 2.5 * min(reaching, default=max(every)))
    allowed = max(_FEWEST_MISSES, 1 - comparison.attainment)
    least = min(max(_FEWEST_MISSES, 1 - p.attainment) for _, probes in series for p in probes)
    x = _FRONT.x(_MOST_MISSES, min(least / 1.2, allowed / 2), log=True)
    y = _FRONT.y(min(every) * 0.9, top * 1.03)
    marks = [misses for misses in _MARKED_MISSES if misses >= x.high]
    parts = [
        y_axis(_FRONT, y, ticks(y.low, y.high), usd_short),
        x_axis(_FRONT, x, marks, lambda misses: f"{(1 - misses) * 100:.5g} %", grid=True),
        label(_FRONT.left, _FRONT.height - 6, "share of requests that met the objective", "note"),
    ]
    at = x(allowed)
    parts.append(line([(at, _FRONT.top), (at, _FRONT.height - _FRONT.bottom)], "limit"))
    curves, ends = [], []
    for found, probes in series:
        inside = [p for p in _monotone(probes) if p.cost_usd <= top * 1.03 and 1 - p.attainment <= _MOST_MISSES]
        if inside:
            curves.append((found, [(x(max(_FEWEST_MISSES, 1 - p.attainment)), y(p.cost_usd), p) for p in inside]))
            ends.append(curves[-1][1][-1][1])
    heights = apart(ends, _FRONT.top + 6, _FRONT.height - _FRONT.bottom)
    for (found, points), height in zip(curves, heights, strict=True):
        parts.append(_curve(found, points, height, names[found.name]))
    return picture(_FRONT, "Cost against attainment of every policy", *parts)


def reasons(comparison: Comparison) -> str:
    """Which rule set the number of replicas, in shares of every policy's decisions."""
    founds = [score.found for score in ranked(comparison) if score.found.result.reasons]
    if not founds:
        return ""
    weight: Counter[str] = Counter()
    for found in founds:
        weight.update(dict(reason_shares(found)))
    known = [name for name, _ in weight.most_common(_COLOURED_REASONS)]
    style = {name: f"reason{index}" for index, name in enumerate(known)}
    frame = Frame(height=12 + _ROW_PIXELS * len(founds), left=136.0, top=6.0, bottom=6.0)
    x = frame.x(0.0, 1.0)
    parts = []
    for row, found in enumerate(founds):
        y = frame.top + _ROW_PIXELS * row + 5
        parts.append(label(frame.left - 12, y + 15, found.name, "row", "end"))
        begin = 0.0
        for name, part in reason_shares(found):
            said = f"{name.replace('_', ' ')} {part:.1%}"
            parts.append(_segment(x(begin), x(begin + part), y, style.get(name, "reason-other"), said))
            begin += part
    entries = [(style[name], name.replace("_", " ")) for name in known]
    entries += [("reason-other", "others")] if len(weight) > len(known) else []
    return picture(frame, "What set the number of replicas", *parts) + legend(entries)


def searched_on_day(comparison: Comparison) -> bool:
    """Whether the front is of the representative day, and not of the whole trace."""
    return any(not probe.whole for score in comparison.scores for probe in score.found.probes)


def _drawn(comparison: Comparison, found: Found) -> list[Probe]:
    """The replays of the day where policies were searched on one, else of the whole: only equal traffic compares."""
    is_day = searched_on_day(comparison)
    return [probe for probe in found.probes if probe.whole != is_day]


def _monotone(probes: Sequence[Probe]) -> list[Probe]:
    """By attainment, without what is beaten: dearer and no better than another."""
    kept: list[Probe] = []
    for probe in sorted(probes, key=lambda each: (-each.attainment, each.cost_usd)):
        if not kept or probe.cost_usd < kept[-1].cost_usd:
            kept.append(probe)
    return kept[::-1]


def _curve(found: Found, points: Sequence[tuple[float, float, Probe]], height: float, style: str) -> str:
    def said(probe: Probe) -> str:
        return f"{found.name}: {share(probe.attainment)} for {usd(probe.cost_usd)}"

    end = _FRONT.width - _FRONT.right + 24
    return (
        f'<g class="series {escape(style)}">'
        + line([(x, y) for x, y, _ in points], "curve", found.name)
        + "".join(dot(x, y, 3.5, "mark", said(probe)) for x, y, probe in points)
        + line([points[-1][:2], (end - 14, height), (end - 4, height)], "leader")
        + label(end, height + 4, found.name, "name")
        + "</g>"
    )


def _segment(begin: float, end: float, y: float, style: str, said: str) -> str:
    if end - begin < _SHORTEST_SHARE * 100:
        return ""
    box = (
        f'<rect class="{style}" x="{begin:.1f}" y="{y:.1f}" width="{end - begin - 1:.1f}" height="21" rx="2">'
        f"<title>{escape(said)}</title></rect>"
    )
    room = (end - begin - 14) / 7.2  # characters that fit
    return box + (label(begin + 7, y + 15, said, f"inside on-{style}") if len(said) < room else "")
