"""What is written into a resource's status: accepted or why not, ready or how far, and the last decision. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from swell.spec.custom_resources import ACCEPTED, MAX_MESSAGE_LENGTH, MAX_REASON_LENGTH, MODELS, READY
from swell.spec.declared import Declared, Refusal, Wanted
from swell.state.records import DecisionRecord
from swell.state.replica import Phase

Status = Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """Replicas of a model: that get requests, and that there shall be."""

    ready: int
    wanted: int


def progress_of(status: Mapping[str, Any], models: Mapping[str, int]) -> dict[str, Progress]:
    """By model, from what `swell status` shows; `models` says how many each has where nothing scales it."""
    ready = dict.fromkeys(models, 0)
    for row in status["replicas"]:
        if row["model"] in ready and row["phase"] == Phase.READY.value:
            ready[row["model"]] += 1
    wanted = {**models, **{row["model"]: int(row["wanted"]) for row in status["scaling"]}}
    return {name: Progress(ready[name], wanted[name]) for name in models}


def status_of(
    item: Declared,
    wanted: Wanted,
    progress: Mapping[str, Progress],
    decisions: Mapping[str, DecisionRecord],
    before: Status,
    now_unix: float,
) -> dict[str, Any] | None:
    """The status of a resource that `wanted` knows as it is; None where that does not. `before` is what it has."""
    if item not in wanted.declared:
        return None
    refusal, name = wanted.refusals.get(item.key), wanted.served.get(item.key, "")
    conditions = [_accepted(refusal)]
    found: dict[str, Any] = {"observedGeneration": item.generation, "phase": "Refused" if refusal else "Accepted"}
    if item.plural == MODELS:
        here = progress.get(name, Progress(0, 0))
        condition, phase = _ready(refusal, here)
        conditions.append(condition)
        found |= {"phase": phase, "replicas": {"ready": here.ready, "wanted": here.wanted}}
        if decision := decisions.get(name):
            reason = decision.reason[:MAX_REASON_LENGTH]
            found["lastDecision"] = {"replicas": decision.replicas, "reason": reason, "at": _time(decision.at_unix)}
    known = {each.get("type"): each for each in _conditions(before)}
    found["conditions"] = [_dated(each, known.get(each["type"]), item.generation, now_unix) for each in conditions]
    return found


def is_written(status: Status, before: Status) -> bool:
    """Whether all of it is there already."""
    return all(before.get(name) == value for name, value in status.items())


def _accepted(refusal: Refusal | None) -> dict[str, str]:
    if refusal is None:
        return _condition(ACCEPTED, True, "Accepted", "")
    return _condition(ACCEPTED, False, refusal.reason, refusal.message)


def _ready(refusal: Refusal | None, here: Progress) -> tuple[dict[str, str], str]:
    """The condition, and the phase in a word."""
    if refusal is not None:
        return _condition(READY, False, "NotAccepted", "it is not served, for it is not accepted"), "Refused"
    if here.wanted == 0:
        return _condition(READY, True, "AtZero", "no replica is wanted now; a request starts one"), "AtZero"
    message = f"{here.ready} of {here.wanted} replicas are ready"
    if here.ready >= here.wanted:
        return _condition(READY, True, "Ready", message), "Ready"
    return _condition(READY, False, "Starting", message), "Starting"


def _condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": str(holds), "reason": reason, "message": message[:MAX_MESSAGE_LENGTH]}


def _dated(condition: dict[str, str], before: Mapping[str, Any] | None, generation: int, now: float) -> dict[str, Any]:
    since = before.get("lastTransitionTime") if before and before.get("status") == condition["status"] else None
    return {**condition, "observedGeneration": generation, "lastTransitionTime": since or _time(now)}


def _conditions(status: Status) -> Sequence[Mapping[str, Any]]:
    found = status.get("conditions")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
