"""`swell up`, from what the user said to a running server: every refusal comes before anything is started."""

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import uvloop

from swell.clock import SystemClock
from swell.errors import AtCapacity, ModelUnavailable, RetryLater, StoreInUse, StoreLost, SwellError, UserError
from swell.observe.logs import log_to_file, stop_logging
from swell.ports.alert_sink import AlertSink
from swell.ports.store import Store
from swell.security.private_files import replace_private
from swell.server import assembly
from swell.server.administration import current_principal
from swell.server.ending import Way
from swell.server.external_scaler_door import check_scaler
from swell.server.gateway_workload import gateway_workload
from swell.server.listener import Listener, prepare_listener
from swell.server.parts import Parts
from swell.server.port import require_free_port
from swell.server.posted_rates import offers_of
from swell.server.resource_desk import ResourceDesk
from swell.server.running import RunningServer
from swell.server.several import require_movable
from swell.server.spec_change import Change, NextSpec, digest_of, prepared
from swell.server.spec_diff import check_change
from swell.server.standby import Standby
from swell.server.state_directory import StateDirectory
from swell.server.store_marks import check_marks
from swell.spec import ModelSpec, Spec, default_spec, load_spec, with_server
from swell.spec.declared import Key, Refusal, Wanted

DEFAULT_FILE = Path("swell.yaml")
DEFAULT_KEY_NAME = "default"
PATIENCE_SECONDS = 2.0  # before a person is told what is waited for
RETRY_SECONDS = 2.0  # before a server that could not lead looks again
LOCK_WAIT_SECONDS = 1.0  # a command that works on the store for a moment is no reason to refuse

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wishes:
    """What the command line says. None: what the file says."""

    state: Path
    file: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: str = "INFO"
    ha: bool = False  # one of several servers over one store


@dataclass(frozen=True)
class Greeting:
    """What a client needs. `key` is empty where Swell does not know one; `ca_file` is what it must trust."""

    url: str
    models: list[str]
    key: str
    key_file: Path | None
    ca_file: Path | None
    gateways: str = ""  # HOST:PORT where gateways elsewhere reach the server; empty: nowhere
    has_workers: bool = True  # clients are served here, and not at gateways elsewhere alone


class Audience(Protocol):
    """Who is told how it goes."""

    def fetching(self, model: ModelSpec) -> AbstractContextManager[assembly.Progress]:
        """A context in which a model is fetched; gives what is called with bytes done and in all."""

    def starting(self, models: list[str]) -> None:
        """It takes longer than PATIENCE_SECONDS until the models are ready."""

    def waiting(self, leader: str) -> None:
        """Another server leads; only where there are several."""

    def serving(self, greeting: Greeting) -> None:
        """Clients can come now."""

    def changed(self, file: Path | None) -> None:
        """Another spec is served now."""

    def trouble(self, sentence: str) -> None:
        """Something failed and is tried again."""


@dataclass(frozen=True)
class Prepared:
    """Everything that a spec needs before it can be served."""

    models: list[assembly.Model]
    listener: Listener
    sinks: tuple[AlertSink, ...]


def serve(wishes: Wishes, audience: Audience) -> None:
    """Run the server until it is told to stop. Raises UserError where it cannot begin."""
    spec = wanted_spec(wishes)
    offers_of(spec)  # whose rates nobody could work out is told before anything is fetched
    state = StateDirectory(wishes.state.absolute())
    state.create()
    with state.locked(wait_seconds=LOCK_WAIT_SECONDS), _logging(state, spec, wishes.log_level):
        if spec.server.workers and not wishes.ha and not any(state.workers.iterdir()):
            require_free_port(spec.server.host, spec.server.port)
        first = NextSpec(Wanted(spec, spec), wanted_file(wishes), _prepare(spec, state, audience.fetching))
        assembly.remember_spec(state, spec)
        if wishes.ha:
            uvloop.run(_lead_by_turns(wishes, state, audience, first))
        else:
            _serve_alone(wishes, state, audience, first)
        # All has ended well; a late signal must not make it look otherwise.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def _serve_alone(wishes: Wishes, state: StateDirectory, audience: Audience, first: NextSpec) -> None:
    store = assembly.open_server_store(state)
    try:
        uvloop.run(_Succession(wishes, state, store, audience).serve(first))
    finally:
        store.close()


async def _lead_by_turns(wishes: Wishes, state: StateDirectory, audience: Audience, first: NextSpec) -> None:
    """Wait, lead, and wait again after another server took over, until told to end."""
    pepper, pepper_file = assembly.pepper(state)
    current, pause = first, 0.0
    while True:
        standby = Standby(
            assembly.store_watch(state),
            lambda marks: check_marks(marks, state, pepper, pepper_file),
            lambda: assembly.open_server_store(state),
            audience,
            state.admin_socket,
        )
        standby.listen()
        store = await standby.wait(pause)
        if store is None:
            return
        turn = _Succession(wishes, state, store, audience, standby.told_how)
        try:
            current = await asyncio.to_thread(_latest, wishes, state, current, audience)
            await turn.serve(current)
            if turn.told() is not None:
                return
            audience.trouble("Another server leads now. This one waits again.")
        except (StoreInUse, StoreLost, RetryLater) as error:
            _log.exception("this server could not lead")
            if turn.told() is not None:
                return
            audience.trouble(f"This server could not lead, and waits again: {error}")
        finally:
            store.close()
        pause = RETRY_SECONDS


def _latest(wishes: Wishes, state: StateDirectory, known: NextSpec, audience: Audience) -> NextSpec:
    """What the file says by now, which may be long after it was read; as it was known where that cannot be served."""
    try:
        spec = wanted_spec(wishes)
        if digest_of(spec) == digest_of(known.spec):
            return known
        check_change(known.spec, spec)
        offers_of(spec)
        following = NextSpec(Wanted(spec, spec), wanted_file(wishes), _prepare(spec, state, _silently))
        assembly.remember_spec(state, spec)
    except SwellError as error:
        audience.trouble(f"The file has changed and cannot be served, so what it said before is: {error}")
        return known
    return following


def _prepare(
    spec: Spec, state: StateDirectory, fetching: Callable[[ModelSpec], AbstractContextManager[assembly.Progress]]
) -> Prepared:
    clock = SystemClock()
    check_scaler(spec.server.external_scaler)
    assembly.require_own_namespaces(spec)
    sinks = assembly.alert_sinks(spec, clock)
    models = []
    for model in spec.models:
        try:
            with fetching(model) as progress:
                models.append(assembly.prepare_model(model, spec.place_of(model), state, progress))
        except UserError as error:
            raise ModelUnavailable(model.name, error.message) from error
    if spec.server.gateways is not None:  # or the server that follows could not begin, nor could the one before
        from swell.server.gateway_credentials import control_context  # late: most servers need none

        control_context(spec.server.gateways, state, clock.unix())
    return Prepared(models, prepare_listener(spec.server, state, assembly.pepper(state)[1], clock), sinks)


def wanted_file(wishes: Wishes) -> Path | None:
    """The file that the spec is read from; None where it is the default one."""
    return wishes.file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def wanted_spec(wishes: Wishes) -> Spec:
    """The file's spec, or the default one, with what the command line overrides."""
    file = wanted_file(wishes)
    spec = load_spec(file) if file else default_spec()
    if (wishes.host, wishes.port, wishes.workers) != (None, None, None):
        origin = f"{file or 'the default spec'} with the command line"
        spec = with_server(spec, origin=origin, host=wishes.host, port=wishes.port, workers=wishes.workers)
    if wishes.ha:
        require_movable(spec, os.environ)
    return spec


class _Succession:
    """One server after another, in one process and event loop: a changed spec is served by a successor."""

    def __init__(
        self,
        wishes: Wishes,
        state: StateDirectory,
        store: Store,
        audience: Audience,
        told: Callable[[], Way | None] = lambda: None,
    ) -> None:
        """`told`: how the first server shall end, where it was told so before it began."""
        self._told = told
        self._server: RunningServer | None = None
        self._wishes = wishes
        self._state = state
        self._store = store
        self._audience = audience
        self._resources: ResourceDesk | None = None

    async def serve(self, first: NextSpec) -> None:
        """Returns when a server ends without a successor. Where one cannot begin, the one before goes on."""
        declarations = assembly.declarations(first.spec, self._confirm)
        if declarations is None:
            await self._serve(first)
            return
        kept, clock = self._state.resources, SystemClock()
        desk = self._resources = ResourceDesk(declarations, lambda: self._server, clock, kept, self._check)
        try:
            await desk.begin()
            wanted, ready = await asyncio.to_thread(prepared, first.wanted.of_file, self._join, self._prepare)
            assembly.remember_spec(self._state, wanted.spec)
            desk.start()
            await self._serve(NextSpec(wanted, first.file, ready))
        finally:
            await desk.close()

    async def _serve(self, first: NextSpec) -> None:
        server = self._server = RunningServer(self._parts(first), self._audience.trouble)
        current, following = first, await server.run(self._greet(first))
        while following is not None:
            assembly.remember_spec(self._state, following.spec)
            before = server
            try:
                server = self._server = RunningServer(self._parts(following, before), self._audience.trouble)
                current, following = following, await server.run(self._announce(following))
            except (StoreInUse, StoreLost):
                raise
            except SwellError as error:
                _log.exception("a changed spec cannot be served")
                self._audience.trouble(f"The changed spec cannot be served, and the one before goes on: {error}")
                if self._resources is not None:
                    self._resources.failed()
                parts = self._parts(current, before, problem=str(error))
                server = self._server = RunningServer(parts, self._audience.trouble)
                following = await server.run(self._announce(current))

    def told(self) -> Way | None:
        """How the newest server was told to end; None where another one leads."""
        return self._told() if self._server is None else self._server.ending.told

    def _parts(self, of: NextSpec, before: RunningServer | None = None, problem: str = "") -> Parts:
        spec, prepared = of.spec, of.prepared
        return Parts(
            spec=spec,
            state=self._state,
            store=self._store,
            pepper=assembly.pepper(self._state)[0],
            providers=functools.partial(
                assembly.providers, self._state, named=[place.name for place in spec.providers]
            ),
            models=[model.served for model in prepared.models],
            model_workloads=[workload for model in prepared.models for workload in model.workloads],
            pools={model.served.spec.name: model.pools for model in prepared.models if model.pools},
            gateway=gateway_workload(spec.server, self._state, prepared.listener),
            clock=SystemClock(),
            sinks=prepared.sinks,
            file=of.file,
            joined=of.wanted,
            change=Change(self._read, self._join, self._prepare, problem),
            told=self._told if before is None else lambda: before.ending.told,
            is_shared=self._wishes.ha,
        )

    def _read(self, file: Path) -> Spec:
        spec = wanted_spec(replace(self._wishes, file=file))
        offers_of(spec)
        return spec

    def _join(self, of_file: Spec, refused: Mapping[Key, Refusal]) -> Wanted:
        return Wanted(of_file, of_file) if self._resources is None else self._resources.join(of_file, refused)

    def _check(self, spec: Spec) -> None:
        if self._wishes.ha:
            require_movable(spec, os.environ)

    async def _confirm(self) -> None:
        """That this server leads: as the one that serves now knows it."""
        if self._server is None:
            raise AtCapacity("no server serves yet", retry_after_seconds=RETRY_SECONDS)
        await self._server.leadership.confirm()

    def _prepare(self, spec: Spec) -> Prepared:
        offers_of(spec)
        return _prepare(spec, self._state, _silently)

    def _greet(self, first: NextSpec) -> Callable[[RunningServer], Coroutine[Any, Any, None]]:
        state, audience = self._state, self._audience

        async def greet(server: RunningServer) -> None:
            principal = current_principal()
            made = server.act(lambda office: office.create_first_key(DEFAULT_KEY_NAME, principal), keys_changed=True)
            key = await made
            if key:
                # The one key that nobody asked for, kept so that a newcomer can be shown it again.
                replace_private(state.default_key, key.encode())
            names = [model.name for model in first.spec.models]
            serving = asyncio.ensure_future(server.serving())
            await asyncio.wait([serving], timeout=PATIENCE_SECONDS)
            if not serving.done():
                audience.starting(names)
            if await serving:
                known = await server.act(lambda office: office.kept_text())
                ca_file = first.prepared.listener.ca_file
                own = first.spec.server
                reached = f"{own.gateways.host}:{own.gateways.port}" if own.gateways else ""
                key_file = state.default_key if known else None
                audience.serving(Greeting(server.url, names, known, key_file, ca_file, reached, own.workers > 0))

        return greet

    def _announce(self, following: NextSpec) -> Callable[[RunningServer], Coroutine[Any, Any, None]]:
        async def announce(server: RunningServer) -> None:
            if await server.serving():
                self._audience.changed(following.file)

        return announce


@contextmanager
def _silently(model: ModelSpec) -> Iterator[assembly.Progress]:
    yield lambda done, total: None


@contextmanager
def _logging(state: StateDirectory, spec: Spec, level: str) -> Iterator[None]:
    handler = log_to_file(
        state.logs / "server.log", level=level, file_bytes=spec.server.log_bytes, files=spec.server.log_files
    )
    try:
        yield
    finally:
        stop_logging(handler)
