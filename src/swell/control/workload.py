"""What is wanted: groups of identical children. A model's replicas are one group, the gateway workers another."""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from swell.ports.engine import LOOPBACK, Address, EngineDescription, EngineMetrics, LaunchCommand, Span
from swell.ports.provider import NEEDS_NOTHING, Lifecycle, Needs
from swell.spec import ModelSpec

REPLICA = "replica"
GATEWAY_WORKER = "gateway_worker"
UNHEALTHY_SECONDS = 60.0  # a restart cuts streams, so a stuck process gets a minute to come back
EXTERNAL_UNHEALTHY_SECONDS = 5.0  # no more is lost than a route
EXTERNAL_RETRY_SECONDS = 5.0
BACKOFF_MAX_SECONDS = 60.0
NO_METRICS = EngineMetrics()


@dataclass(frozen=True)
class Slot:
    """What is particular to one start of one child."""

    child_id: str
    ordinal: int  # from 0, lowest free
    port: int  # 0 where the workload wants none
    key: str = field(repr=False)  # the engine shall ask for it; new for every start unless children are alike
    host: str = LOOPBACK  # to listen on
    span: Span | None = None  # over several nodes


@dataclass(frozen=True)
class HealthCheck:
    """A path to ask and how to judge the status of the answer."""

    path: str
    is_ready: Callable[[int], bool]


def _random_id(name: str, ordinal: int) -> str:
    return f"{name}-{ordinal}.{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Workload:
    """A group of identical children: `count` of them shall be ready.

    `fingerprint` stands for everything that `launch` does the same for all of them: a running child with another one
    is replaced, and goes on serving until its successor is ready. `launch` may raise SwellError or OSError, which
    fails that start.
    """

    name: str
    kind: str
    count: int
    provider: str
    log_dir: Path
    fingerprint: str
    launch: Callable[[Slot], LaunchCommand] | None = None  # None: runs elsewhere, at `addresses`
    addresses: tuple[Address, ...] = ()  # child n is at the n-th; empty: each start gets a port of its own
    wants_port: bool = True
    model: str = ""  # that its children serve, where it is not `name`: one model may have several workloads
    pool: str = ""  # of a model's several ones, which; as in scaling decisions
    is_advised: bool = False  # somebody else runs its children, as many as are wanted, behind one address
    key: str = field(default="", repr=False)  # for `addresses`, and for children that are `Binding.alike`
    health: HealthCheck | None = None  # None: ready as soon as it runs
    needs: Needs = NEEDS_NOTHING
    metrics: EngineMetrics = NO_METRICS  # how to read what its children tell of themselves
    new_id: Callable[[str, int], str] = _random_id
    start_timeout_seconds: float = 600.0
    unhealthy_seconds: float = UNHEALTHY_SECONDS
    drain_seconds: float = 30.0
    stop_grace_seconds: float = 5.0
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS

    @property
    def serves(self) -> str:
        """The model, or whatever else its children do."""
        return self.model or self.name

    @property
    def lifecycle(self) -> Lifecycle:
        """How a child begins and ends, in the words of its provider."""
        return Lifecycle(
            health_path=self.health.path if self.health is not None else "",
            metrics=self.metrics,
            start_timeout_seconds=self.start_timeout_seconds,
            drain_seconds=self.drain_seconds,
            stop_grace_seconds=self.stop_grace_seconds,
        )

    def log_path(self, ordinal: int) -> Path:
        """Where the child of that number writes; a name's slashes cannot leave the folder."""
        return self.log_dir / f"{quote(self.name, safe=':')}-{ordinal}.log"


def by_model(workloads: Iterable[Workload]) -> dict[str, Workload]:
    """One for every model that is served, whose count is that of all its pools."""
    found: dict[str, Workload] = {}
    for each in workloads:
        known = found.get(each.serves)
        count = each.count + (known.count if known else 0)
        seconds = max(each.start_timeout_seconds, known.start_timeout_seconds if known else 0.0)
        found[each.serves] = replace(known or each, name=each.serves, count=count, start_timeout_seconds=seconds)
    return found


def model_workload(
    model: ModelSpec,
    engine: EngineDescription,
    *,
    model_path: Path | None,
    log_dir: Path,
    cores: int,
    key: str = "",
    provider: str = "process",
    count: int | None = None,
    needs: Needs = NEEDS_NOTHING,
) -> Workload:
    """The replicas of a model: `replicas.min` of them unless `count` says otherwise.

    `model_path` is None and `key` the endpoints' own where the engine runs elsewhere. Of an engine that Swell starts
    `key` is what replicas ask for where they are alike.
    """
    addresses = engine.addresses(model)
    health = HealthCheck(engine.health_path(model), lambda status: engine.is_ready(model, status))
    if not engine.managed:
        return Workload(
            name=model.name,
            kind=REPLICA,
            count=model.replicas.min if count is None else count,
            provider="external",
            log_dir=log_dir,
            fingerprint=_digest([address.url() for address in addresses]),
            # Of advised ones each child is one of those that are behind the one address, nobody knows which.
            addresses=addresses * model.replicas.max if model.is_advised else addresses,
            is_advised=model.is_advised,
            key=key,
            health=health,
            start_timeout_seconds=model.start_timeout_seconds,
            unhealthy_seconds=EXTERNAL_UNHEALTHY_SECONDS,
            drain_seconds=model.drain_seconds,
            stop_grace_seconds=engine.stop_grace_seconds,
            backoff_max_seconds=EXTERNAL_RETRY_SECONDS,
        )
    if model_path is None:
        raise ValueError(f"{model.name}: engine {engine.name} needs a model file")
    path = model_path

    def launch(slot: Slot) -> LaunchCommand:
        return engine.launch(model, path, slot.port, cores=cores, key=slot.key, host=slot.host, span=slot.span)

    span = Span(needs.nodes) if needs.nodes > 1 else None
    common = engine.launch(model, path, 0, cores=cores, key="", span=span)
    words = [*common.argv, *common.worker_argv, *(f"{name}={value}" for name, value in sorted(common.env.items()))]
    words += [] if needs == NEEDS_NOTHING else [repr(needs), provider]
    words += [] if needs.tls is None else [repr(needs.tls)]  # apart: what has none keeps its fingerprint
    return Workload(
        name=model.name,
        kind=REPLICA,
        count=model.replicas.min if count is None else count,
        provider=provider,
        log_dir=log_dir,
        fingerprint=_digest(words),
        launch=launch,
        key=key,
        needs=needs,
        health=health,
        metrics=engine.metrics,
        start_timeout_seconds=model.start_timeout_seconds,
        drain_seconds=model.drain_seconds,
        stop_grace_seconds=engine.stop_grace_seconds,
    )


def _digest(words: list[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
