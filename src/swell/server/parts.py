"""What the assembly makes and the running server works with."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swell.clock import Clock
from swell.control.workload import Workload
from swell.ports.alert_sink import AlertSink
from swell.ports.provider import Confirm, Provider
from swell.ports.store import Store
from swell.server.ending import Way
from swell.server.live_pools import NO_POOLS, PoolsByModel
from swell.server.publish import Served
from swell.server.scaling import MakeScaler, swell_scaler
from swell.server.spec_change import Change
from swell.server.state_directory import StateDirectory
from swell.spec import Spec
from swell.spec.declared import Wanted
from swell.state.snapshot import ClientIdentity


@dataclass(frozen=True)
class Providers:
    """What runs children, by the name that workloads use, how to let go of them all, and what they want to be shown.

    `renamed`: what some of them were called before, and what now. `spared`: of which nothing is wanted any more.
    `left_out`: those of them that could not even be asked, and why.
    """

    by_name: Mapping[str, Provider]
    close: Callable[[], Awaitable[None]]
    identities: Callable[[], tuple[ClientIdentity, ...]] = tuple
    renamed: Mapping[str, str] = field(default_factory=dict)
    spared: Collection[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """What the assembly made."""

    spec: Spec
    state: StateDirectory
    store: Store
    pepper: bytes
    providers: Callable[[Callable[[str], None], Confirm], Providers]
    models: Sequence[Served]
    model_workloads: Sequence[Workload]
    gateway: Workload
    clock: Clock
    sinks: Sequence[AlertSink] = ()
    file: Path | None = None  # that the spec was read from
    joined: Wanted | None = None  # what the spec is made of; None: of the file alone
    change: Change | None = None  # how to another spec; None: not while it runs
    told: Callable[[], Way | None] = lambda: None  # how it shall end, where it was told so before it began
    is_shared: bool = False  # the store, by several servers, of which one leads
    make_scaler: MakeScaler = swell_scaler
    pools: PoolsByModel = field(default_factory=lambda: NO_POOLS)  # of models whose replicas may be of several kinds

    @property
    def wanted(self) -> Wanted:
        """The spec, with what it is made of."""
        return self.joined or Wanted(self.spec, self.spec)

    @property
    def advised(self) -> tuple[str, ...]:
        """Models of which somebody else runs as many replicas as Swell decides."""
        return tuple(model.spec.name for model in self.models if model.spec.is_advised)

    @property
    def on_signal(self) -> Way:
        """How the server ends when its machine or its Pod does."""
        return Way.LEAVE if self.is_shared else Way.DOWN
