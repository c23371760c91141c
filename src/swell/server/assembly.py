"""Puts the parts together: the only module of the server that knows which adapters there are."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swell.clock import Clock, SystemClock
from swell.control.workload import Workload, model_workload
from swell.ports.alert_sink import AlertSink
from swell.ports.store import Store
from swell.security.private_files import replace_private
from swell.security.secrets import load_secrets
from swell.server.administration import DEFAULT_TENANT, Administration
from swell.server.parts import Providers
from swell.server.publish import Served
from swell.server.state_directory import StateDirectory
from swell.spec import ModelSpec, Spec

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Model:
    """A model that is ready to be run: what it is called and offers, and how its replicas are launched."""

    served: Served
    workload: Workload


def prepare_model(spec: ModelSpec, state: StateDirectory, progress: Progress) -> Model:
    """Fetch what the model needs. Raises UserError where it cannot be had."""
    from swell.adapters.engines import local_engines
    from swell.adapters.engines.external import read_key

    engine = local_engines(os.environ)[spec.engine.value]
    path, key = None, ""
    if engine.managed:
        path = _fetch(spec, progress)
    else:
        key = read_key(spec, os.environ)
    # Replicas of one machine share its cores: llama.cpp's threads wait for one another by spinning, and with more of
    # them than cores four replicas are many times slower than one.
    cores = max(1, len(os.sched_getaffinity(0)) // max(1, spec.replicas.max))
    workload = model_workload(spec, engine, model_path=path, log_dir=state.logs, cores=cores, key=key)
    return Model(Served(spec, engine.endpoints(spec)), workload)


def _fetch(spec: ModelSpec, progress: Progress) -> Path:
    from swell.adapters.sources import SOURCES, ModelCache, default_cache_folder

    cache = ModelCache(default_cache_folder(os.environ), SOURCES)
    return cache.ensure(spec.source or "", sha256=spec.sha256, progress=progress).path


def providers(on_exit: Callable[[str], None]) -> Providers:
    """What runs children. `on_exit` is told the id of a child that has ended."""
    from swell.adapters.providers.external import ExternalProvider
    from swell.adapters.providers.process import ProcessProvider

    processes = ProcessProvider(on_exit)
    return Providers({"process": processes, "external": ExternalProvider()}, processes.close)


def alert_sinks(spec: Spec, clock: Clock) -> tuple[AlertSink, ...]:
    """Where alerts go; nothing is sent yet. Raises UserError where a sink's secret cannot be had."""
    if not spec.alerts.sinks:
        return ()
    from swell.adapters.sinks import open_sink  # late: most installations have none

    return tuple(open_sink(sink, os.environ, clock) for sink in spec.alerts.sinks)


def open_store(state: StateDirectory) -> Store:
    """The store of a state directory, made on first use. Raises StateError or AtCapacity."""
    from swell.adapters.stores import open_store as open_sqlite

    return open_sqlite(state.store, load_secrets(state.secrets, os.environ).store_key)


def pepper(state: StateDirectory) -> tuple[bytes, Path]:
    """The key pepper, and the file that workers read it from."""
    secrets = load_secrets(state.secrets, os.environ)
    return secrets.pepper, secrets.pepper_file


@contextmanager
def administration(state: StateDirectory, clock: Clock | None = None) -> Iterator[Administration]:
    """Administrative acts without a server. The caller holds the state lock."""
    store = open_store(state)
    try:
        yield Administration(store, pepper(state)[0], known_tenants(state), clock or SystemClock(), state.default_key)
    finally:
        store.close()


def known_tenants(state: StateDirectory) -> tuple[str, ...]:
    """The tenants of the spec that a server last ran with here."""
    try:
        names = json.loads((state.root / "tenants.json").read_text())
    except (OSError, ValueError):
        return (DEFAULT_TENANT,)
    return tuple(str(name) for name in names)


def remember_tenants(state: StateDirectory, spec: Spec) -> None:
    """Keep the tenants' names for commands that run without a server."""
    names = sorted({DEFAULT_TENANT, *(tenant.name for tenant in spec.tenants)})
    replace_private(state.root / "tenants.json", json.dumps(names).encode())


def sqlite_version() -> tuple[int, int, int]:
    """Of the encrypted SQLite that is installed."""
    from sqlcipher3 import dbapi2  # type: ignore[import-untyped]  # ships no types

    version: tuple[int, int, int] = dbapi2.sqlite_version_info
    return version


def is_unsafe_sqlite(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose committed writes."""
    from swell.adapters.stores.sqlite_database import has_wal_reset_bug

    return has_wal_reset_bug(version)
