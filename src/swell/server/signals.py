"""From the workers' reports to one window per interval and model.

Reports hold sums that only grow, so what happened is a difference: a report that is lost is made up for by the next,
and one that comes twice adds nothing. A worker's first report is where counting begins, since a worker that outlived
its server tells of times that were seen before.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from swell.state.messages import Load, ModelLoad
from swell.state.scaling import LengthSums, Window

FRESH_SECONDS = 3.0  # workers report once a second; whoever is silent for longer may hold requests unseen

_SUMS = (
    "arrivals", "arrived_prompt_tokens", "completed", "n_sum", "n2_sum", "o_sum", "o2_sum", "no_sum", "decoded_tokens",
    "judged", "attained", "ttft_ms_sum", "itl_ms_sum", "open_seconds",
)  # fmt: skip


@dataclass
class _Interval:
    """What happened to a model since its last window, over all workers."""

    begun: float
    sums: dict[str, float]
    before: Window | None = None  # the window before


class Signals:
    """Gathers what workers report of models that scale. `names` maps served names (adapters too) to the model's."""

    def __init__(self, names: Mapping[str, str], now: float) -> None:
        self._names = dict(names)
        self._intervals = {model: _Interval(now, dict.fromkeys(_SUMS, 0.0)) for model in set(names.values())}
        self._last: dict[str, dict[str, ModelLoad]] = {}  # the last report, by worker and served name
        self._heard_at: dict[str, float] = {}

    def report(self, incarnation: str, load: Load, now: float) -> None:
        """Take a worker's report."""
        last = self._last.get(incarnation)
        current = {model.name: model for model in load.models if model.name in self._names}
        if last is not None:
            for name, model in current.items():
                self._add(self._intervals[self._names[name]], last.get(name) or ModelLoad(name), model)
        self._last[incarnation] = current
        self._heard_at[incarnation] = now

    def forget(self, living: Collection[str]) -> None:
        """Drop the workers that are gone; what they reported before stays counted."""
        for incarnation in self._last.keys() - set(living):
            del self._last[incarnation], self._heard_at[incarnation]

    def queued(self, model: str) -> int:
        """Requests that wait for a replica of it, as last reported."""
        return sum(load.queued for load in self._loads(model))

    def window(self, model: str, living: Collection[str], now: float, usual_seconds: float) -> Window | None:
        """What happened since the last window; None where a living worker has not reported lately.

        Somebody who waits is not made to wait longer by a worker that is silent: then those that spoke count.
        A turn before its time gets the quiet before it added, so that one arrival in it makes no rate of hundreds.
        """
        silent = [worker for worker in living if now - self._heard_at.get(worker, -FRESH_SECONDS * 2) > FRESH_SECONDS]
        if not living or (silent and not self.queued(model)):
            return None
        interval = self._intervals[model]
        window = self._close(model, interval, now)
        before = interval.before
        self._intervals[model] = _Interval(now, dict.fromkeys(_SUMS, 0.0), window)
        if window.seconds < usual_seconds / 2 and (before is None or not (before.arrivals or before.in_flight)):
            return replace(window, seconds=window.seconds + (before.seconds if before else usual_seconds))
        return window

    def _close(self, model: str, interval: _Interval, now: float) -> Window:
        sums, loads = interval.sums, list(self._loads(model))
        seconds = max(now - interval.begun, 1e-3)
        whole = {name: int(sums[name]) for name in _SUMS if not name.endswith(("_ms_sum", "_seconds"))}
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

    def _add(self, interval: _Interval, before: ModelLoad, after: ModelLoad) -> None:
        old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
        for name in _SUMS:
            interval.sums[name] += max(0.0, new[name] - old[name])

    def _loads(self, model: str) -> Iterable[ModelLoad]:
        for loads in self._last.values():
            for name, load in loads.items():
                if self._names[name] == model:
                    yield load
