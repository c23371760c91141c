"""What runs children (replicas, gateway workers): start one, find it again, know when it ended, stop it.

Contract for every implementation, checked by `swell.testing.provider_suite`:

- A child is known by `ChildSpec.child_id`, which is new for every start. The caller stores its intent before calling
  `start`, so whatever a crash leaves behind can be found by that id.
- A child outlives the process that started it. It inherits nothing but its environment and its log file.
- `start` is idempotent: while a child of that id lives, starting it again returns its handle and starts nothing.
- `status` never blocks and never raises; for a handle that was neither started nor adopted here it is GONE.
- A child is GONE only once all of it is: what it left running itself has been killed by then.
- `binding` says what a child shall listen on. A child of this machine's own network gets a port that is free, and its
  address is known beforehand; one with a network of its own always has the same, and where it is reached is told by
  `status`, once that is known, and anew when it changes.
- A child whose place asks its health path by itself tells the answer with `ready`; nobody else asks then.
- `end_orphans` comes once, after the last `adopt` of a server's life: what nobody has taken over by then is ended,
  where the place knows of it.
- A place that cannot be asked raises AtCapacity from `adopt` or `end_orphans`. Both are called again until it
  answers, and neither `start` nor `stop` before.
- `stop` returns at once and may be repeated; a later call can only shorten the grace. Stopping what is gone is
  no error.
- Where machines are bought on spot, `status` says so, and says who loses one: NOTICE while a child runs whose machine
  will be taken, RECLAIMED once it is gone because its machine was, REFUSED once it is gone because none ever came. What
  ended by itself, or was asked to end, was not lost.
- Errors: LaunchFailed (it cannot be started as described; again later may work, because files appear), AtCapacity
  (no room now, wait `retry_after_seconds`; SpotRefused where it is the spot market that has none). Nothing else is
  raised.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from swell.ports.engine import Address, EngineMetrics
from swell.state.replica_runs import RunMarket

MARKER = "SWELL_CHILD"  # variable in a child's environment that holds its id
LOG_TAIL_BYTES = 2048

Confirm = Callable[[], Awaitable[None]]
"""What a place that several servers know of is changed after: returns where this one may, and raises AtCapacity where
another one may decide by now."""


async def unquestioned() -> None:
    """`Confirm` where there is one server alone."""


@dataclass(frozen=True)
class Binding:
    """What children listen on. `port` None: on one that is free on this machine, another for every start.

    `alike`: the children of a workload are started from one template, so that they ask for the same key.
    `leader` and `rank` are the words for which a child over several nodes is told, on each of them, where its first
    node is and which one this is; empty where no child can span nodes.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    alike: bool = False
    leader: str = ""
    rank: str = ""


@dataclass(frozen=True)
class Mount:
    """Files that a child reads and does not change: a path, or the name of a volume, and where it shall find them."""

    source: str
    target: str


@dataclass(frozen=True)
class Fetch:
    """What a place shall run before the child begins, so that its model is there: a command of an image."""

    image: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class TlsSidecar:
    """What stands in front of a child and asks gateways for certificates; the child itself listens on loopback.

    `authority` is OWN_AUTHORITY, or the issuer that certificates are asked of, as `Kind/name`.
    """

    image: str
    authority: str


OWN_AUTHORITY = "own"


@dataclass(frozen=True)
class Needs:
    """What a child needs of the machine that a provider puts it on; processes of this machine take what there is.

    Over several nodes this is what each of them needs.
    """

    image: str = ""  # reference of a container image
    cpus: float = 0.0  # cores; 0: whatever is left over
    memory_bytes: int = 0  # 0: as much as there is
    accelerator: str = ""  # as `swell prices` names it, such as `L4`
    accelerators: int = 0  # of them
    market: RunMarket | None = None  # None: whatever the place has
    zone: str = ""  # empty: any
    mounts: tuple[Mount, ...] = ()
    fetch: Fetch | None = None  # None: the model is there, or the engine fetches it
    tls: TlsSidecar | None = field(default=None, repr=False)  # None: gateways reach it in plaintext
    # Machines that one child spans. The launch line has it too, so that fingerprints of others stay as they were.
    nodes: int = field(default=1, repr=False)
    # What brings the model to where children find it, long before there is one; None: nothing shall. A child is the
    # same with it and without it, so that it is no part of what tells workloads apart.
    fetch_ahead: Fetch | None = field(default=None, repr=False)


NEEDS_NOTHING = Needs()


@dataclass(frozen=True)
class Expected:
    """What children of a workload will need, whether or not there is one now."""

    model: str  # that they will serve
    needs: Needs


class Progress(StrEnum):
    """How far a preparation is. One that failed is tried again; no child waits for any."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LEAVING = "leaving"  # nobody expects it any more


@dataclass(frozen=True)
class Preparation:
    """One thing that a place gets ready before a child needs it."""

    what: str  # such as `model` or `image`
    name: str  # of the image, or as the place calls what fetches the model
    models: tuple[str, ...]  # that it is for
    progress: Progress
    says: str = ""  # what it waits for, how far it is or why it failed
    by_hand: str = ""  # the command that deletes it, where it may stay behind


@runtime_checkable
class Prepares(Protocol):
    """A provider that may get things ready for children to come. What it prepares outlives this process."""

    def expect(self, expected: Sequence[Expected]) -> None:
        """What children may come; what was prepared for others goes. Returns at once, and may be called again.

        Nothing is prepared before `Provider.end_orphans`; where this was not called by then, nothing is expected.
        """

    def preparations(self) -> Sequence[Preparation]:
        """Everything that is prepared, or was and has not gone yet; and while that is not known, this."""


@dataclass(frozen=True)
class Lifecycle:
    """How a child begins and ends, for places that watch it themselves. Paths are of the port that it listens on."""

    health_path: str = ""  # answers 200 once requests may be sent; empty: ready as soon as it runs
    metrics: EngineMetrics = field(default_factory=EngineMetrics)  # tell whether it is idle
    start_timeout_seconds: float = 600.0
    drain_seconds: float = 30.0
    stop_grace_seconds: float = 5.0


USUAL_LIFECYCLE = Lifecycle()


@dataclass(frozen=True)
class ChildSpec:
    """What to start. `env` is added to the environment of the starting process, where the child has that.

    `env` may hold secrets: it is shown to nobody and logged nowhere.
    """

    child_id: str  # unique over all starts
    argv: tuple[str, ...]
    log_path: Path  # output is appended; its folder is made
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    workload: str = ""  # what it is one of; children of one workload and fingerprint differ in nothing but id and port
    fingerprint: str = ""
    port: int = 0  # that it will listen on; 0: none
    needs: Needs = NEEDS_NOTHING
    lifecycle: Lifecycle = USUAL_LIFECYCLE
    worker_argv: tuple[str, ...] = ()  # of every node but the first, where `needs.nodes` is more than one


@dataclass(frozen=True)
class ChildHandle:
    """How a running child is known. `start_time` tells it from a later process of the same pid."""

    child_id: str
    log_path: Path
    pid: int
    start_time: float  # the operating system's own count; compared for equality only


class Presence(StrEnum):
    """Whether a child is there."""

    RUNNING = "running"
    GONE = "gone"


class Loss(StrEnum):
    """How a child's machine is lost."""

    NOTICE = "notice"  # it runs yet; the machine will be taken
    RECLAIMED = "reclaimed"  # it is gone with its machine
    REFUSED = "refused"  # it never ran: no machine came


@dataclass(frozen=True)
class Machine:
    """What a child runs on, or would have; a name is empty where it is not known, or not yet."""

    market: RunMarket = "own"
    zone: str = ""
    accelerator: str = ""  # as in prices, such as `L4`


OWN_MACHINE = Machine()
"""One that nobody is billed for by the hour, and all that is said where nothing is known."""


@dataclass(frozen=True)
class ChildStatus:
    """`exit_code` is negative for a signal, and None while it runs or where only its parent was told."""

    presence: Presence
    exit_code: int | None = None
    address: Address | None = None  # None: not known yet, or known to the caller beforehand
    waiting: str = ""  # what it waits for before it can run, such as an image or a machine with room
    machine: Machine = OWN_MACHINE
    loss: Loss | None = None
    ready: bool | None = None  # whether its health path answers as it should; None: ask it


class Provider(Protocol):
    """Runs children somewhere."""

    @property
    def binding(self) -> Binding:
        """What its children shall listen on."""

    async def start(self, child: ChildSpec) -> ChildHandle:
        """Start a child, or return the one of that id that runs already."""

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        """Find a child that an earlier process started, and watch it from now on; None if it does not run.

        `known` is the handle that was stored, if it still came to that; without it the child is looked for by its id.
        """

    def status(self, handle: ChildHandle) -> ChildStatus:
        """Whether it runs, as far as known now."""

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        """Ask it to end (SIGTERM); what of it is left after `grace_seconds` is killed. 0 kills at once."""

    async def end_orphans(self) -> None:
        """Adoption is over: end what carries this installation's marks and was not adopted."""

    async def log_tail(self, log_path: Path) -> str:
        """The end of its log, at most LOG_TAIL_BYTES; empty where there is none."""

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        """Where the log has grown over `max_bytes`, move its content to `.1` and so on; `files` old ones are kept."""

    async def forget(self, handle: ChildHandle) -> None:
        """Drop what is kept about a child that is gone."""
