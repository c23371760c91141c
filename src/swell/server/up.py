"""`swell up`, from what the user said to a running server: every refusal comes before anything is started."""

import asyncio
import functools
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvloop

from swell.clock import SystemClock
from swell.observe.logs import log_to_file, stop_logging
from swell.security.private_files import replace_private
from swell.server import assembly
from swell.server.gateway_workload import gateway_workload
from swell.server.listener import prepare_listener
from swell.server.parts import Parts
from swell.server.port import require_free_port
from swell.server.posted_rates import offers_of
from swell.server.running import RunningServer
from swell.server.state_directory import StateDirectory
from swell.spec import ModelSpec, Spec, default_spec, load_spec, with_server

DEFAULT_FILE = Path("swell.yaml")
DEFAULT_KEY_NAME = "default"
PATIENCE_SECONDS = 2.0  # before a person is told what is waited for
LOCK_WAIT_SECONDS = 1.0  # a command that works on the store for a moment is no reason to refuse


@dataclass(frozen=True)
class Wishes:
    """What the command line says. None: what the file says."""

    state: Path
    file: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: str = "INFO"


@dataclass(frozen=True)
class Greeting:
    """What a client needs. `key` is empty where Swell does not know one; `ca_file` is what it must trust."""

    url: str
    models: list[str]
    key: str
    key_file: Path | None
    ca_file: Path | None


class Audience(Protocol):
    """Who is told how it goes."""

    def fetching(self, model: ModelSpec) -> AbstractContextManager[assembly.Progress]:
        """A context in which a model is fetched; gives what is called with bytes done and in all."""

    def starting(self, models: list[str]) -> None:
        """It takes longer than PATIENCE_SECONDS until the models are ready."""

    def serving(self, greeting: Greeting) -> None:
        """Clients can come now."""

    def trouble(self, sentence: str) -> None:
        """Something failed and is tried again."""


def serve(wishes: Wishes, audience: Audience) -> None:
    """Run the server until it is told to stop. Raises UserError where it cannot begin."""
    spec = wanted_spec(wishes)
    offers_of(spec)  # whose rates nobody could work out is told before anything is fetched
    state = StateDirectory(wishes.state.absolute())
    state.create()
    with state.locked(wait_seconds=LOCK_WAIT_SECONDS), _logging(state, spec, wishes.log_level):
        if not any(state.workers.iterdir()):
            require_free_port(spec.server.host, spec.server.port)
        clock = SystemClock()
        sinks = assembly.alert_sinks(spec, clock)
        models = []
        for model in spec.models:
            with audience.fetching(model) as progress:
                models.append(assembly.prepare_model(model, spec.place_of(model), state, progress))
        pepper, pepper_file = assembly.pepper(state)
        listener = prepare_listener(spec.server, state, pepper_file, clock)
        assembly.remember_spec(state, spec)
        store = assembly.open_store(state)
        try:
            parts = Parts(
                spec=spec,
                state=state,
                store=store,
                pepper=pepper,
                providers=functools.partial(assembly.providers, state),
                models=[model.served for model in models],
                model_workloads=[model.workload for model in models],
                gateway=gateway_workload(spec.server, state, listener),
                clock=clock,
                sinks=sinks,
                file=wanted_file(wishes),
            )
            uvloop.run(_serve(parts, audience, listener.ca_file))
            # All has ended well; a late signal must not make it look otherwise.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        finally:
            store.close()


def wanted_file(wishes: Wishes) -> Path | None:
    """The file that the spec is read from; None where it is the default one."""
    return wishes.file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def wanted_spec(wishes: Wishes) -> Spec:
    """The file's spec, or the default one, with what the command line overrides."""
    file = wanted_file(wishes)
    spec = load_spec(file) if file else default_spec()
    if (wishes.host, wishes.port, wishes.workers) == (None, None, None):
        return spec
    origin = f"{file or 'the default spec'} with the command line"
    return with_server(spec, origin=origin, host=wishes.host, port=wishes.port, workers=wishes.workers)


async def _serve(parts: Parts, audience: Audience, ca_file: Path | None) -> None:
    async def greet(server: RunningServer) -> None:
        key = await server.create_default_key(DEFAULT_KEY_NAME)
        if key:
            # The one key that nobody asked for, kept so that a newcomer can be shown it again.
            replace_private(parts.state.default_key, key.encode())
        names = [model.spec.name for model in parts.models]
        serving = asyncio.ensure_future(server.serving())
        await asyncio.wait([serving], timeout=PATIENCE_SECONDS)
        if not serving.done():
            audience.starting(names)
        if await serving:
            known = await server.act(lambda office: office.kept_text())
            audience.serving(Greeting(server.url, names, known, parts.state.default_key if known else None, ca_file))

    await RunningServer(parts, audience.trouble).run(greet)


@contextmanager
def _logging(state: StateDirectory, spec: Spec, level: str) -> Iterator[None]:
    handler = log_to_file(
        state.logs / "server.log", level=level, file_bytes=spec.server.log_bytes, files=spec.server.log_files
    )
    try:
        yield
    finally:
        stop_logging(handler)
