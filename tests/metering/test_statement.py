"""A tenant's statement: figures that agree with one another, and a page that shows them and nothing else."""

from html.parser import HTMLParser

import pytest
from ledgers import ledger, request, unix_ms, void

from swell.metering.periods import zone_of
from swell.metering.reports import named_period
from swell.metering.statement import BudgetTerm, Statement, statement
from swell.metering.statement_page import statement_page
from swell.state.overrides import BudgetOverride
from swell.state.records import UsageChange

NOW = unix_ms("2026-12-05T12:00:00+00:00") / 1000
UTC = zone_of("UTC")
CHANGES = (
    request("a", "2026-11-01T10:00:00+00:00"),
    request("b", "2026-11-29T10:00:00+00:00"),
    request("dearer", "2026-11-29T11:00:00+00:00", prompt_rate=300_000_000),
    request("embed", "2026-11-29T12:00:00+00:00", model="embed", completion_tokens=0),
    request("open", "2026-11-30T23:59:59+00:00", status="reserved"),
    void("void", "2026-11-29T12:00:00+00:00"),
    request("others", "2026-11-29T12:00:00+00:00", tenant="ads"),
    request("december", "2026-12-01T00:00:00+00:00"),
)


def made(*changes: UsageChange, period: str = "2026-11", terms: tuple[BudgetTerm, ...] = (), zone=UTC) -> Statement:
    store = ledger(*changes)
    span = store.usage_span()
    return statement(
        store.group_usage,
        organisation="Example Ltd",
        tenant="search",
        period=named_period(period, zone, NOW, span),
        zone=zone,
        span_ms=span,
        terms=terms,
        now_unix=NOW,
    )


class Page(HTMLParser):
    """What a browser would be shown, and what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_sums_by_model_and_by_day_agree() -> None:
    found = made(*CHANGES)
    assert found.total == (5, 1, 5000, 800, 270_000 * 3 + 420_000 + 150_000, 5 * 3)
    for parts in (found.models, found.day_models):
        assert tuple(map(sum, zip(*parts.values(), strict=True))) == found.total
    assert list(found.models) == [
        ("chat", 150_000_000, 600_000_000),
        ("chat", 300_000_000, 600_000_000),
        ("embed", 150_000_000, 600_000_000),
    ]
    assert {day: sums[0] for day, sums in found.days.items()} == {"2026-11-01": 1, "2026-11-29": 3, "2026-11-30": 1}
    assert found.open_sums == (1, 0, 1000, 200, 270_000, 3)
    assert found.is_over


def test_budgets_stand_as_they_did_at_the_end_of_the_period_or_as_they_do_now() -> None:
    terms = (
        BudgetTerm("month", UTC, 1_000_000),
        BudgetTerm("month", UTC, 1_000_000, "embed"),
        BudgetTerm("day", UTC, 300_000),
        BudgetTerm("once", UTC, 5_000_000),
        BudgetTerm("month", zone_of("Europe/Berlin"), 1_000_000),
        BudgetTerm("rolling 2d", UTC, 1_000_000),
    )
    standings = made(*CHANGES, terms=terms).budgets
    assert [(each.label, each.spent_usd_nanos, each.left_usd_nanos) for each in standings] == [
        ("2026-11", 1_380_000, -380_000),
        ("2026-11", 150_000, 850_000),
        ("2026-11-30", 270_000, 30_000),
        ("once", 1_650_000, 3_350_000),
        ("2026-12", 540_000, 460_000),  # when November ended in UTC, December had begun in Berlin
        ("rolling 2d", 1_110_000, -110_000),
    ]
    current = made(*CHANGES, period="month", terms=terms[:1])
    assert [(each.label, each.spent_usd_nanos) for each in current.budgets] == [("2026-12", 270_000)]
    assert not current.is_over


def test_a_budget_has_its_grace_and_the_raises_that_held_when_the_period_ended() -> None:
    def midnight(day: str) -> float:
        return unix_ms(f"{day}T00:00:00+00:00") / 1000

    def raised(by_usd_nanos: int, at: str, until: str, ended: str | None = None) -> BudgetOverride:
        return BudgetOverride(
            override_id="raise-1", budget_id="b", scope="tenant", owner="search", model="", period="month",
            by_usd_nanos=by_usd_nanos, reason="x", created_by="ann", created_at_unix=midnight(at),
            until_unix=midnight(until), ended_at_unix=None if ended is None else midnight(ended),
        )  # fmt: skip

    raises = (
        raised(500_000, "2026-11-10", "2026-12-01"),  # a credit
        raised(7, "2026-11-10", "2026-11-20"),
        raised(11, "2026-11-10", "2026-12-01", ended="2026-11-12"),
        raised(13, "2026-12-01", "2027-01-01"),
    )
    found = made(*CHANGES, terms=(BudgetTerm("month", UTC, 1_000_000, "", 50_000, raises),))
    (standing,) = found.budgets
    assert (standing.raised_usd_nanos, standing.cap_usd_nanos) == (500_000, 1_500_000)
    assert standing.left_usd_nanos == 1_550_000 - 1_380_000
    page = Page(statement_page(found))
    for text in ("$0.0015 ($0.0005 of it raised) and a grace of $0.00005", "$0.00017", "92.0 %"):
        assert text in page.texts, text


def test_a_statement_in_a_zone_follows_its_days() -> None:
    found = made(request("a", "2026-10-31T23:30:00+00:00"), zone=zone_of("Europe/Berlin"))
    assert list(found.days) == ["2026-11-01"]


def test_the_page_shows_every_figure_exactly() -> None:
    page = Page(statement_page(made(*CHANGES, terms=(BudgetTerm("month", UTC, 1_000_000),))))
    for text in (
        "search, 2026-11", "Example Ltd · statement of usage and charges", "$0.00138", "5,000", "800", "$0.15",
        "$0.30", "$0.60", "embed", "2026-11-29", "2026-11-01 00:00 to 2026-12-01 00:00, UTC", "-$0.00038", "138.0 %",
        "2026-11 (month, UTC)",
    ):  # fmt: skip
        assert text in page.texts, text
    said = " ".join(page.texts)
    assert "1 further requests never reached a model" in said
    assert "count at their bound, $0.00027 in all" in said
    assert "is not over" not in said
    assert "is not over" in statement_page(made(*CHANGES, period="month"))


def test_the_page_runs_nothing_and_fetches_nothing_whatever_things_are_called() -> None:
    name = "</td><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>&amp;"
    text = statement_page(made(request("a", "2026-11-01T10:00:00+00:00", model=name), *CHANGES))
    page = Page(text)
    assert name in page.texts
    assert {"script", "img", "link", "iframe", "object", "base", "form", "a"} & set(page.tags) == set()
    assert [attribute for attribute, _ in page.attributes if attribute.startswith("on")] == []
    assert {"src", "href", "style", "action"} & {attribute for attribute, _ in page.attributes} == set()
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "@media print" in style


def test_an_empty_statement_says_so() -> None:
    found = made(request("others", "2026-11-29T12:00:00+00:00", tenant="ads"))
    assert found.total == (0, 0, 0, 0, 0, 0)
    page = Page(statement_page(found))
    assert page.texts.count("There were no requests.") == 2
    assert "No budget is set for this tenant." in page.texts


@pytest.mark.parametrize("period", ["2026-11-29", "2026", "all"])
def test_other_periods_than_months_can_be_stated(period: str) -> None:
    found = made(*CHANGES, period=period)
    assert found.total[0] == {"2026-11-29": 3, "2026": 6, "all": 6}[period]
    assert f"search, {period}" in Page(statement_page(found)).texts
