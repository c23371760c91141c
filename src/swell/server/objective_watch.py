"""Which models miss their objectives, from what workers report: judged requests by the minute, and burn rates of them.

Only models whose file says `objectives` are watched: what is a default, nobody promised. What was counted is kept in a
file over a restart, so that a server that restarts often still sees six hours. What happens while no server runs is not
counted, nor what the file lacks (up to KEEP_SECONDS): both can make an alert late, and none false.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from swell.clock import Clock
from swell.metering.burn_rates import CALM_SECONDS, Burn, MissLog, burning, is_calm
from swell.server.alert_episodes import Finding
from swell.server.kept_counts import KeptCounts, read_counts, write_counts
from swell.spec import ModelSpec
from swell.state.messages import Load, ModelLoad

KEEP_SECONDS = 60.0  # between two writings of what was counted
VERSION = 1
COUNTED = "objectives"


class _Kept(KeptCounts, frozen=True, kw_only=True):
    """The file: by model, the age of each minute in seconds when it was written, and its counts."""

    counts: dict[str, list[tuple[float, int, int]]]


class ObjectiveWatch:
    """Counts by model. `names` maps served names (adapters too) to the model's."""

    def __init__(self, models: Sequence[ModelSpec], names: Mapping[str, str], file: Path, clock: Clock) -> None:
        self._attainments = {
            model.name: model.objectives.attainment for model in models if "objectives" in model.model_fields_set
        }
        self._names = {name: model for name, model in names.items() if model in self._attainments}
        self._logs = {model: MissLog() for model in self._attainments}
        self._last: dict[str, dict[str, tuple[int, int]]] = {}  # judged and attained, by worker and served name
        self._file = file
        self._clock = clock
        self._begun = clock.monotonic()
        self._keep_at = self._begun + KEEP_SECONDS

    def report(self, incarnation: str, load: Load) -> None:
        """Take a worker's sums, which only grow. Its first report is where counting begins."""
        if not self._names:
            return
        now = self._clock.monotonic()
        sums = {each.name: _promised(each) for each in load.models if each.name in self._names}
        last = self._last.get(incarnation)
        self._last[incarnation] = sums
        if last is None:
            return
        for name, (judged, attained) in sums.items():
            judged_before, attained_before = last.get(name, (0, 0))
            new = judged - judged_before
            self._logs[self._names[name]].add(now, new, max(0, new - max(0, attained - attained_before)))

    def forget(self, living: Collection[str]) -> None:
        """Workers that are not among the living are gone."""
        for incarnation in self._last.keys() - set(living):
            del self._last[incarnation]

    def findings(self) -> list[Finding]:
        """What there is to say of each model."""
        now, found = self._clock.monotonic(), list[Finding]()
        for model, attainment in self._attainments.items():
            log = self._logs[model]
            burn = burning(attainment, log, now)
            if burn is not None:
                found.append(_missed(model, attainment, burn))
            elif now - self._begun >= CALM_SECONDS and is_calm(attainment, log, now):
                found.append(_met(model, attainment))
        return found

    def restore(self) -> None:
        """Take up what an earlier server counted; a file that cannot be read is as good as none."""
        found = read_counts(self._file, _Kept, VERSION, self._clock.unix(), COUNTED)
        if found is None:
            return
        kept, away = found
        now = self._clock.monotonic()
        for model in kept.counts.keys() & self._logs.keys():
            aged = [(age + away, judged, missed) for age, judged, missed in kept.counts[model]]
            self._logs[model].restore(aged, now)

    async def save(self) -> None:
        """Write what was counted, every KEEP_SECONDS. A disk that does not take it is logged: alerts go on without."""
        now = self._clock.monotonic()
        if not self._attainments or now < self._keep_at:
            return
        self._keep_at = now + KEEP_SECONDS
        counts = {model: log.kept(now) for model, log in self._logs.items()}
        await write_counts(self._file, _Kept(version=VERSION, at_unix=self._clock.unix(), counts=counts), COUNTED)


def _promised(load: ModelLoad) -> tuple[int, int]:
    """Judged and attained, without requests of priority batch: they are promised no time."""
    batch = load.batch
    return load.judged - (batch.judged if batch else 0), load.attained - (batch.attained if batch else 0)


def _missed(model: str, attainment: float, burn: Burn) -> Finding:
    rule, long, short = burn.rule, burn.long, burn.short
    rate, last = long.miss_share / (1 - attainment), _span(rule.short_seconds)
    return Finding(
        "objective",
        model,
        rule.severity,
        f"misses its objective: {_percent(long.miss_share)} of requests in {_span(rule.long_seconds)}",
        f"{long.missed:,} of {long.judged:,} requests in {_span(rule.long_seconds)} missed it, "
        f"{rate:.1f} times what an attainment of {_percent(attainment)} allows; in {last} "
        f"{short.missed:,} of {short.judged:,}.\nWhat the fleet does about it, and why: "
        "swell status --why. If it is as large as it may be, raise replicas.max in swell.yaml.",
        {
            "attainment_asked": _share(attainment),
            "burn_rate": f"{rate:.2f}",
            "long_seconds": rule.long_seconds,
            "long_judged": long.judged,
            "long_missed": long.missed,
            "short_seconds": rule.short_seconds,
            "short_judged": short.judged,
            "short_missed": short.missed,
        },
    )


def _met(model: str, attainment: float) -> Finding:
    return Finding(
        "objective",
        model,
        "resolved",
        "meets its objective again",
        f"In {_span(CALM_SECONDS)} no more requests missed it than an attainment of {_percent(attainment)} "
        "allows. Nothing is to be done.",
        {"attainment_asked": _share(attainment)},
    )


def _share(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _percent(value: float) -> str:
    return f"{value * 100:.2f}".rstrip("0").rstrip(".") + "%"


def _span(seconds: int) -> str:
    minutes = seconds // 60
    if minutes % 60:
        return f"{minutes} minutes"
    return "an hour" if minutes == 60 else f"{minutes // 60} hours"
