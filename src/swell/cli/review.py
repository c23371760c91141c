"""`swell review`: what a model's last days would have cost as its spec says and as it could say."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json
from swell.cli.progress import replaying
from swell.errors import UserError

if TYPE_CHECKING:
    from swell.server.review_replays import Case
    from swell.server.review_usage import Idle
    from swell.server.reviewing import Review
    from swell.spec import ModelSpec, Spec
    from swell.state.traffic import Traffic

DAY_SECONDS = 86_400.0
FEWEST_REQUESTS = 20

FileOption = Annotated[Path, typer.Option("--file", "-f", help="The swell.yaml that is reviewed.")]
TraceOption = Annotated[Path | None, typer.Option(help="Requests of one model. Without: what the ledger holds.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="The trace's format. Without: by its columns.")]
ModelOption = Annotated[str | None, typer.Option(help="Only this model of the file.")]
DaysOption = Annotated[float, typer.Option(help="So many of the last days.", min=0.01, max=366)]
ApplyOption = Annotated[bool, typer.Option("--apply", help="Write what is recommended; the old file stays as .bak.")]
JobsOption = Annotated[int | None, typer.Option(help="Replays at a time. Default: one per core.", min=1, max=256)]
ProfilesOption = Annotated[Path | None, typer.Option(help="Your own latency profiles, besides those that ship.")]
PricesOption = Annotated[Path | None, typer.Option(help="Your own prices, in place of those that ship.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same figures.", min=0)]


@dataclass(frozen=True)
class File:
    """The spec as it was read."""

    path: Path
    content: bytes
    text: str
    spec: "Spec"


@dataclass(frozen=True)
class Findings:
    """Everything there is to say. `refused` are models that were not reviewed, with a reason."""

    reviews: "tuple[Review, ...]"
    refused: tuple[tuple[str, str], ...]
    idle: "Idle | None"  # None: there was no ledger to ask
    days: float


@command
def review(
    file: FileOption = Path("swell.yaml"),
    trace: TraceOption = None,
    trace_format: FormatOption = None,
    model: ModelOption = None,
    days: DaysOption = 7.0,
    apply: ApplyOption = False,
    jobs: JobsOption = None,
    profiles: ProfilesOption = None,
    prices: PricesOption = None,
    seed: SeedOption = 1,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Replay the last days with other machines, bounds and markets: what would cost less and attain as much."""
    from swell.server.review_replays import Case
    from swell.simulator.parallel import usable_cores

    if trace is None and trace_format is not None:
        raise UserError("--format says how to read --trace, and there is none; give a trace")
    read = _read(file)
    chosen = _chosen(read, model, has_trace=trace is not None)
    refused = [(each.name, why) for each in chosen if (why := _why_not(each))]
    left = [each for each in chosen if not _why_not(each)]
    if not left:
        raise UserError(_refusal(refused))
    traffic, idle = (
        _from_trace(left, trace, trace_format, days) if trace else _from_ledger(read.spec, left, state, days)
    )
    for each in left:
        if (found := traffic.get(each.name)) is None or len(found) < FEWEST_REQUESTS or found.seconds <= 0:
            count = 0 if found is None else len(found)
            refused.append((each.name, _few(each.name, count, days, trace)))
    named = dict(refused)
    cases = [Case(each, traffic[each.name], profiles, prices, seed) for each in left if each.name not in named]
    if not cases:
        raise UserError(_refusal(refused))
    with replaying(shown=not as_json and sys.stderr.isatty()) as told:
        reviews = _reviews(cases, jobs or usable_cores(), refused, told)
    findings = Findings(tuple(reviews), tuple(refused), idle, days)
    _say(read, findings, apply=apply, as_json=as_json)


def _read(path: Path) -> File:
    from swell.spec import load_spec, parse_spec

    load_spec(path)  # which refuses in its own words
    content = path.read_bytes()
    text = content.decode()
    return File(path, content, text, parse_spec(text, origin=str(path), base=path.absolute().parent))


def _chosen(read: File, name: str | None, *, has_trace: bool) -> "list[ModelSpec]":
    from swell.spec import Engine

    models = list(read.spec.models)
    known = ", ".join(each.name for each in models)
    if name is not None:
        models = [each for each in models if each.name == name]
        if not models:
            raise UserError(f"{read.path} declares no model {name!r}; there are: {known}")
    own = [each for each in models if each.engine is not Engine.EXTERNAL]
    if has_trace and len(own) > 1:
        raise UserError(f"a trace is of one model, and {read.path} declares {known}; choose one with --model NAME")
    return own if has_trace and own else models


def _why_not(model: "ModelSpec") -> str:
    from swell.spec import Engine

    if model.engine is Engine.EXTERNAL:
        return "somebody else runs it: there are no machines of Swell's to be changed"
    if not model.accelerators:
        return (
            "it names no accelerators, so nobody knows what its replicas cost; say what they run on, such as "
            "accelerators: [A100-80GB]"
        )
    return "" if model.replicas.max else "its replicas.max is 0, so it serves nothing"


def _refusal(refused: list[tuple[str, str]]) -> str:
    return "nothing to review: " + "; ".join(f"{name}: {why}" for name, why in refused)


def _few(name: str, count: int, days: float, trace: Path | None) -> str:
    if trace is not None:
        return f"{count} requests in the last {days:g} days of {trace}, and {FEWEST_REQUESTS} are needed"
    return (
        f"{count} requests in the last {days:g} days, and {FEWEST_REQUESTS} over some time are needed; serve some with "
        f"swell up, look further back with --days, or replay a file with --trace FILE --model {name}"
    )


def _from_trace(
    models: "list[ModelSpec]", trace: Path, trace_format: str | None, days: float
) -> "tuple[dict[str, Traffic], None]":
    from swell.simulator.traffic import between, load

    whole = load(trace, trace_format)
    begin = max(0.0, whole.seconds - days * DAY_SECONDS)
    return {models[0].name: between(whole, begin, whole.seconds + 1.0) if begin else whole}, None


def _from_ledger(
    spec: "Spec", models: "list[ModelSpec]", state: Path, days: float
) -> "tuple[dict[str, Traffic], Idle]":
    from swell.cli.access import server_or_store
    from swell.server.review_usage import idle, traffic_of

    since = int((time.time() - days * DAY_SECONDS) * 1000)
    with server_or_store(state) as access:
        found = {each.name: traffic_of(access, each, since) for each in models}
        return {name: traffic for name, traffic in found.items() if traffic is not None}, idle(
            access, spec.models, since
        )


def _reviews(
    cases: "list[Case]", jobs: int, refused: list[tuple[str, str]], told: Callable[[float], None]
) -> "list[Review]":
    """Of every case that can be had; what cannot, for want of a profile or a price, is refused."""
    from swell.server.reviewing import review as reviewed

    found: list[Review] = []
    for index, case in enumerate(cases):

        def within(share: float, before: int = index) -> None:
            told((before + share) / len(cases))

        try:
            found.append(reviewed(case, jobs, within))
        except UserError as error:
            refused.append((case.model.name, error.message))
    if not found:
        raise UserError(_refusal(refused))
    return found


def _say(read: File, findings: Findings, *, apply: bool, as_json: bool) -> None:
    from swell.cli.review_words import document, print_review

    applied, backup, why = _applied(read, findings) if apply else (False, None, "")
    if as_json:
        print_json({**document(read, findings), "applied": applied, "backup": backup, "why_not_applied": why or None})
    else:
        print_review(read, findings)
        if applied:
            print(f"Written to {read.path}; what it was is in {backup}. It counts from the next `swell up`.")
        elif apply and not why:
            print(f"Nothing is recommended: {read.path} is as it was.")
    if why:
        raise UserError(why)


def _applied(read: File, findings: Findings) -> tuple[bool, str | None, str]:
    """Whether the recommended changes of all models were written, where the old file is, and why not."""
    from swell.server.review_apply import put_in_place
    from swell.server.review_edits import UnsafeEditError, edited

    text = read.text
    for each in findings.reviews:
        if each.recommended is None:
            continue
        try:
            text = edited(
                text, each.model.name, each.recommended.changes,
                origin=str(read.path), base=read.path.absolute().parent,
            )  # fmt: skip
        except UnsafeEditError as error:
            why = f"{read.path} is left as it is, for {each.model.name} cannot be edited safely: {error}"
            return False, None, f"{why}; put in what is shown by hand"
    if text == read.text:
        return False, None, ""
    return True, str(put_in_place(read.path, read.content, text.encode())), ""
