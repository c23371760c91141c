"""A comparison as one HTML file that can be mailed: no script, no address outside itself, light and dark."""

from collections.abc import Sequence
from html import escape

from swell import __version__
from swell.simulator.compare import Comparison, Score
from swell.simulator.report_scores import front, latencies, reasons, searched_on_day
from swell.simulator.report_style import PALETTE, TABS, css
from swell.simulator.report_time import costs, legend, replicas
from swell.simulator.summary import (
    columns,
    hardware_text,
    objective_text,
    ranked,
    ranking,
    rows,
    sentences,
    share,
    span,
    subject,
    telling,
    usd,
)

TIMES = "\u00d7"
# The page may load nothing: a browser refuses what this forbids, even where a name in a trace tried.
_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'"


def page(comparison: Comparison, about: str | None = None) -> str:
    """The report. `about` is the policy that stands out; without, the first that was given."""
    score = subject(comparison, about)
    title = _title(comparison)
    sections = (
        _head(comparison, score, title),
        _replicas(comparison, score),
        _costs(comparison, score),
        _front(comparison, score),
        _latencies(comparison),
        _reasons(comparison),
        _scores(comparison, score),
        _scenario(comparison),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">'
        f"<title>{escape(title)}</title><style>{css()}</style></head><body><main>"
        + "".join(sections)
        + "</main></body></html>\n"
    )


def _title(comparison: Comparison) -> str:
    trace = comparison.scenario.traffic.name or "a trace"
    if len(comparison.scores) > 1:
        return f"{len(comparison.scores)} scaling policies on {trace}"
    return f"What {comparison.scores[0].name} makes of {trace}"


def _styles(comparison: Comparison, score: Score) -> dict[str, str]:
    """Each curve's CSS class; the one it is about has the first colour and a thicker line."""
    others = [each.name for each in comparison.scores if each.name != score.name]
    styles = {name: f"series{1 + index % (PALETTE - 1)}" for index, name in enumerate(others)}
    for reference in (comparison.oracle, comparison.rate_clairvoyant):
        if reference is not None:
            styles.setdefault(reference.name, "reference")
    return {**styles, score.name: "series0 first"}


def _head(comparison: Comparison, score: Score, title: str) -> str:
    result, compared = score.found.result, telling(comparison, score)
    tiles = [
        ("good" if score.found.reached else "bad", share(result.attainment), "of requests met the objective"),
        ("", usd(result.cost_usd), f"for {span(comparison.scenario.traffic.seconds)}"),
    ]
    if compared.cost_over_rate_clairvoyant:
        tiles.append(("", f"{compared.cost_over_rate_clairvoyant:.2f} {TIMES}", "of knowing the true rate ahead"))
    if compared.cost_over_oracle:
        tiles.append(("", f"{compared.cost_over_oracle:.2f} {TIMES}", "of a plan with full hindsight"))
    if compared.cost_over_bound:
        tiles.append(("", f"{compared.cost_over_bound:.2f} {TIMES}", "of what nobody can undercut"))
    rival = _rival(comparison, score)
    if rival is not None:
        less = 1 - result.cost_usd / rival.found.result.cost_usd
        style, word = ("good", "less") if less >= 0 else ("bad", "more")
        tiles.append((style, f"{abs(less):.0%} {word}", f"than {rival.name}, the best of the others"))
    boxes = "".join(
        f'<div class="tile {style}"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for style, value, text in tiles
    )
    spoken = [*sentences(comparison, score), ranking(comparison, score)]
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in spoken if sentence)
    return (
        f"<header><p>swell simulate · policy {escape(score.name)}</p><h1>{escape(title)}</h1></header>"
        f'<div class="tiles">{boxes}</div><section class="lead">{said}</section>'
    )


def _rival(comparison: Comparison, score: Score) -> Score | None:
    """The cheapest other policy that reaches the attainment, where this one does as well."""
    others = [each for each in ranked(comparison) if each.name != score.name and each.found.reached]
    return others[0] if others and score.found.reached else None


def _replicas(comparison: Comparison, score: Score) -> str:
    ordered = [score, *(each for each in ranked(comparison) if each.name != score.name)][:TABS]
    shown = [each for each in ordered if len(each.found.result.timeline.seconds)]
    if not shown:
        return ""
    choices = "".join(
        f'<input class="choice" type="radio" name="policy" id="tab{i}"{" checked" if i == 0 else ""}>'
        for i in range(len(shown))
    )
    labels = "".join(f'<label class="tab{i}" for="tab{i}">{escape(each.name)}</label>' for i, each in enumerate(shown))
    tabs = f'<div class="tabs">{labels}</div>' if len(shown) > 1 else ""
    panes = "".join(
        f'<div class="pane pane{i} wide">{replicas(comparison, each.found)}</div>' for i, each in enumerate(shown)
    )
    meaning = legend(
        [
            ("line-ready", "ready"),
            ("fill-start", "starting: billed, not serving yet"),
            ("line-demand", "replicas that the arrivals would fill"),
            ("fill-queued", "requests that wait for a replica"),
        ]
    )
    return _section(
        "Replicas and demand",
        "Where the blue line runs above the black one, capacity is spare; where it runs below, requests queue.",
        f'{choices}{tabs}<div class="panes">{panes}</div>{meaning}',
    )


def _costs(comparison: Comparison, score: Score) -> str:
    return _section(
        "What has been spent by when",
        "Start-up is billed from the order on. Dashed lines are references that know what no policy can know.",
        f'<div class="wide">{costs(comparison, _styles(comparison, score))}</div>',
    )


def _front(comparison: Comparison, score: Score) -> str:
    chart = front(comparison, _styles(comparison, score))
    if not chart:
        return ""
    traffic = "the representative day" if searched_on_day(comparison) else "the whole trace"
    return _section(
        "Cost against attainment",
        f"Every policy at the settings of its one knob that were tried, on {traffic}. Lower is cheaper, further right "
        "is better served; the dashed line is what was asked for.",
        f'<div class="wide">{chart}</div>',
    )


def _latencies(comparison: Comparison) -> str:
    pair = "".join(
        f'<div class="half wide"><h3>{title}</h3>{latencies(comparison, which)}</div>'
        for which, title in (("ttft", "Time to first token"), ("itl", "Time between tokens (mean of a request)"))
    )
    return _section(
        "Latency against the objective",
        "From left to right p50, p95 and p99 of all requests that were answered.",
        f'<div class="pair">{pair}</div>',
    )


def _reasons(comparison: Comparison) -> str:
    chart = reasons(comparison)
    if not chart:
        return ""
    return _section(
        "What set the number of replicas",
        "Every decision names the rule that bound it. In shares of all decisions.",
        f'<div class="wide">{chart}</div>',
    )


def _scores(comparison: Comparison, score: Score) -> str:
    missed = {each.name for each in comparison.scores if not each.found.reached}
    policies = {each.name for each in comparison.scores}
    is_split = any(len(each.found.result.usd_by_market) > 1 for each in comparison.scores)
    heads = columns(comparison)
    heads = heads if is_split else heads[:-1]  # the spend by market tells nothing where there is one
    lines = []
    for cells in (row[: len(heads)] for row in rows(comparison)):
        name = cells[0]
        style = "first" if name == score.name else "missed" if name in missed else ""
        lines.append(_line(cells, style if name in policies else "reference"))
    head = "".join(f"<th>{escape(column)}</th>" for column in heads)
    how = (
        f"Every policy's knob was searched for the lowest cost at {share(comparison.attainment)} attained; refusals "
        "count as misses. Policies that cannot reach it come last, with the most they attain."
        if comparison.searched
        else "The policy ran at its own setting; references attain as much as it does."
    )
    return _section(
        "Scores",
        how,
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>',
    )


def _line(cells: Sequence[str], style: str) -> str:
    row = "".join(
        f"<td{' class=verdict' if index == 1 else ''}>{escape(cell)}</td>" for index, cell in enumerate(cells)
    )
    return f'<tr class="{style}">{row}</tr>'


def _scenario(comparison: Comparison) -> str:
    scenario = comparison.scenario
    traffic = scenario.traffic
    most = "" if scenario.max_replicas >= 10_000 else f" to {scenario.max_replicas}"
    facts = [
        ("Trace", f"{traffic.name or 'unnamed'}: {len(traffic):,} requests in {span(traffic.seconds)}"),
        ("Machines", f"{hardware_text(scenario)}; {scenario.pools[0].start_seconds:g} s from order to ready"),
        ("Replicas", f"{scenario.min_replicas}{most or ' and more'}; {scenario.routing.replace('_', ' ')}"),
        ("Objective", f"{objective_text(scenario)}, for {share(comparison.attainment)} of requests"),
        ("History", _history(comparison)),
        ("Bound", "the least by which all this work can be done in time, start-up included; no policy can be cheaper"),
        ("Oracle", "a plan made in knowledge of every request, replayed with the least headroom that attains as much"),
        ("Rate-clairvoyant", "a policy that knows the true rate and lengths for the start-up time ahead, no more"),
        ("Made by", f"Swell {__version__}, seed {scenario.seed}; the same seed gives the same figures"),
    ]  # fmt: skip
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<section><h2>What was simulated</h2><dl>{entries}</dl></section>"


def _history(comparison: Comparison) -> str:
    history = comparison.scenario.history
    return (
        "none: every policy begins without" if history is None else f"{span(history.seconds)} before the trace begins"
    )


def _section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{body}</section>"
