"""What is known of one child: its record in the fleet. Frozen; every change is a new value."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from swell.ports.engine import Address
from swell.ports.provider import OWN_MACHINE, ChildHandle, Loss, Machine
from swell.state.replica import ROUTABLE, Phase, move


@dataclass(frozen=True)
class Replica:
    """A child in its place. Times are monotonic seconds.

    The place (workload and ordinal) survives restarts, `child_id` does not: it is what the gateway should call it, so
    that what was learnt about a dead process is not held against its successor.
    """

    workload: str
    kind: str
    provider: str
    ordinal: int
    child_id: str
    fingerprint: str
    log_path: Path
    phase: Phase
    since: float  # of the phase
    drain_seconds: float
    stop_grace_seconds: float
    model: str = ""  # that it serves, where that is not `workload`
    pool: str = ""
    ordered_at: float = 0.0  # when its place was asked for, or it was adopted; restarts do not change it
    address: Address | None = None
    key: str = field(default="", repr=False)
    handle: ChildHandle | None = None
    alive: bool = False  # as its provider last said
    unseen: bool = False  # an earlier server started it in a place that has not answered since; it counts as it was
    exit_code: int | None = None
    waiting: str = ""  # what it waits for before it can run, as its provider last said
    healthy: bool | None = None  # as its health path last said; None: not asked yet
    unhealthy_since: float | None = None
    drained: bool = False  # no gateway has a request of it open
    not_before: float = 0.0  # the end of its back-off
    failures: int = 0  # in a row; a minute of health forgives them
    restarts: int = 0
    machine: Machine = OWN_MACHINE
    loss: Loss | None = None  # of its machine; what was said once is not taken back
    last_error: str = ""  # with the end of its log where it ended by itself

    @property
    def serves(self) -> str:
        """The model, or whatever else it does."""
        return self.model or self.workload

    @property
    def pid(self) -> int | None:
        """Its process, while it has one on this machine."""
        return self.handle.pid if self.handle is not None and self.handle.pid else None

    @property
    def routable(self) -> bool:
        """Whether new requests may be sent to it."""
        return self.phase in ROUTABLE

    def seen(self, **values: object) -> "Replica":
        """The record with these values: itself where nothing differs, as for most of thousands in most steps."""
        if all(getattr(self, name) == value for name, value in values.items()):
            return self
        return replace(self, **values)  # type: ignore[arg-type]  # fields by name, as replace has them

    def to(self, phase: Phase, now: float) -> "Replica":
        """The record in its next phase; raises ValueError for a move that the table does not allow."""
        return replace(self, phase=move(self.phase, phase), since=now)
