"""From the workers' reports to one window per interval and model.

Reports hold sums that only grow, so what happened is a difference: a report that is lost is made up for by the next,
and one that comes twice adds nothing. A worker's first report is where counting begins, since a worker that outlived
its server tells of times that were seen before.

A window covers what reports cover and nothing else: a turn may come five times between two reports of a worker, and
what happened in a second is not what happened in the 0.2 s since the last turn. So each worker's part of a window
reaches from one of its reports to a later one, and while a worker has told nothing new there is no window.

One that has been silent for SILENT_SECONDS may be serving for a long time yet, as a gateway whose line is cut. From
then on windows are of the others, and say that they are partial; when it speaks again, counting begins anew for it.
Some never are for so long, and yet one or another of them always is. After STUTTER_SECONDS without a window none of
them is waited for, until all speak at once. What one of them tells then is of another time than the window: of 25 s,
where that has 5. So of what arrived and was under way it counts by its pace, which goes on until it speaks again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from swell.state.messages import Load, ModelLoad
from swell.state.scaling import LengthSums, Window

FRESH_SECONDS = 3.0  # workers report once a second; whoever is silent for longer may hold requests unseen
SILENT_SECONDS = 30.0  # after which the others are not kept waiting any more
STUTTER_SECONDS = (
    40.0  # without a window, as where several are silent in turns; then whoever is silent is not waited for
)
LEAST_SECONDS = 0.5  # that a worker's part covers: in less, when reports are read says more than what they tell

_BATCH = "batch_"  # begins the names of sums over requests of priority batch alone
_OF_ALL = (
    "arrivals", "arrived_prompt_tokens", "completed", "n_sum", "n2_sum", "o_sum", "o2_sum", "no_sum", "decoded_tokens",
    "judged", "attained", "ttft_ms_sum", "itl_ms_sum", "open_seconds",
)  # fmt: skip
_SUMS = (*_OF_ALL, *(_BATCH + name for name in _OF_ALL))
_ARRIVED = ("arrivals", "arrived_prompt_tokens", _BATCH + "arrivals", _BATCH + "arrived_prompt_tokens")
_OPEN = ("open_seconds", _BATCH + "open_seconds")


@dataclass
class _Part:
    """What one worker told of one model and is in no window yet: between two of its reports."""

    begun: float
    ended: float
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0.0))
    is_new: bool = True  # it reported since the last window
    before: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*_ARRIVED, *_OPEN), 0.0))  # its pace

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    def pace(self, name: str) -> float:
        """Of a sum, a second. One that told nothing, or of next to no time, goes on as before at least."""
        told = self.sums[name] / max(self.seconds, LEAST_SECONDS)
        return told if self.seconds >= LEAST_SECONDS else max(told, self.before[name])

    def next(self) -> "_Part":
        """What it tells from now on."""
        return _Part(self.ended, self.ended, is_new=False, before={name: self.pace(name) for name in self.before})


@dataclass
class _Interval:
    """What happened to a model since its last window."""

    begun: float
    before: Window | None = None  # the window before
    parts: dict[str, _Part] = field(default_factory=dict)  # by worker
    gone: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0.0))  # of workers that are no more
    patience: float = STUTTER_SECONDS  # with those who are silent, since it began

    @property
    def follows_partial(self) -> bool:
        return self.before is not None and self.before.is_partial

    @property
    def follows_quiet(self) -> bool:
        before = self.before
        return before is None or not (before.arrivals or before.in_flight or before.queued)


class Signals:
    """Gathers what workers report of models that scale. `names` maps served names (adapters too) to the model's."""

    def __init__(self, names: Mapping[str, str], now: float) -> None:
        self._names = dict(names)
        self._intervals = {model: _Interval(now) for model in set(names.values())}
        self._last: dict[str, dict[str, ModelLoad]] = {}  # the last report, by worker and served name
        self._heard_at: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}  # by worker, when that was noticed

    def report(self, incarnation: str, load: Load, now: float) -> None:
        """Take a worker's report."""
        last = self._last.get(incarnation)
        current = {model.name: model for model in load.models if model.name in self._names}
        for interval in self._intervals.values():
            part = interval.parts.setdefault(incarnation, _Part(now, now))
            part.ended, part.is_new = now, True
        if last is not None:
            for name, model in current.items():
                part = self._intervals[self._names[name]].parts[incarnation]
                _add(part.sums, last.get(name) or ModelLoad(name), model)
        self._last[incarnation] = current
        self._heard_at[incarnation] = now
        self._silent_since.pop(incarnation, None)  # between two turns as well

    def forget(self, living: Collection[str]) -> None:
        """Drop the workers that are gone; what they reported before stays counted."""
        for incarnation in self._last.keys() - set(living):
            self._set_aside(incarnation)
        for known in (self._heard_at, self._silent_since):
            for incarnation in known.keys() - set(living):
                del known[incarnation]

    def _set_aside(self, incarnation: str) -> None:
        """Count no longer on a worker; what it reported before stays counted."""
        del self._last[incarnation]
        for interval in self._intervals.values():
            for name, value in interval.parts.pop(incarnation).sums.items():
                interval.gone[name] += value

    def queued(self, model: str) -> int:
        """Requests that wait for a replica of it, as last reported."""
        return sum(load.queued for load in self._loads(model))

    def is_awaited(self, model: str, living: Collection[str], now: float) -> bool:
        """Every living worker speaks, and there is no window yet: the next reports make one within a second."""
        interval = self._intervals[model]
        living = set(living) - self._not_waited_for(interval, self._silent(living, now), now)
        speaks = living and all(now - self._heard_at.get(worker, -inf) <= FRESH_SECONDS for worker in living)
        return bool(speaks) and not self._is_known(interval, living, now, waits=bool(self.queued(model)))

    def window(self, model: str, living: Collection[str], now: float, usual_seconds: float) -> Window | None:
        """What happened since the last window; None where a living worker has told nothing new, or not lately.

        One that is silent for longer than SILENT_SECONDS is not waited for: the window is of the others.

        Somebody who waits is not made to wait longer by a worker that is silent, nor, after some quiet, by one that
        speaks within a second: then those that spoke count. Such a turn before its time gets the quiet before it added,
        so that one arrival in it makes no rate of hundreds.
        """
        interval = self._intervals[model]
        silent = self._silent(living, now)
        living = set(living) - self._not_waited_for(interval, silent, now)
        if not self._is_known(interval, living, now, waits=bool(self.queued(model))):
            return None
        told = [part for worker, part in interval.parts.items() if worker in living and part.seconds > 0]
        throughout = [part for part in told if part.begun <= interval.begun] or told
        seconds = sum(part.seconds for part in throughout) / max(1, len(throughout))
        is_uneven = bool(silent) or interval.follows_partial
        if is_uneven:
            seconds = max(now - interval.begun, LEAST_SECONDS)
        shortest = LEAST_SECONDS if interval.before is None else max(LEAST_SECONDS, usual_seconds / 2)
        is_early = interval.follows_quiet and seconds < shortest
        if is_early:
            seconds += usual_seconds if interval.before is None else interval.before.seconds
        totals = _totals(interval, seconds, is_early=is_early, is_uneven=is_uneven)
        window = replace(self._close(model, totals, now, seconds), is_partial=bool(silent))
        # Who told nothing new is taken into the next window, from where its last part ended.
        parts = {worker: part.next() for worker, part in interval.parts.items()}
        is_impatient = silent and now - interval.begun >= interval.patience
        self._intervals[model] = _Interval(now, window, parts, patience=0.0 if is_impatient else STUTTER_SECONDS)
        return window

    def _silent(self, living: Collection[str], now: float) -> set[str]:
        return {worker for worker in living if now - self._heard_at.get(worker, -inf) > FRESH_SECONDS}

    def _not_waited_for(self, interval: _Interval, silent: Collection[str], now: float) -> set[str]:
        long = self._long_silent(silent, now)
        return long if now - interval.begun < interval.patience else long | set(silent)

    def _long_silent(self, silent: Collection[str], now: float) -> set[str]:
        """Those who are not waited for any more, and are set aside."""
        self._silent_since = {worker: self._silent_since.get(worker, now) for worker in silent}
        long = {worker for worker, since in self._silent_since.items() if now - since >= SILENT_SECONDS}
        for worker in long & self._last.keys():
            self._set_aside(worker)
        return long

    def _is_known(self, interval: _Interval, living: Collection[str], now: float, *, waits: bool) -> bool:
        silent = self._silent(living, now)
        parts = {worker: interval.parts[worker] for worker in living if worker not in silent}
        lacking = any(part.seconds < LEAST_SECONDS for part in parts.values())
        if waits and any(part.is_new for part in parts.values()):
            return interval.follows_quiet or not lacking
        return bool(parts) and not silent and not lacking

    def _close(self, model: str, totals: Mapping[str, float], now: float, seconds: float) -> Window:
        loads = list(self._loads(model))
        whole = _window(totals, loads, now, seconds)
        batch = _window(totals, [load.batch for load in loads if load.batch is not None], now, seconds, prefix=_BATCH)
        is_any = batch.arrivals or batch.completed.count or batch.in_flight or batch.queued
        return replace(whole, batch=batch) if is_any else whole

    def _loads(self, model: str) -> Iterable[ModelLoad]:
        for loads in self._last.values():
            for name, load in loads.items():
                if self._names[name] == model:
                    yield load


def _totals(interval: _Interval, seconds: float, *, is_early: bool, is_uneven: bool) -> dict[str, float]:
    """Of every sum, over all workers. `is_uneven`: some tell of much more of the time, or of less, than others."""
    parts, gone = interval.parts.values(), interval.gone
    totals = {name: gone[name] + sum(part.sums[name] for part in parts) for name in _SUMS}

    def paced(name: str) -> float:
        if is_early:  # the quiet before it, which `seconds` has in it, was everybody's
            return gone[name] + sum(part.sums[name] * seconds / max(seconds, part.seconds) for part in parts)
        return gone[name] + sum(part.pace(name) * seconds for part in parts)

    # Each worker's mean over what it told of: some tell of a little more than others.
    paces = {name: paced(name) for name in _OPEN}
    if is_uneven:  # one that was told of is no fewer, however long ago it was: a service is idle when there is none
        paces |= {name: max(paced(name), min(1.0, totals[name])) for name in _ARRIVED}
    return totals | paces


def _window(
    totals: Mapping[str, float], loads: Sequence[ModelLoad], now: float, seconds: float, *, prefix: str = ""
) -> Window:
    """Of all requests, or of those whose sums have the prefix."""
    sums = {name: totals[prefix + name] for name in _OF_ALL}
    whole = {name: round(sums[name]) for name in _OF_ALL if not name.endswith(("_ms_sum", "_seconds"))}
    return Window(
        at=now,
        seconds=seconds,
        arrivals=whole["arrivals"],
        arrived_prompt_tokens=whole["arrived_prompt_tokens"],
        completed=LengthSums(
            whole["completed"], sums["n_sum"], sums["n2_sum"], sums["o_sum"], sums["o2_sum"], sums["no_sum"]
        ),
        decoded_tokens=whole["decoded_tokens"],
        judged=whole["judged"],
        attained=whole["attained"],
        ttft_ms_sum=sums["ttft_ms_sum"],
        itl_ms_sum=sums["itl_ms_sum"],
        in_flight=sum(load.in_flight for load in loads),
        queued=sum(load.queued for load in loads),
        oldest_queued_seconds=max((load.oldest_queued_seconds for load in loads), default=0.0),
        mean_in_flight=sums["open_seconds"] / seconds,
    )


def _add(sums: dict[str, float], before: ModelLoad, after: ModelLoad) -> None:
    pairs = [("", before, after)]
    if after.batch is not None:
        pairs.append((_BATCH, before.batch or ModelLoad(after.name), after.batch))
    for prefix, old, new in pairs:
        for name in _OF_ALL:
            sums[prefix + name] += max(0.0, getattr(new, name) - getattr(old, name))
