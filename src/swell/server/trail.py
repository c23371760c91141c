"""The trail of scaling decisions on its way into the store: holds that follow one another are one line with a count."""

from collections import deque

from msgspec.structs import replace

from swell.state.records import DecisionRecord
from swell.state.scaling import Decision

MAX_WAITING = 1_000  # lines, while the store does not take them; the oldest are dropped
KEPT_DECISIONS = 10_000  # per model


class Trail:
    """Lines that the store does not have yet. `run` tells this server's lines from those of earlier ones."""

    def __init__(self, run: int) -> None:
        self._run = run
        self._lines = 0
        self._open: dict[str, DecisionRecord] = {}  # by model: a hold that may go on
        self._waiting: deque[DecisionRecord] = deque(maxlen=MAX_WAITING)
        self._changed: set[str] = set()  # models whose open hold the store does not know as it is

    def add(self, model: str, decision: Decision, before: int, at_unix: float) -> DecisionRecord:
        """Note a decision by which `before` replicas become as many as it says."""
        known = self._open.get(model)
        if known is not None and decision.is_hold and _is_same(known, decision):
            line = replace(
                known, until_unix=at_unix, times=known.times + 1, reason=decision.reason, inputs=dict(decision.inputs)
            )
        else:
            self._close(model)
            self._lines += 1
            line = DecisionRecord(
                decision_id=f"{model}/{self._run}/{self._lines}",
                model=model,
                at_unix=at_unix,
                until_unix=at_unix,
                times=1,
                before=before,
                replicas=decision.replicas,
                is_hold=decision.is_hold,
                binding=decision.binding,
                reason=decision.reason,
                inputs=dict(decision.inputs),
                rejected=tuple((option.replicas, option.why) for option in decision.rejected),
            )
        if decision.is_hold:
            self._open[model] = line
            self._changed.add(model)
        else:
            self._waiting.append(line)
        return line

    def take(self) -> list[DecisionRecord]:
        """What the store does not have yet, oldest first; a hold that goes on is handed out again when it has grown."""
        lines = [*self._waiting, *(self._open[model] for model in sorted(self._changed))]
        self._waiting.clear()
        self._changed.clear()
        return lines

    def put_back(self, lines: list[DecisionRecord]) -> None:
        """The store did not take them."""
        self._waiting.extendleft(reversed(lines))

    def _close(self, model: str) -> None:
        known = self._open.pop(model, None)
        if known is not None and model in self._changed:
            self._changed.discard(model)
            self._waiting.append(known)


def _is_same(known: DecisionRecord, decision: Decision) -> bool:
    """Numbers in a reason differ from turn to turn; the rule that held does not."""
    return known.binding == decision.binding and known.replicas == decision.replicas
