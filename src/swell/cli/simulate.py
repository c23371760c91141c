"""`swell simulate`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swell.cli.output import JsonOption, command, print_json, print_table
from swell.cli.progress import replaying
from swell.errors import UserError

if TYPE_CHECKING:
    from swell.simulator.compare import Comparison
    from swell.simulator.result import Scenario

_MAX_REPLICAS = 10_000


TraceOption = Annotated[Path | None, typer.Option(help="Requests, plain or compressed. Without: a generated week.")]
HistoryOption = Annotated[
    Path | None, typer.Option(help="What happened before the trace, for forecasts to learn from.")
]
FormatOption = Annotated[str | None, typer.Option("--format", help="The trace's format. Without: by its columns.")]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="A swell.yaml, for objectives, bounds and routing.")
]
PolicyOption = Annotated[str | None, typer.Option(help="The policy that is replayed. Default: swell.")]
CompareOption = Annotated[
    str | None, typer.Option(help="all, or names with commas: every policy at the same attainment.", metavar="NAMES")
]
AttainmentOption = Annotated[
    float | None,
    typer.Option(help="Share of requests that shall meet it. Default: 0.99.", min=0.5, max=0.9999),
]
WaitOption = Annotated[
    float | None,
    typer.Option(help="What a request may wait beyond its own prompt's processing. Default: 5.", min=1e-3, max=86_400),
]
ItlOption = Annotated[
    float | None, typer.Option(help="Longest mean time between two tokens. Default: 100.", min=0.1, max=600_000)
]
ModelOption = Annotated[str | None, typer.Option(help="The model, by its profile's name. Default: llama-3.1-8b.")]
AcceleratorOption = Annotated[str | None, typer.Option(help="What it runs on. Default: A100-80GB.")]
AcceleratorsOption = Annotated[
    str | None, typer.Option(help="Several that may be mixed, such as A100-80GB,4xH100. Peers scale the first.")
]
SpotOption = Annotated[
    bool | None,
    typer.Option("--spot/--no-spot", help="Whether spot machines may be bought. Default: as the file says."),
]
SpotEventsOption = Annotated[
    Path | None,
    typer.Option(help="A recording that spot follows: CSV with time_ms, event (add or remove), node. Implies --spot."),
]
FractionOption = Annotated[
    float | None, typer.Option(help="The most of the capacity that spot may be; implies --spot.", min=0, max=1)
]
BaseOption = Annotated[int | None, typer.Option(help="On-demand replicas at least. Default: 0.", min=0)]
CeilingOption = Annotated[float | None, typer.Option(help="Swell's policy spends no more.", min=0)]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        help="What replicas may cost, such as '300 / week', counted from the trace's start.", metavar="USD/PERIOD"
    ),
]
BatchOption = Annotated[
    float | None,
    typer.Option(help="Share of the requests that are of priority batch. Default: as the trace says.", min=0, max=1),
]
CountOption = Annotated[
    int | None,
    typer.Option(help="Accelerators of a replica. Default: the fewest with a profile.", min=1, max=64),
]
StartOption = Annotated[
    float | None, typer.Option(help="From order to ready; billed. Default: 120.", min=0, max=86_400)
]
PeakOption = Annotated[
    float | None,
    typer.Option(help="Superpose or thin the trace until its busiest ten minutes fill so many.", min=0.01, max=5000),
]
FewestOption = Annotated[int | None, typer.Option(help="Default: 0.", min=0, max=_MAX_REPLICAS)]
MostOption = Annotated[int | None, typer.Option(help="Default: no limit.", min=0, max=_MAX_REPLICAS)]
KnobOption = Annotated[
    float | None, typer.Option(help="The setting of the policy's one knob. Default: its own.", min=1e-6, max=1e6)
]
ProfilesOption = Annotated[Path | None, typer.Option(help="Your own latency profiles, besides those that ship.")]
PricesOption = Annotated[Path | None, typer.Option(help="Your own prices, in place of those that ship.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same figures.", min=0)]
JobsOption = Annotated[int | None, typer.Option(help="Replays at a time. Default: one per core.", min=1, max=256)]
ReportOption = Annotated[Path | None, typer.Option(help="Write the result as one HTML file.")]


@command
def simulate(
    trace: TraceOption = None,
    history: HistoryOption = None,
    trace_format: FormatOption = None,
    file: FileOption = None,
    policy: PolicyOption = None,
    compare: CompareOption = None,
    attainment: AttainmentOption = None,
    wait_seconds: WaitOption = None,
    itl_ms: ItlOption = None,
    model: ModelOption = None,
    accelerator: AcceleratorOption = None,
    accelerator_count: CountOption = None,
    accelerators: AcceleratorsOption = None,
    spot: SpotOption = None,
    spot_events: SpotEventsOption = None,
    max_spot_fraction: FractionOption = None,
    on_demand_base: BaseOption = None,
    usd_per_hour: CeilingOption = None,
    budget: BudgetOption = None,
    batch_share: BatchOption = None,
    start_seconds: StartOption = None,
    peak_replicas: PeakOption = None,
    min_replicas: FewestOption = None,
    max_replicas: MostOption = None,
    knob: KnobOption = None,
    profiles: ProfilesOption = None,
    prices: PricesOption = None,
    seed: SeedOption = 1,
    jobs: JobsOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay traffic through a scaling policy: what it costs, what it attains, how far the best possible is."""
    from swell.simulator.machines import Bought
    from swell.simulator.setting import Wishes, build

    _check(policy, compare, knob, report)
    names = None if accelerators is None else tuple(name.strip() for name in accelerators.split(",") if name.strip())
    bought = Bought(names, spot, spot_events, max_spot_fraction, on_demand_base, usd_per_hour)
    scenario = build(
        Wishes(
            trace, trace_format, history, file, model, accelerator, accelerator_count, start_seconds, wait_seconds,
            itl_ms, attainment, peak_replicas, min_replicas, max_replicas, profiles, prices, seed, bought,
            budget, batch_share,
        )
    )  # fmt: skip
    from swell.simulator.feasibility import why_excluded
    from swell.simulator.silence import solver_is_silent

    excluded = why_excluded(scenario)
    if excluded and compare is not None:
        raise UserError(excluded)
    with replaying(shown=not as_json and sys.stderr.isatty()) as told, solver_is_silent():
        result = _run(scenario, policy or "swell", compare, knob, jobs, told)
    if report is not None:
        _write(report, result)
    _say(result, excluded, report, is_one=compare is None, as_json=as_json)


def _check(policy: str | None, compare: str | None, knob: float | None, report: Path | None) -> None:
    """What can be refused before anything long begins."""
    from swell.simulator.contenders import chosen, contender

    if compare is not None and policy is not None:
        raise UserError("--policy replays one policy and --compare several; give one of them")
    if compare is not None and knob is not None:
        raise UserError("--compare searches every policy's knob; leave --knob out, or name one policy with --policy")
    if compare is not None:
        chosen(compare)
    if policy is not None:
        contender(policy)
    if report is not None and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise UserError(f"--report {report}: give a file in a folder that exists")


def _run(
    scenario: "Scenario",
    policy: str,
    compare: str | None,
    knob: float | None,
    jobs: int | None,
    told: Callable[[float], None],
) -> "Comparison":
    from swell.simulator import compare as comparing
    from swell.simulator.contenders import chosen, contender, references
    from swell.simulator.parallel import usable_cores

    attainment, at_a_time = scenario.objective.attainment, jobs or usable_cores()
    if compare is None:
        return comparing.assess(
            scenario, contender(policy), knob,
            attainment=attainment, references=references(), jobs=at_a_time, progress=told,
        )  # fmt: skip
    return comparing.compare(
        scenario, chosen(compare), attainment=attainment, references=references(), jobs=at_a_time, progress=told
    )


def _say(result: "Comparison", excluded: str, report: Path | None, *, is_one: bool, as_json: bool) -> None:
    from swell.simulator.summary import as_json as numbers
    from swell.simulator.summary import columns, ranking, rows, sentences, subject

    if as_json:
        documents = {score.name: {**numbers(result, score), "excluded": excluded or None} for score in result.scores}
        print_json(documents[result.scores[0].name] if is_one else documents)
        return
    print_table(columns(result), rows(result), empty="No policy was replayed.")
    score = subject(result)
    for sentence in (*sentences(result, score), ranking(result, score)):
        if sentence:
            print(sentence)
    if excluded:
        print(f"Take that with care: {excluded}.")
    if report is not None:
        print(f"The report is in {report}")


def _write(report: Path, result: "Comparison") -> None:
    from swell.simulator.report import page

    try:
        report.write_text(page(result), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--report {report}: cannot be written ({error.strerror}); give another file") from error
