"""`swell prices`, `swell prices import`, `swell prices own`; `swell prices posted` is in `cli/posted.py`."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli import posted
from swell.cli.output import JsonOption, command, print_json
from swell.errors import SpecError, UserError

if TYPE_CHECKING:
    from swell.state.catalogue import Price
    from swell.state.hardware import OwnedMachine
    from swell.state.price_import import Imported
    from swell.state.scaling import Market

app = typer.Typer(help="What machines cost: what ships, your own list, and hardware that you own.")

app.command("posted")(posted.posted)
_COLUMNS = 100
_MAX_TABLE_BYTES = 64 * 2**20

ListedOption = Annotated[Path | None, typer.Option(help="Your own prices, in place of those that ship.")]
ModelOption = Annotated[str | None, typer.Option(help="Only machines that there is a latency profile of it for.")]
ProfilesOption = Annotated[Path | None, typer.Option(help="Your own latency profiles, for --model.")]
MarketOption = Annotated[
    bool | None,
    typer.Option("--spot/--on-demand", help="Only what is sold so; spot: at a discount.", show_default=False),
]
WrittenOption = Annotated[Path, typer.Option("--output", "-o", help="The table (CSV, YAML or JSON) to add them to.")]
DateOption = Annotated[str | None, typer.Option(help="The day that the prices are of, such as 2026-11-30.")]


@app.callback(invoke_without_command=True)
@command
def prices(
    context: typer.Context,
    accelerator: Annotated[str | None, typer.Option(help="Only these, such as L4,8xH100.")] = None,
    cloud: Annotated[str | None, typer.Option(help="Only these, such as aws,gcp.")] = None,
    region: Annotated[str | None, typer.Option(help="Only these, such as us-east-1.")] = None,
    model: ModelOption = None,
    spot: MarketOption = None,
    cheapest: Annotated[bool, typer.Option("--cheapest", help="Of each accelerator only the cheapest.")] = False,
    prices: ListedOption = None,
    profiles: ProfilesOption = None,
    as_json: JsonOption = False,
) -> None:
    """What machines cost: what ships, your own list, and hardware that you own."""
    if context.invoked_subcommand is not None:
        given = (accelerator, cloud, region, model, spot, prices, profiles)
        if cheapest or as_json or any(value is not None for value in given):
            raise UserError(f"options go behind the command: swell prices {context.invoked_subcommand} …")
        return
    from swell.state import catalogue
    from swell.state.scaling import Market

    market = Market.SPOT if spot else None if spot is None and not cheapest else Market.ON_DEMAND
    found = catalogue.matching(
        accelerators=_names("--accelerator", accelerator),
        clouds=_names("--cloud", cloud),
        regions=_names("--region", region),
        model=model,
        market=market,
        among=None if prices is None else catalogue.load_prices(prices),
        known_profiles=None if profiles is None else catalogue.load_profiles(profiles),
    )
    listed = _ordered(found, market or Market.ON_DEMAND, cheapest=cheapest)
    if as_json:
        print_json([_document(price) for price in listed])
    else:
        _print(listed, market or Market.ON_DEMAND)


@app.command("import")
@command
def import_table(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="A catalogue in CSV, plain or compressed.")],
    output: WrittenOption,
    cloud: Annotated[str | None, typer.Option(help="The cloud, where FILE names none; else only its rows.")] = None,
    as_of: DateOption = None,
    skip_wrong: Annotated[bool, typer.Option("--skip-wrong", help="Leave out rows that cannot be true.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take prices from a table in the common catalogue shape."""
    import io

    from swell.state.catalogue import add_prices
    from swell.state.price_import import read_catalogue

    lines = io.StringIO(_text(table), newline="")
    dated = _date(as_of, table)
    found = read_catalogue(lines, table.name, as_of=dated, cloud=cloud, skip_wrong=skip_wrong)
    stayed = add_prices(_table(output), found.prices)
    if as_json:
        from dataclasses import asdict

        counts = {name: value for name, value in asdict(found).items() if name != "prices"}
        print_json({"written": str(output), "as_of": dated, "prices": len(found.prices), "stayed": stayed, **counts})
    else:
        _print_imported(found, table, output, stayed, dated, is_stated=as_of is not None)


@app.command("own")
@command
def own(
    name: Annotated[str, typer.Option(help="What you call the machine.")],
    accelerator: Annotated[str, typer.Option(help="What is in it, such as H100.")],
    count: Annotated[int, typer.Option(help="How many of them.")],
    purchase_usd: Annotated[str, typer.Option(help="What the machine cost, such as 250000.")],
    life_years: Annotated[str, typer.Option(help="Years over which that is spread.")],
    power_watts: Annotated[str, typer.Option(help="What it draws on average, cooling included.")],
    usd_per_kwh: Annotated[str, typer.Option(help="What electricity costs.")],
    output: WrittenOption,
    other_usd_per_year: Annotated[str, typer.Option(help="Space, network, service.")] = "0",
    utilisation: Annotated[str, typer.Option(help="Share of the time in which it serves.")] = "1.0",
    as_of: DateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The price of an hour of a machine that you own."""
    from swell.state import hardware
    from swell.state.catalogue import add_prices

    try:
        machine = hardware.owned_machine(
            name=name, accelerator=accelerator, count=count, purchase_usd=purchase_usd, life_years=life_years,
            power_watts=power_watts, usd_per_kwh=usd_per_kwh, other_usd_per_year=other_usd_per_year,
            utilisation=utilisation,
        )  # fmt: skip
    except SpecError as error:
        raise UserError(f"--{error.path.replace('_', '-')}{error.message.removeprefix(error.path)}") from error
    price = machine.price(_date(as_of, None))
    stayed = add_prices(_table(output), [price])
    if as_json:
        print_json({"written": str(output), "stayed": stayed, "price": _document(price)})
    else:
        _print_own(machine, price, output, stayed)


def _names(option: str, text: str | None) -> list[str] | None:
    """What stands between commas; None where nothing was said."""
    names = None if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if names == []:
        raise UserError(f"{option} names none; give names with commas")
    return names


def _date(text: str | None, table: Path | None) -> str:
    """The day that was stated, or the one on which the table was last changed, or today."""
    from datetime import UTC, datetime

    from swell.state.price_cells import checked_date, refusal

    if text is not None:
        try:
            return checked_date(text)
        except ValueError as error:
            raise UserError(f"--as-of: {refusal(text, error)}") from None
    try:
        at = datetime.now(UTC) if table is None else datetime.fromtimestamp(table.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{table}: its date cannot be read ({error}); state one with --as-of") from error
    return at.date().isoformat()


def _text(path: Path) -> str:
    """A table's text, decompressed where it is packed."""
    from swell.simulator.traffic.stored import pieces

    read = bytearray()
    for piece in pieces(path):
        read += piece
        if len(read) > _MAX_TABLE_BYTES:
            raise UserError(f"{path} has more than {_MAX_TABLE_BYTES:,} bytes of text; no table of prices is so large")
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        line = read.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; is it a table in CSV?") from error


def _ordered(found: "Iterable[Price]", market: "Market", *, cheapest: bool) -> "list[Price]":
    """By accelerator, what one of them costs and how few have to be taken; with `cheapest` the first of each."""

    def key(price: "Price") -> tuple[Any, ...]:
        each = price.usd_nanos_per_hour(market, 1)
        size = price.accelerator_count
        return price.accelerator.casefold(), each is None, each or 0, size, price.cloud, price.region, price.zone

    listed = sorted(found, key=key)
    if cheapest:
        listed = list({price.accelerator.casefold(): price for price in reversed(listed)}.values())[::-1]
    return listed


def _document(price: "Price") -> dict[str, Any]:
    """A price for machines; money in whole nano-dollars."""
    from dataclasses import asdict

    from swell.state.scaling import Market

    each = {f"{market}_usd_nanos_per_accelerator_hour": price.usd_nanos_per_hour(market, 1) for market in Market}
    return {**asdict(price), **each, "discount_percent": _discount(price)}


def _discount(price: "Price") -> int | None:
    """By how many percent spot is cheaper, rounded down; 0 where it is not. None where one of the two is missing."""
    spot, on_demand = price.spot_usd_nanos_per_hour, price.on_demand_usd_nanos_per_hour
    return None if spot is None or not on_demand else max(100 * (on_demand - spot) // on_demand, 0)


def _money(nanos: int | None) -> str:
    """To the hundredth of a cent, rounded half up; the exact amount is in the JSON and in the table itself."""
    if nanos is None:
        return ""
    whole, part = divmod((nanos + 50_000) // 100_000, 10_000)
    return f"{whole:,}.{part:04d}"


def _print(listed: "Sequence[Price]", market: "Market") -> None:
    notes: dict[tuple[str, str], int] = {}
    rows = []
    for price in listed:
        note = notes.setdefault((price.as_of, price.source), len(notes) + 1)
        discount = _discount(price)
        where = price.zone if price.zone.startswith(price.region) else f"{price.region} {price.zone}"
        rows.append((
            f"{price.accelerator_count}x{price.accelerator}", price.cloud, price.instance, where.strip() or "anywhere",
            _money(price.on_demand_usd_nanos_per_hour), _money(price.spot_usd_nanos_per_hour),
            "" if discount is None else f"{discount} %", _money(price.usd_nanos_per_hour(market, 1)), f"[{note}]",
        ))  # fmt: skip
    if not rows:
        print("No price matches.")
        return
    _print_table(rows)
    sold = str(market).replace("_", " ")
    _say(f"USD an hour; each: one accelerator, {sold}. Clouds change their prices, those of spot daily: look before "
         "you buy. Bring newer ones with `swell prices import`.")  # fmt: skip
    for (day, source), number in notes.items():
        _say(f"[{number}] as of {day}: {source}")


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    """Amounts on the right, so that they can be compared; never wider than `_COLUMNS`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("accelerators", "cloud", "instance", "region, zone"):
        table.add_column(column, overflow="fold")
    for column in ("on demand", "spot", "less", "each", "from"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=min(Console().width, _COLUMNS) if sys.stdout.isatty() else _COLUMNS).print(table)


def _say(text: str) -> None:
    print(textwrap.fill(text, _COLUMNS, subsequent_indent="    " if text.startswith("[") else ""))


def _table(output: Path) -> Path:
    """The file that prices are added to: what is on standard output can be added to nothing."""
    if output == Path("-"):
        raise UserError("-o -: prices are added to a table that stays; name a file, such as own.csv")
    return output


def _print_imported(found: "Imported", table: Path, output: Path, stayed: int, day: str, *, is_stated: bool) -> None:
    from swell.state.price_import import listed_wrong

    print(f"{table}: {len(found.prices)} prices from {found.rows} rows")
    _say(
        f"  as of {day}" + ("" if is_stated else ", the day on which the file was last changed; --as-of states another")
    )
    for reason, count in sorted(found.left_out.items(), key=lambda each: -each[1]):
        print(f"  left out: {count} {'row' if count == 1 else 'rows'}, {reason}")
    if found.wrong:
        print(f"  left out: {len(found.wrong)} that cannot be true\n  {listed_wrong(found.wrong)}")
    if found.without_discount:
        print(f"  on demand only: {found.without_discount}, whose spot price is no lower")
    if found.rounded_up:
        print(f"  rounded up to a nano-dollar: {found.rounded_up} amounts")
    for what, count in found.renamed.items():
        print(f"  called otherwise: {count}, {what} here")
    print(f"Written to {output}{_beside(stayed)}.\nPlan with them: swell plan --prices {output} …")


def _print_own(machine: "OwnedMachine", price: "Price", output: Path, stayed: int) -> None:
    from swell.state.scaling import Market

    shares = {
        "purchase": round(machine.purchase_share),
        "electricity": round(machine.power_share),
        "space, network, service": round(machine.other_share),
        f"in use {(machine.utilisation * 100).normalize():f} %, so": price.on_demand_usd_nanos_per_hour,
        f"each {price.accelerator}": price.usd_nanos_per_hour(Market.ON_DEMAND, 1),
    }
    print(f"{price.instance} ({price.accelerator_count}x{price.accelerator}), USD an hour")
    for what, nanos in shares.items():
        print(f"  {what:<26}{_money(nanos):>12}")
    print(f"Written to {output}{_beside(stayed)}.\nPlan with it: swell plan --prices {output} --clouds {price.cloud} …")


def _beside(stayed: int) -> str:
    return f", beside {stayed} that {'was' if stayed == 1 else 'were'} there" if stayed else ""
