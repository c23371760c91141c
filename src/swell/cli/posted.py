"""`swell prices posted`: the rates that followed from what replicas cost, and why."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_json, print_table

if TYPE_CHECKING:
    from swell.state.posted_rates import PostedRate


@command
def posted(
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 100,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Rates that were posted for a period, and what each follows from."""
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        rates = access.rates(model, limit)
    if as_json:
        print_json([_document(rate) for rate in rates])
        return
    print_table(
        ("model", "period", "from", "prompt", "completion", "cost", "tokens", "used", "charged", "missed"),
        map(_row, rates),
        empty="No rate was posted; `prices: {MODEL: posted}` in swell.yaml makes rates follow from what replicas cost.",
    )
    for rate in rates:
        print(f"{rate.model}, {rate.label}: {rate.reason}")
    if rates:
        print("Prompt and completion are USD per million tokens; missed is what charges have not recovered by then.")


def _row(rate: "PostedRate") -> tuple[object, ...]:
    from swell.units import usd_text

    share = _used_share(rate)
    return (
        rate.model, rate.label, moment(rate.start_unix_ms / 1000), usd_text(rate.prompt_rate),
        usd_text(rate.completion_rate), usd_text(rate.cost_usd_nanos),
        f"{rate.prompt_tokens:,} + {rate.completion_tokens:,}", "" if share is None else f"{share}%",
        usd_text(rate.charge_usd_nanos), usd_text(rate.missed_usd_nanos),
    )  # fmt: skip


def _document(rate: "PostedRate") -> dict[str, Any]:
    """A rate for machines: whole nano-dollars, and what people calculate from them."""
    from msgspec.structs import asdict

    from swell.units import usd

    return {
        **asdict(rate),
        "cost_usd_nanos": rate.cost_usd_nanos,
        "used_percent": _used_share(rate),
        "usd_per_million_prompt_tokens": f"{usd(rate.prompt_rate):f}",
        "usd_per_million_completion_tokens": f"{usd(rate.completion_rate):f}",
    }


def _used_share(rate: "PostedRate") -> int | None:
    """Percent of what ready replicas cost that requests used; None where none was ready."""
    ready = rate.used_usd_nanos + rate.idle_usd_nanos
    return rate.used_usd_nanos * 100 // ready if ready else None
