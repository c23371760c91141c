"""Episodes: something begins, may become worse, and is over; each is told once, whatever is restarted in between.

An episode is named by what it is of and when it began (`objective:chat:1700000000000`), and its alerts are its
thresholds in the store: `warning`, `critical`, `resolved`. So a restarted server knows from the last alert of a model
whether an episode is open, and nothing is told of it twice. Two of one model and kind never overlap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from swell.clock import Clock
from swell.server.alert_book import RANKS, AlertBook, new_alert_id
from swell.state.alerts import Alert, AlertKind, AlertRecord, Severity

RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Finding:
    """What there is to say of a model now: a severity that holds, or that an episode would be over (`resolved`).

    A model of which there is neither has no finding: an episode that is open stays so. `does` goes on after the
    model's name; `text` says what happened and what to do.
    """

    kind: AlertKind
    model: str
    state: Severity | Literal["resolved"]
    does: str
    text: str
    values: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Episode:
    name: str
    severity: Severity  # the worst that was told
    began_unix: float


class Episodes:
    """All of one server, by kind and model. `begin` once, before the first `see`."""

    def __init__(self, book: AlertBook, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._open: dict[tuple[AlertKind, str], _Episode] = {}

    async def begin(self, kinds: Iterable[AlertKind]) -> None:
        """Take up the episodes that an earlier server left open."""
        for kind in kinds:
            for record in await self._book.latest(kind):
                name = record.limit_name
                if record.threshold != RESOLVED and (began := _began(name)) is not None:
                    model = record.alert.subject.removeprefix(_SUBJECT)
                    self._open[kind, model] = _Episode(name, record.alert.severity, began)

    def is_open(self, kind: AlertKind, model: str) -> bool:
        """Whether an episode has begun that is not over."""
        return (kind, model) in self._open

    async def see(self, findings: Sequence[Finding]) -> None:
        """Tell what is new in `findings`, at most one of each kind and model."""
        after = dict(self._open)
        records = []
        for finding in findings:
            place = (finding.kind, finding.model)
            known, at_unix = self._open.get(place), self._clock.unix()
            if finding.state == "resolved":
                if known is None:
                    continue
                del after[place]
                episode = known
            elif known is None:
                began = int(at_unix * 1000)
                episode = _Episode(f"{finding.kind}:{finding.model}:{began}", finding.state, began / 1000)
                after[place] = episode
            elif RANKS[finding.state] > RANKS[known.severity]:
                episode = after[place] = _Episode(known.name, finding.state, known.began_unix)
            else:
                continue
            records.append(self._record(finding, episode, at_unix))
        if records:
            await self._book.add(records)
        self._open = after

    def _record(self, finding: Finding, episode: _Episode, at_unix: float) -> AlertRecord:
        is_over = finding.state == "resolved"
        alert = Alert(
            alert_id=new_alert_id(),
            kind=finding.kind,
            severity="info" if finding.state == "resolved" else finding.state,
            title=f"Model {finding.model} {finding.does}",
            text=finding.text,
            subject=f"{_SUBJECT}{finding.model}",
            at_unix=at_unix,
            values={
                "model": finding.model,
                "state": RESOLVED if is_over else "open",
                "episode": episode.name,
                "began_unix": int(episode.began_unix),
                **finding.values,
            },
        )
        return self._book.record(alert, episode.name, finding.state, episode.severity)


_SUBJECT = "model "


def _began(name: str) -> float | None:
    """When an episode began, by its name; None for what is no episode."""
    end = name.rpartition(":")[2]
    return int(end) / 1000 if end.isascii() and end.isdigit() and len(end) <= 15 else None
