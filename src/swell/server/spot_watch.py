"""Models that lose machines of the spot market: who was taken, which orders were refused, and what stands in.

Read off the fleet, whose providers say what became of a machine (`ports.provider.Loss`). A loss counts once: from its
notice on, or from where it is seen without one. An episode lasts while losses go on, and its counts are kept in a file
over restarts. What is lost while no server runs is found gone by the next one and counted by none.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from swell.clock import Clock
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER, Workload
from swell.ports.provider import Loss
from swell.server.alert_episodes import Finding
from swell.server.kept_counts import KeptCounts, read_counts, write_counts
from swell.server.model_alert_words import replica_count, roughly
from swell.spec import ModelSpec

CALM_SECONDS = 1800.0  # without a loss or a refusal, and it is over
MAX_PLACES_TOLD = 5  # accelerators and zones in one alert
MAX_PLACES = 1000  # counted apart, of one model; what comes beyond is counted without its name
VERSION = 1
COUNTED = "spot losses"
_ELSEWHERE = ("", "")

_Place = tuple[str, str]  # accelerator, zone


class _KeptModel(msgspec.Struct, frozen=True):
    """One model's episode: seconds since its begin and its last loss, and (kind, accelerator, zone, count)."""

    begun_ago: float
    last_ago: float
    counts: list[tuple[str, str, str, int]]


class _Kept(KeptCounts, frozen=True, kw_only=True):
    """The file: `known` are the replicas whose loss is counted and that are there yet."""

    known: list[str]
    models: dict[str, _KeptModel]


@dataclass
class _Tally:
    """One model's losses since an episode began. Monotonic seconds."""

    begun: float
    last: float
    taken: Counter[_Place] = field(default_factory=Counter)
    refused: Counter[_Place] = field(default_factory=Counter)


class SpotWatch:
    """Counts by model. Everything is called on the event loop; `restore` once, before the first `look`."""

    def __init__(self, models: Sequence[ModelSpec], file: Path, clock: Clock) -> None:
        self._models = {model.name: model for model in models if model.is_launched}
        self._file = file
        self._clock = clock
        self._begun = clock.monotonic()
        self._tallies: dict[str, _Tally] = {}
        self._known: set[str] = set()  # child ids whose loss is counted
        self._is_changed = False

    def look(self, replicas: Iterable[Replica]) -> None:
        """Count what was lost since the last look. To be called after every change: what failed is soon replaced."""
        now, lost = self._clock.monotonic(), set[str]()
        for replica in replicas:
            is_spot = replica.machine.market == "spot" and replica.kind != GATEWAY_WORKER
            if replica.loss is None or not is_spot or replica.serves not in self._models:
                continue
            lost.add(replica.child_id)
            if replica.child_id not in self._known:
                self._count(replica, now)
        self._known = lost

    def findings(self, replicas: Collection[Replica], workloads: Mapping[str, Workload]) -> list[Finding]:
        """What there is to say of each model, by the fleet as it is now."""
        now, found = self._clock.monotonic(), list[Finding]()
        for name in self._models:
            tally = self._tallies.get(name)
            own = [replica for replica in replicas if replica.serves == name]
            if tally is not None and now - tally.last < CALM_SECONDS:
                wanted = workloads[name].count if name in workloads else 0
                found.append(_losing(self._models[name], tally, own, wanted, now))
            elif now - (self._begun if tally is None else tally.last) >= CALM_SECONDS:
                found.append(_calm(name, tally))
        return found

    def restore(self) -> None:
        """Take up what an earlier server counted; a file that cannot be read is as good as none."""
        found = read_counts(self._file, _Kept, VERSION, self._clock.unix(), COUNTED)
        if found is None:
            return
        kept, away = found
        now = self._clock.monotonic()
        self._known = set(kept.known)
        for name in kept.models.keys() & self._models.keys():
            model = kept.models[name]
            tally = self._tallies[name] = _Tally(now - away - model.begun_ago, now - away - model.last_ago)
            for kind, accelerator, zone, count in model.counts:
                counts = tally.refused if kind == Loss.REFUSED else tally.taken
                counts[accelerator, zone] += count

    async def save(self) -> None:
        """Write what was counted, if it changed. A disk that does not take it is logged: alerts go on without."""
        if not self._is_changed:
            return
        self._is_changed = False
        now = self._clock.monotonic()
        models = {name: _kept(tally, now) for name, tally in self._tallies.items()}
        kept = _Kept(version=VERSION, at_unix=self._clock.unix(), known=sorted(self._known), models=models)
        await write_counts(self._file, kept, COUNTED)

    def _count(self, replica: Replica, now: float) -> None:
        tally = self._tallies.get(replica.serves)
        if tally is None or now - tally.last >= CALM_SECONDS:
            tally = self._tallies[replica.serves] = _Tally(now, now)
        counts = tally.refused if replica.loss is Loss.REFUSED else tally.taken
        place = (replica.machine.accelerator, replica.machine.zone)
        counts[place if place in counts or len(counts) < MAX_PLACES else _ELSEWHERE] += 1
        tally.last = now
        self._is_changed = True


def _kept(tally: _Tally, now: float) -> _KeptModel:
    counts = [
        (loss.value, accelerator, zone, count)
        for loss, places in ((Loss.RECLAIMED, tally.taken), (Loss.REFUSED, tally.refused))
        for (accelerator, zone), count in places.items()
    ]
    return _KeptModel(now - tally.begun, now - tally.last, counts)


def _losing(model: ModelSpec, tally: _Tally, own: Iterable[Replica], wanted: int, now: float) -> Finding:
    ready = [replica for replica in own if replica.routable]
    spot = sum(replica.machine.market == "spot" for replica in ready)
    others = len(ready) - spot
    stand = "that is not on spot stands in" if others == 1 else "that are not on spot stand in"
    left = f"{replica_count(others)} {stand}"
    spec = model.bought_on_spot
    advice = "lower spot.max_fraction or raise spot.ondemand_base in swell.yaml" if spec else "set spot in swell.yaml"
    return Finding(
        "spot_loss",
        model.name,
        "warning",
        f"loses spot machines: {_counted(tally)}",
        f"In {roughly(now - tally.begun)}: {_places(tally)}. Now {replica_count(len(ready))} of {wanted} wanted "
        f"{'is' if len(ready) == 1 else 'are'} ready, {spot} of them on spot"
        f"{f'; {left}' if others else ', and nothing stands in'}.\n"
        f"Swell asks for others by itself. To depend less on spot, {advice}. What happens: swell status",
        {**_values(tally), "wanted": wanted, "ready_spot": spot, "ready_other": others},
    )


def _calm(model: str, tally: _Tally | None) -> Finding:
    text = f"For {roughly(CALM_SECONDS)} no machine was taken and no order refused."
    if tally is not None:
        text += f" Over {roughly(tally.last - tally.begun)} before: {_places(tally)}."
    values = {} if tally is None else _values(tally)
    return Finding("spot_loss", model, "resolved", "loses no spot machines any more", text, values)


def _values(tally: _Tally) -> dict[str, str | int]:
    places = tally.taken | tally.refused
    return {
        "reclaimed": tally.taken.total(),
        "refused": tally.refused.total(),
        "accelerators": ",".join(sorted({accelerator for accelerator, _ in places if accelerator})),
        "zones": ",".join(sorted({zone for _, zone in places if zone})),
    }


def _counted(tally: _Tally) -> str:
    taken, refused = tally.taken.total(), tally.refused.total()
    orders = f"{refused} order{'' if refused == 1 else 's'} refused"
    return f"{taken} taken, {orders}" if taken and refused else f"{taken} taken" if taken else orders


def _places(tally: _Tally) -> str:
    """Where and what, the most first."""
    sums = tally.taken + tally.refused
    found = []
    for place, _ in sums.most_common(MAX_PLACES_TOLD):
        accelerator, zone = place
        what = " in ".join(word for word in (accelerator or "a machine", zone) if word)
        there = _counted(_Tally(0.0, 0.0, Counter({place: tally.taken[place]}), Counter({place: tally.refused[place]})))
        found.append(f"{what}: {there}")
    more = len(sums) - len(found)
    return "; ".join(found) + (f"; and {more} more places" if more else "")
