"""`swell profile`: measure how fast a live replica is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.output import JsonOption, command, print_json, print_table

if TYPE_CHECKING:
    from swell.server.profiling import Measurement, OnPoint, Point


@command
def profile(
    url: Annotated[str, typer.Option(help="An OpenAI-compatible endpoint, such as http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="The model's name there.")],
    key: Annotated[str, typer.Option(help="The endpoint's key.", envvar="OPENAI_API_KEY", show_envvar=True)] = "",
    accelerator: Annotated[str, typer.Option(help="What the replica runs on, such as H100 or CPU.")] = "local",
    count: Annotated[int, typer.Option(help="How many accelerators the replica has.", min=1)] = 1,
    kv_tokens: Annotated[int, typer.Option(help="Its KV cache, where the engine does not tell.", min=0)] = 0,
    max_prompt_tokens: Annotated[int, typer.Option(help="The longest prompt to measure.", min=64)] = 4096,
    concurrency: Annotated[int, typer.Option(help="The largest batch to measure.", min=2, max=512)] = 32,
    seconds: Annotated[float, typer.Option(help="At most so long.", min=1)] = 120.0,
    write: Annotated[Path | None, typer.Option(help="Add the profile to this table (CSV or YAML).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a latency profile against a live replica, by a short sweep."""
    import asyncio

    from swell.clock import SystemClock
    from swell.server.profile_client import Replica
    from swell.server.profiling import Sweep, measure
    from swell.state.catalogue import add_profile
    from swell.state.scaling import LatencyProfile

    blank = LatencyProfile(model, accelerator, count, 0, 0, 0, 0, 0, 0, kv_tokens, source=_source())
    sweep = Sweep(max_prompt_tokens, concurrency, seconds=seconds)

    async def run(on_point: "OnPoint") -> "Measurement":
        replica = Replica(url, model, key, SystemClock(), connections=concurrency)
        try:
            return await measure(replica, blank, sweep, SystemClock(), on_point)
        finally:
            await replica.close()

    with _progress(shown=not as_json) as on_point:
        found = asyncio.run(run(on_point))
    if write is not None:
        add_profile(write, found.profile)
    if as_json:
        print_json(_document(found))
    else:
        _print(found, write)


def _source() -> str:
    from datetime import UTC, datetime

    return f"measured with swell profile on {datetime.now(UTC).date().isoformat()}"


def _document(found: "Measurement") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": found.profile.name,
        "profile": asdict(found.profile),
        "prefill": {"fit": asdict(found.prefill), "samples": [asdict(sample) for sample in found.prefill_samples]},
        "step": {"fit": asdict(found.step), "samples": [asdict(sample) for sample in found.step_samples]},
        "seconds": found.seconds,
        "notes": list(found.notes),
    }


def _print(found: "Measurement", written: Path | None) -> None:
    profile = found.profile
    print_table(
        ("prompt tokens", "first token, ms", "as fitted"),
        [
            (
                round(sample.prompt_tokens),
                f"{sample.milliseconds:.1f}",
                f"{profile.prefill_ms(sample.prompt_tokens):.1f}",
            )
            for sample in found.prefill_samples
        ],
        empty="",
    )
    print_table(
        ("sequences", "context tokens", "step, ms", "as fitted"),
        [
            (sample.sequences, round(sample.context_tokens), f"{sample.milliseconds:.2f}",
             f"{profile.step_ms(sample.sequences, sample.context_tokens):.2f}")
            for sample in found.step_samples
        ],
        empty="",
    )  # fmt: skip
    a, b, c = found.prefill.coefficients
    s, q, t = found.step.coefficients
    print(f"{profile.name}, measured in {found.seconds:.0f} s")
    print(f"  first token  {a:.4g} + {b:.4g} n + {c:.4g} n2 ms of n prompt tokens; {_errors(found.prefill)}")
    print(f"  decode step  {s:.4g} + {q:.4g} B + {t:.4g} S ms of B sequences with S tokens; {_errors(found.step)}")
    print(f"  KV cache     {profile.kv_tokens} tokens; at most {profile.max_sequences} sequences at a time")
    for note in found.notes:
        print(f"  note         {note}")
    if written is not None:
        print(f"Written to {written}")


def _errors(fit: Any) -> str:
    return f"off by {fit.median_error:.1%} (median), {fit.worst_error:.1%} at worst"


@contextmanager
def _progress(*, shown: bool) -> "Iterator[OnPoint]":
    """A bar on standard error, where a person waits."""
    if not shown:
        yield lambda point, done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Asking the replica", total=None)

        def on_point(point: "Point", done: int, total: int) -> None:
            what = f"{point.streams} at once" if point.streams else "one at a time"
            bar.update(task, description=f"{what}, {point.prompt_tokens} tokens", completed=done, total=total)

        yield on_point
