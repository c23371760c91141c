"""`swell review`: what a model's last days would have cost as its spec says and as it could say."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json
from swell.cli.progress import replaying
from swell.errors import UserError

if TYPE_CHECKING:
    from swell.server.review_cache import CacheUse
    from swell.server.review_run import Findings, Terms
    from swell.server.review_usage import Idle
    from swell.spec import ModelSpec, Spec
    from swell.state.traffic import Traffic

DAY_SECONDS = 86_400.0
DEFAULT_DAYS = 7.0

FileOption = Annotated[Path, typer.Option("--file", "-f", help="The swell.yaml that is reviewed.")]
TraceOption = Annotated[Path | None, typer.Option(help="Requests of one model. Without: what the ledger holds.")]
FormatOption = Annotated[str | None, typer.Option("--format", help="The trace's format. Without: by its columns.")]
ModelOption = Annotated[str | None, typer.Option(help="Only this model of the file.")]
DaysOption = Annotated[float, typer.Option(help="So many of the last days.", min=0.01, max=366)]
ApplyOption = Annotated[bool, typer.Option("--apply", help="Write what is recommended; the old file stays as .bak.")]
SendOption = Annotated[bool, typer.Option("--send", help="Tell the alert sinks of it, through the running server.")]
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
class _Past:
    """What was read of the models' last days."""

    traffic: "dict[str, Traffic]"
    idle: "Idle | None" = None
    caches: "dict[str, CacheUse]" = field(default_factory=dict)


@command
def review(
    file: FileOption = Path("swell.yaml"),
    trace: TraceOption = None,
    trace_format: FormatOption = None,
    model: ModelOption = None,
    days: DaysOption = DEFAULT_DAYS,
    apply: ApplyOption = False,
    send: SendOption = False,
    jobs: JobsOption = None,
    profiles: ProfilesOption = None,
    prices: PricesOption = None,
    seed: SeedOption = 1,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Replay the last days with other machines, bounds and markets: what would cost less and attain as much."""
    from swell.server.review_run import Findings, Terms, prefix_caches, review_all, reviewable
    from swell.simulator.parallel import usable_cores

    if trace is None and trace_format is not None:
        raise UserError("--format says how to read --trace, and there is none; give a trace")
    read = _read(file)
    if send:
        _require_sinks(state)
    left, refused = reviewable(_chosen(read, model, has_trace=trace is not None))
    past = _from_trace(left, trace, trace_format, days) if trace else _from_ledger(read.spec, left, state, days)
    terms = Terms(profiles, prices, seed, jobs or usable_cores())
    with replaying(shown=not as_json and sys.stderr.isatty()) as told:
        reviews, without = review_all(
            left, past.traffic, refused, terms, few=lambda name, count: _few(name, count, days, trace), told=told
        )
    caches = prefix_caches(reviews, past.traffic, past.caches, terms)
    findings = Findings(reviews, without, past.idle, days, caches)
    sent = _sent(read, findings, trace, trace_format, terms, state) if send else None
    _say(read, findings, sent, apply=apply, as_json=as_json)


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


def _few(name: str, count: int, days: float, trace: Path | None) -> str:
    from swell.server.review_run import FEWEST_REQUESTS

    if trace is not None:
        return f"{count} requests in the last {days:g} days of {trace}, and {FEWEST_REQUESTS} are needed"
    return (
        f"{count} requests in the last {days:g} days, and {FEWEST_REQUESTS} over some time are needed; serve some with "
        f"swell up, look further back with --days, or replay a file with --trace FILE --model {name}"
    )


def _from_trace(models: "list[ModelSpec]", trace: Path, trace_format: str | None, days: float) -> _Past:
    from swell.simulator.traffic import between, load

    whole = load(trace, trace_format)
    begin = max(0.0, whole.seconds - days * DAY_SECONDS)
    return _Past({models[0].name: between(whole, begin, whole.seconds + 1.0) if begin else whole})


def _from_ledger(spec: "Spec", models: "list[ModelSpec]", state: Path, days: float) -> _Past:
    from swell.cli.access import server_or_store
    from swell.server.review_cache import CacheUse
    from swell.server.review_usage import idle, traffic_of

    since = int((time.time() - days * DAY_SECONDS) * 1000)
    with server_or_store(state) as access:
        caches = {each.name: CacheUse() for each in models}
        found = {each.name: traffic_of(access, each, since, seen=caches[each.name].add) for each in models}
        traffic = {name: traffic for name, traffic in found.items() if traffic is not None}
        return _Past(traffic, idle(access, spec.models, since), caches)


def _require_sinks(state: Path) -> None:
    """Refuse before anything is replayed: no server, or nowhere to send it to."""
    from swell.cli.access import server

    with server(state) as running:
        if not running.review_sinks():
            raise UserError("no alert sink takes reviews; add review to the kinds of one, and restart the server")


def _sent(
    read: File, findings: "Findings", trace: Path | None, trace_format: str | None, terms: "Terms", state: Path
) -> list[str]:
    """Have the server tell its sinks: which of them."""
    from swell.cli.access import server
    from swell.server.review_report import command_of
    from swell.server.review_reporting import report_of

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    again = command_of(
        [
            ("--file", absolute(read.path)), ("--state", absolute(state)), ("--trace", absolute(trace)),
            ("--format", trace_format), ("--days", None if findings.days == DEFAULT_DAYS else f"{findings.days:g}"),
            ("--profiles", absolute(terms.profiles)), ("--prices", absolute(terms.prices)),
        ]
    )  # fmt: skip
    with server(state) as running:
        report = report_of(
            findings.reviews, findings.refused, days=findings.days, command=again, caches=findings.caches
        )
        return running.send_review(report)


def _say(read: File, findings: "Findings", sent: list[str] | None, *, apply: bool, as_json: bool) -> None:
    from swell.cli.review_words import document, print_review

    applied, backup, why = _applied(read, findings) if apply else (False, None, "")
    if as_json:
        print_json(
            {
                **document(read, findings),
                "applied": applied,
                "backup": backup,
                "why_not_applied": why or None,
                "sent_to": sent,
            }
        )
    else:
        print_review(read, findings)
        if sent is not None:
            print(f"Sent to {', '.join(sent)}; what becomes of it: swell alerts --kind review")
        if applied:
            print(f"Written to {read.path}; what it was is in {backup}. It counts from the next `swell up`.")
        elif apply and not why:
            print(f"Nothing is recommended: {read.path} is as it was.")
    if why:
        raise UserError(why)


def _applied(read: File, findings: "Findings") -> tuple[bool, str | None, str]:
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
