"""A statement as one HTML file for the screen, for mail and for paper: no script, and nothing from elsewhere.

Every name is escaped: models and tenants are called what somebody wrote.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from swell.metering.reports import Sums
from swell.metering.statement import BudgetStanding, Statement
from swell.units import usd_text

# A browser refuses what this forbids, even where a name tried.
_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'"
_SUMS = ("requests", "prompt tokens", "completion tokens", "charge")
_TEXT = ' class="text"'
_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#f6f7f9;color:#16202e;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:900px;margin:0 auto;padding:36px 24px 56px}
header p{margin:0;color:#5a6675}
h1{font-size:27px;line-height:1.2;margin:4px 0 6px}
h2{font-size:17px;margin:0 0 8px}
section{background:#fff;border:1px solid #e4e8ee;border-radius:10px;padding:18px 20px;margin-top:18px}
section p{margin:8px 0 0;color:#5a6675}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:18px}
.tile{background:#fff;border:1px solid #e4e8ee;border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:22px;line-height:1.3;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.tile span{color:#5a6675;font-size:13px}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th{text-align:right;color:#5a6675;font-weight:600;padding:5px 6px;border-bottom:1px solid #d3d9e2;vertical-align:bottom}
td{text-align:right;padding:5px 6px;border-bottom:1px solid #e4e8ee}
td:first-child,th:first-child{text-align:left;overflow-wrap:anywhere}
td.text,th.text{text-align:left;overflow-wrap:anywhere}
tfoot td{font-weight:650;border-top:1px solid #d3d9e2;border-bottom:0}
.over{color:#c0262d;font-weight:600}
@page{margin:16mm}
@media print{body{background:#fff;font-size:11pt}main{max-width:none;padding:0}
section,.tile{border-color:#bbb;border-radius:0}
thead{display:table-header-group}tr,.tile{break-inside:avoid}h2{break-after:avoid}}
"""


def statement_page(made: Statement) -> str:
    """The statement as a document."""
    title = f"Statement {made.period.label}: {made.tenant}"
    body = (
        _head(made)
        + _tiles(made.total)
        + _models(made)
        + _budgets(made)
        + _days(made)
        + _day_models(made)
        + _notes(made)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(made: Statement) -> str:
    period = f"{_moment(made.period.start_unix, made)} to {_moment(made.period.end_unix, made)}"
    return (
        f"<header><p>{escape(made.organisation)} · statement of usage and charges</p>"
        f"<h1>{escape(made.tenant)}, {escape(made.period.label)}</h1>"
        f"<p>{escape(period)}, {escape(made.zone.key)}</p></header>"
    )


def _tiles(total: Sums) -> str:
    tiles = (
        (usd_text(total.charge_usd_nanos), "charged"),
        (f"{total.requests:,}", "requests"),
        (f"{total.prompt_tokens:,}", "prompt tokens"),
        (f"{total.completion_tokens:,}", "completion tokens"),
    )
    boxes = "".join(f'<div class="tile"><b>{value}</b><span>{text}</span></div>' for value, text in tiles)
    return f'<div class="tiles">{boxes}</div>'


def _models(made: Statement) -> str:
    rows = [
        (model, usd_text(prompt), usd_text(completion), *_cells(sums))
        for (model, prompt, completion), sums in made.models.items()
    ]
    columns = ("model", "$ per million prompt tokens", "$ per million completion tokens", *_SUMS)
    return _section("By model and rate", columns, rows, ("total", "", "", *_cells(made.total)))


def _budgets(made: Statement) -> str:
    if not made.budgets:
        return "<section><h2>Budgets</h2><p>No budget is set for this tenant.</p></section>"
    rows = "".join(_budget(standing) for standing in made.budgets)
    heads = "".join(f"<th>{name}</th>" for name in ("period", "requests for", "budget", "spent", "left", "used"))
    when = "did at its end" if made.is_over else "does now"
    return (
        f"<section><h2>Budgets</h2><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        "<p>Budgets are those that are configured now, with the raises that held; each stands as it "
        f"{when}, in its own period.</p></section>"
    )


def _budget(standing: BudgetStanding) -> str:
    term, left = standing.term, standing.left_usd_nanos
    cap, raised, grace = standing.cap_usd_nanos, standing.raised_usd_nanos, term.grace_usd_nanos
    used = f"{standing.spent_usd_nanos * 1000 // cap / 10:.1f} %" if cap else ""
    amount = usd_text(cap) + (f" ({usd_text(raised)} of it raised)" if raised else "")
    cells = (
        term.kind if standing.label == term.kind else f"{standing.label} ({term.kind}, {term.zone.key})",
        term.model or "all models",
        amount + (f" and a grace of {usd_text(grace)}" if grace else ""),
        usd_text(standing.spent_usd_nanos),
    )
    first = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    style = ' class="over"' if left < 0 else ""
    return f"<tr>{first}<td{style}>{usd_text(left)}</td><td>{used}</td></tr>"


def _days(made: Statement) -> str:
    rows = [(day, *_cells(sums)) for day, sums in made.days.items()]
    return _section("By day", ("day", *_SUMS), rows, ("total", *_cells(made.total)))


def _day_models(made: Statement) -> str:
    if len({model for model, _, _ in made.models}) < 2:
        return ""  # the days say it all
    rows = [(day, model, *_cells(sums)) for (day, model), sums in made.day_models.items()]
    return _section("By day and model", ("day", "model", *_SUMS), rows, ("total", "", *_cells(made.total)))


def _notes(made: Statement) -> str:
    said = ["A request belongs to the day on which it was admitted, and is charged at the rates of that moment."]
    void = made.total[1]
    if void:
        said.append(f"{void:,} further requests never reached a model; they cost nothing.")
    if made.open_sums.requests:
        said.append(
            f"Of {made.open_sums.requests:,} requests the outcome is unknown, or not known yet; they count at their "
            f"bound, {usd_text(made.open_sums.charge_usd_nanos)} in all."
        )
    if not made.is_over:
        said.append("The period is not over: more will be added.")
    said.append(f"Made {_moment(made.made_at_unix, made)}, {made.zone.key}. Amounts are US dollars, exact.")
    return "<section><h2>Notes</h2>" + "".join(f"<p>{escape(sentence)}</p>" for sentence in said) + "</section>"


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str]) -> str:
    texts = [index for index, name in enumerate(columns) if name in ("model", "day")]

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_TEXT if index in texts else ''}>{escape(value)}</{tag}>" for index, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    if not body:
        return f"<section><h2>{title}</h2><p>There were no requests.</p></section>"
    return (
        f"<section><h2>{title}</h2><table><thead><tr>{cells('th', columns)}</tr></thead>"
        f"<tbody>{body}</tbody><tfoot><tr>{cells('td', total)}</tr></tfoot></table></section>"
    )


def _cells(sums: Sums) -> tuple[str, str, str, str]:
    charge = usd_text(sums.charge_usd_nanos)
    return f"{sums.requests:,}", f"{sums.prompt_tokens:,}", f"{sums.completion_tokens:,}", charge


def _moment(at_unix: float | None, made: Statement) -> str:
    if at_unix is None:
        return "no end"
    return datetime.fromtimestamp(at_unix, UTC).astimezone(made.zone).strftime("%Y-%m-%d %H:%M")
