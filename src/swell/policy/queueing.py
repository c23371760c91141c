"""Which waiting class goes next. Inside a class requests wait in order of their deadline."""

from collections.abc import Mapping
from math import ceil

BATCH = "batch"
PRIORITIES = ("interactive", "standard", BATCH)
WEIGHTS = {"interactive": 8, "standard": 4}  # batch fills what those two leave idle

BATCH_FILL = 0.75  # of a replica's room, that batch may take where others come as well
OTHERS_SECONDS = 600.0  # after the last request of another class, that room is kept for the next


def batch_room(limit: int, others_ago: float) -> int:
    """How many requests a replica of room for `limit` may have for one of batch to be sent to it.

    A replica that batch has filled keeps others waiting until something ends, and decodes as slowly as it may. So a
    quarter is kept free, unless nobody but batch has come for a while. Worked numbers: of 4 one is kept, of 3 none.
    """
    return limit if others_ago > OTHERS_SECONDS else ceil(limit * BATCH_FILL)


def best_allowed(asked: str, allowed: str) -> str:
    """The class a request gets: what it asked for, but never above what its key allows."""
    if asked not in PRIORITIES:
        return allowed
    return PRIORITIES[max(PRIORITIES.index(asked), PRIORITIES.index(allowed))]


def next_class(waiting: Mapping[str, int], served: Mapping[str, float]) -> str | None:
    """The class to serve, by weighted turns: least served per weight first, batch last.

    `waiting` counts queued requests by class; `served` counts what the current busy spell served.
    Worked numbers: both waiting, served {interactive: 8, standard: 3}: 8/8 = 1 > 3/4, so standard.
    """
    weighted = [name for name in WEIGHTS if waiting.get(name, 0)]
    if weighted:
        return min(weighted, key=lambda name: (served.get(name, 0) / WEIGHTS[name], PRIORITIES.index(name)))
    return BATCH if waiting.get(BATCH, 0) else None
