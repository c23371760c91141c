"""The life of a replica as one table. Every move that is not in the table is a programming error.

pending ──► starting ──► ready ──► draining ──► stopping ──► stopped
   │           │  │        │                       ▲
   │           │  └────────┼───────────────────────┤
   │           ▼           ▼                       │
   └───────► failed ◄──────┘      (failed ──► pending after a back-off, or ──► stopped)
"""

from enum import StrEnum


class Phase(StrEnum):
    """Where a replica is in its life."""

    PENDING = "pending"  # the intent to start it is stored, nothing runs yet
    STARTING = "starting"  # its process runs, it does not answer yet
    READY = "ready"  # answers its health path; routable
    DRAINING = "draining"  # no new requests; running ones finish
    STOPPING = "stopping"  # told to end; killed at its deadline
    STOPPED = "stopped"  # gone
    FAILED = "failed"  # ended by itself; waits for its back-off


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.STARTING, Phase.FAILED, Phase.STOPPED}),
    Phase.STARTING: frozenset({Phase.READY, Phase.FAILED, Phase.STOPPING}),
    Phase.READY: frozenset({Phase.DRAINING, Phase.FAILED, Phase.STOPPING}),
    Phase.DRAINING: frozenset({Phase.STOPPING, Phase.FAILED}),
    Phase.STOPPING: frozenset({Phase.STOPPED}),
    Phase.FAILED: frozenset({Phase.PENDING, Phase.STOPPED}),
    Phase.STOPPED: frozenset(),
}

ROUTABLE = frozenset({Phase.READY})
ENDED = frozenset({Phase.STOPPED, Phase.FAILED})


def move(current: Phase, target: Phase) -> Phase:
    """Return `target`; raise ValueError where the table does not allow the move."""
    if target not in TRANSITIONS[current]:
        raise ValueError(f"a replica cannot go from {current} to {target}")
    return target
