"""Puts the parts together: the only module of the server that knows which adapters there are."""

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swell.clock import Clock, SystemClock
from swell.control.workload import Workload, model_workload
from swell.errors import AtCapacity, LaunchFailed, StateError, UserError
from swell.ports.alert_sink import AlertSink
from swell.ports.declarations import Declarations
from swell.ports.provider import Confirm, Provider, unquestioned
from swell.ports.store import Store
from swell.security.keys import engine_key
from swell.security.private_files import replace_private
from swell.security.secrets import load_secrets
from swell.server.administration import DEFAULT_TENANT, Administration
from swell.server.cluster_models import authority_of, cluster_model
from swell.server.cluster_pools import cluster_pools, with_parallelism
from swell.server.live_pools import LivePool, advised_pool
from swell.server.parts import Providers
from swell.server.places import contained
from swell.server.publish import Served
from swell.server.standby import StoreWatch
from swell.server.state_directory import StateDirectory
from swell.server.store_choice import chosen_store, remember_store
from swell.server.store_marks import check, join
from swell.spec import AnyPlace, ContainerSpec, Engine, KubernetesSpec, ModelSpec, Places, Spec
from swell.spec.providers import places_from_json, places_to_json

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

    from swell.adapters.providers.container_body import ContainerPlace
    from swell.adapters.providers.kubernetes.provider import KubernetesProvider

NOBODY = "65532:65532"  # whom containers run as where the server is root
MAX_PLACES = 64
KUBERNETES_INSTALL = "pip install 'swell[kubernetes]'"
POSTGRES_INSTALL = "pip install 'swell[postgres]'"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Model:
    """A model that is ready to be run: what it is called and offers, and how its replicas are launched."""

    served: Served
    workloads: tuple[Workload, ...]
    pools: tuple[LivePool, ...] = ()  # where it is known what replicas run on: one for each workload


def prepare_model(spec: ModelSpec, place: AnyPlace, state: StateDirectory, progress: Progress) -> Model:
    """Fetch what the model needs to run in `place`. Raises UserError where it cannot be had."""
    from swell.adapters.engines import local_engines
    from swell.adapters.engines.external import read_key

    engine = local_engines(os.environ)[spec.engine.value]
    if engine.managed and isinstance(place, ContainerSpec):
        return _contained_model(spec, place, state, progress)
    if engine.managed and isinstance(place, KubernetesSpec):
        return _cluster_model(spec, place, state)
    path, key = None, ""
    if engine.managed:
        path = _fetch(spec, progress)
    else:
        key = read_key(spec, os.environ)
    # Replicas of one machine share its cores: llama.cpp's threads wait for one another by spinning, and with more of
    # them than cores four replicas are many times slower than one.
    cores = _cores_each(spec)
    workload = model_workload(spec, engine, model_path=path, log_dir=state.logs, cores=cores, key=key)
    advised = advised_pool(spec) if spec.is_advised else None
    return Model(Served(spec, engine.endpoints(spec)), (workload,), () if advised is None else (advised,))


def _contained_model(spec: ModelSpec, place: ContainerSpec, state: StateDirectory, progress: Progress) -> Model:
    from swell.adapters.engines import image_engines
    from swell.adapters.sources import default_cache_folder

    engine = image_engines(accelerated=place.gpus_each > 0)[spec.engine.value]
    found = contained(spec, place, _fetch(spec, progress), default_cache_folder(os.environ))
    cores = max(1, int(place.cpus)) if place.cpus else _cores_each(spec)
    workload = model_workload(
        found.spec,
        engine,
        model_path=found.path,
        log_dir=state.logs,
        cores=cores,
        provider=place.name,
        needs=found.needs,
    )
    return Model(Served(spec, engine.endpoints(spec)), (workload,))


def _cluster_model(spec: ModelSpec, place: KubernetesSpec, state: StateDirectory) -> Model:
    """Nothing is fetched here: Pods do that."""
    from swell.adapters.engines import image_engines
    from swell.adapters.providers.accelerators import Platform, node_placement

    found = cluster_model(spec, place)
    pools = cluster_pools(found.spec, place, found.needs)
    kinds = [(each.needs, f"{spec.name}@{each.pool.name}", each.pool.name) for each in pools]
    workloads = []
    for needs, name, pool in kinds or [(found.needs, spec.name, "")]:
        try:
            node_placement(needs, Platform(place.platform))  # before anything is started
        except LaunchFailed as error:
            raise UserError(f"model {spec.name} on {place.name}: {error}") from error
        engine = image_engines(accelerated=needs.accelerators > 0)[spec.engine.value]
        workload = model_workload(
            with_parallelism(found.spec, needs),
            engine,
            model_path=found.path,
            log_dir=state.logs,
            cores=max(1, int(place.cpus or 1)),
            key=engine_key(pepper(state)[0], spec.name),
            provider=place.name,
            needs=needs,
            count=0 if pool else None,  # of several pools, scaling says which
        )
        workloads.append(replace(workload, name=name, model=spec.name, pool=pool) if pool else workload)
    live = [LivePool(each.pool, f"{spec.name}@{each.pool.name}", each.usd_nanos_per_hour) for each in pools]
    return Model(Served(spec, engine.endpoints(spec)), tuple(workloads), tuple(live))


def node_pools(spec: Spec, place_name: str | None, node_class: str) -> list[dict[str, Any]]:
    """Karpenter's NodePools for the models on one cluster of the spec. Raises UserError."""
    from swell.adapters.providers.accelerators import Platform
    from swell.adapters.providers.node_pools import PodsWanted, karpenter_pools

    clusters = [place for place in spec.providers if isinstance(place, KubernetesSpec)]
    chosen = [place for place in clusters if place_name in (None, place.name)]
    if len(chosen) != 1:
        names = ", ".join(place.name for place in clusters) or "none"
        raise UserError(f"choose one provider of kind kubernetes with --place; there is: {names}")
    (place,) = chosen
    wanted = []
    for model in spec.models:
        if model.engine is not Engine.EXTERNAL and spec.place_of(model).name == place.name:
            found = cluster_model(model, place)
            pools = cluster_pools(found.spec, place, found.needs)
            # Each zone of a spot pool may come to hold all of them.
            kinds = {replace(each.needs, zone="") for each in pools} or {found.needs}
            wanted += [PodsWanted(needs, model.replicas.max * needs.nodes) for needs in kinds]
    try:
        return karpenter_pools(wanted, Platform(place.platform), node_class)
    except LaunchFailed as error:
        raise UserError(str(error)) from error


def stop_grace_seconds(spec: ModelSpec) -> float:
    """What the model's engine takes to end, from being told to."""
    from swell.adapters.engines import local_engines

    return local_engines(os.environ)[spec.engine.value].stop_grace_seconds


def _cores_each(spec: ModelSpec) -> int:
    return max(1, len(os.sched_getaffinity(0)) // max(1, spec.replicas.max))


def _fetch(spec: ModelSpec, progress: Progress) -> Path:
    from swell.adapters.sources import SOURCES, ModelCache, default_cache_folder

    cache = ModelCache(default_cache_folder(os.environ), SOURCES)
    return cache.ensure(spec.source or "", sha256=spec.sha256, progress=progress).path


def providers(
    state: StateDirectory,
    on_exit: Callable[[str], None],
    confirm: Confirm = unquestioned,
    named: Collection[str] | None = None,
) -> Providers:
    """What runs children, in the places that `remember_spec` keeps. `on_exit` is told the id of one that has ended.
    What outlives this machine's processes is changed only after `confirm`.

    Nothing is asked of a place before there is something to start or to adopt there. Raises UserError where one of
    `named` (default: all) has no credentials; another one is left out.
    """
    from swell.adapters.providers.external import ExternalProvider
    from swell.adapters.providers.process import ProcessProvider

    processes = ProcessProvider(on_exit)
    by_name: dict[str, Provider] = {"process": processes, "external": ExternalProvider()}
    closes = [processes.close]
    clusters: list[KubernetesProvider] = []
    names: dict[tuple[str, str], str] = {}  # of places, by the namespace that each is
    renamed, left_out = dict[str, str](), dict[str, str]()
    for place in remembered_places(state):
        if isinstance(place, ContainerSpec):
            from swell.adapters.providers.container import ContainerProvider  # late: most installations have none

            containers = ContainerProvider(_container_place(place, state), on_exit, confirm)
            by_name[place.name] = containers
            closes.append(containers.close)
        elif isinstance(place, KubernetesSpec):
            try:
                where = _namespace_of(place)
            except UserError as error:
                if named is None or place.name in named:
                    raise
                left_out[place.name] = str(error)
                continue
            name = names.setdefault(where, place.name)
            if name != place.name:  # as the namespace was called before: two that look after it would end each other's
                renamed[place.name] = name
                continue
            pods = _kubernetes(place, state, on_exit, confirm)
            by_name[place.name] = pods
            clusters.append(pods)
            closes.append(pods.close)

    async def close() -> None:
        for each in closes:
            await each()

    return Providers(
        by_name,
        close,
        lambda: tuple(each for cluster in clusters for each in cluster.identities),
        renamed,
        spared=set()
        if named is None
        else by_name.keys() - {"process", "external"} - {renamed.get(n, n) for n in named},
        left_out=left_out,
    )


def require_own_namespaces(spec: Spec) -> None:
    """Raises UserError where two places are one namespace, however each says so: they would end each other's Pods."""
    clusters = [place for place in spec.providers if isinstance(place, KubernetesSpec)]
    names: dict[tuple[str, str], str] = {}
    for place in clusters if len(clusters) > 1 else ():
        where = _namespace_of(place)
        if where in names:
            problem = f"providers {names[where]} and {place.name} are both the namespace {where[1]} of {where[0]}"
            raise UserError(f"{problem}; give each one of its own")
        names[where] = place.name


def _namespace_of(place: KubernetesSpec) -> tuple[str, str]:
    """The cluster's address and the namespace. Raises UserError where there are no credentials."""
    config = _credentials(place)
    return config.cluster.server, place.namespace or config.namespace


def _credentials(place: KubernetesSpec) -> "SingleConfig":
    """Raises UserError where there are none, or the package is missing."""
    try:
        from swell.adapters.providers.kubernetes.client import find_config
    except ImportError as error:
        raise UserError(f"replicas on Kubernetes need a package more; run: {KUBERNETES_INSTALL}") from error
    return find_config(place.kubeconfig or "", place.context or "")


def _kubernetes(
    place: KubernetesSpec, state: StateDirectory, on_exit: Callable[[str], None], confirm: Confirm
) -> "KubernetesProvider":
    """Raises UserError where there are no credentials, or the package is missing."""
    config = _credentials(place)
    from swell.adapters.providers.accelerators import Platform, Toleration
    from swell.adapters.providers.kubernetes.client import LightkubeApi
    from swell.adapters.providers.kubernetes.confirmed import ConfirmedApi
    from swell.adapters.providers.kubernetes.provider import KubernetesProvider
    from swell.adapters.providers.kubernetes.settings import ClusterSettings, ModelVolume, Prefetch

    cache, ahead = place.model_cache, place.prefetch
    api = LightkubeApi(config, place.namespace or "")
    settings = ClusterSettings(
        namespace=api.namespace,
        installation=state.installation(),
        platform=Platform(place.platform),
        models=ModelVolume(cache.claim or "", cache.host_path or "") if cache is not None else ModelVolume(),
        priority_class=place.priority_class or "",
        runtime_class=place.runtime_class or "",
        token_secret=place.token_secret or "",
        image_pull_secrets=place.image_pull_secrets,
        node_selector=place.node_selector,
        tolerations=tuple(Toleration(each.key, each.value) for each in place.tolerations),
        place=place.name,
        authority=authority_of(place),
        exclusive_topology=place.exclusive_topology or "",
        prefetch=None
        if ahead is None
        else Prefetch(
            models=ahead.models,
            images=ahead.images,
            queue=ahead.queue or "",
            cpus=ahead.cpus,
            memory_bytes=ahead.memory,
            node_selector=ahead.node_selector,
        ),
    )
    return KubernetesProvider(ConfirmedApi(api, confirm), settings, clock=SystemClock(), on_exit=on_exit)


def declarations(spec: Spec, confirm: Confirm) -> Declarations | None:
    """Where models and tenants are declared beside the file; None where nowhere. Nothing is asked yet.

    Raises UserError where there are no credentials, or the package is missing.
    """
    where = spec.server.custom_resources
    if where is None:
        return None
    try:
        from swell.adapters.declarations.kubernetes import KubernetesDeclarations
        from swell.adapters.providers.kubernetes.client import LightkubeApi, find_config
    except ImportError as error:
        raise UserError(f"custom resources need a package more; run: {KUBERNETES_INSTALL}") from error
    api = LightkubeApi(find_config(where.kubeconfig or "", where.context or ""), where.namespace or "")
    return KubernetesDeclarations(api, clock=SystemClock(), confirm=confirm)


def _container_place(place: ContainerSpec, state: StateDirectory) -> "ContainerPlace":
    from swell.adapters.providers.container_body import ContainerPlace

    own = f"{os.getuid()}:{os.getgid()}" if os.getuid() else NOBODY
    return ContainerPlace(
        name=place.name,
        socket=Path(place.socket),
        installation=state.installation(),
        user=place.user or own,
        network=place.network or "",
        devices=place.gpus,
        tmp_bytes=place.tmp,
        shared_memory_bytes=place.shared_memory,
    )


def alert_sinks(spec: Spec, clock: Clock) -> tuple[AlertSink, ...]:
    """Where alerts go; nothing is sent yet. Raises UserError where a sink's secret cannot be had."""
    if not spec.alerts.sinks:
        return ()
    from swell.adapters.sinks import open_sink  # late: most installations have none

    return tuple(open_sink(sink, os.environ, clock) for sink in spec.alerts.sinks)


def open_store(state: StateDirectory) -> Store:
    """The store of a state directory, made on first use, for this process alone. Raises StateError or AtCapacity."""
    secrets, chosen = load_secrets(state.secrets, os.environ), chosen_store(state.root, os.environ)
    if chosen is None:
        from swell.adapters.stores import open_store as open_sqlite

        return open_sqlite(state.store, secrets.store_key)
    with _needing_psycopg():
        from swell.adapters.stores.postgres import open_postgres
        from swell.adapters.stores.postgres_location import locate
    store = open_postgres(locate(chosen.url, chosen.password))
    try:
        check(store, state, secrets.pepper, secrets.pepper_file)
    except BaseException:
        store.close()
        raise
    return store


def open_server_store(state: StateDirectory) -> Store:
    """The same for a server, whose state directory becomes one of the store's. Raises StateError or AtCapacity."""
    store = open_store(state)
    try:
        if chosen_store(state.root, os.environ) is not None:
            join(store, state, *pepper(state))
    except BaseException:
        store.close()
        raise
    return store


def store_watch(state: StateDirectory) -> StoreWatch:
    """What tells who has the store that several servers share. Raises StateError."""
    chosen = chosen_store(state.root, os.environ)
    if chosen is None:
        raise StateError(f"the store of {state.root} is a file, which nobody else can have")
    with _needing_psycopg():
        from swell.adapters.stores.postgres_location import locate
        from swell.adapters.stores.postgres_watch import PostgresWatch
    return PostgresWatch(locate(chosen.url, chosen.password))


def examine_database(state: StateDirectory) -> tuple[str, str] | None:
    """The Postgres that is the store, and who has it open, or nothing; None where the store is a file.

    Raises StateError or AtCapacity where it cannot be used.
    """
    chosen = chosen_store(state.root, os.environ)
    if chosen is None:
        return None
    with _needing_psycopg():
        from swell.adapters.stores.postgres_database import examine
        from swell.adapters.stores.postgres_location import locate
    return examine(locate(chosen.url, chosen.password))


@contextmanager
def _needing_psycopg() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise StateError(f"a Postgres store needs a package more; run: {POSTGRES_INSTALL}") from error


def has_store(state: StateDirectory) -> bool:
    """Whether there is a store that something may be in: the file, or a database."""
    return state.store.exists() or chosen_store(state.root, os.environ) is not None


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


def remembered_places(state: StateDirectory) -> Places:
    """Where replicas may run that this server or one before it started. Raises StateError."""
    try:
        return places_from_json(state.places.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        advice = f"if no container of Swell's runs any more, remove {state.places}"
        raise StateError(f"cannot read where replicas were run; {advice}") from error


def examine_places(state: StateDirectory) -> list[tuple[str, str, bool]]:
    """Of each place with a daemon of its own: its name, what was found there or is wrong, and whether that is well."""
    found = []
    for place in remembered_places(state):
        if isinstance(place, ContainerSpec):
            from swell.adapters.providers.container_api import daemon_version

            try:
                found.append((place.name, f"{daemon_version(Path(place.socket))} at {place.socket}", True))
            except AtCapacity as away:
                found.append((place.name, str(away), False))
    return found


def remember_spec(state: StateDirectory, spec: Spec) -> None:
    """Keep the tenants' names, and where store and replicas are, for commands that run without a server.

    A place that the spec no longer names is kept too: what runs there must be found. It may be a namespace of which
    the spec has another name by now.
    """
    named = {place.name for place in spec.providers}
    earlier = [place for place in remembered_places(state) if place.name not in named]
    replace_private(state.places, places_to_json([*spec.providers, *earlier][:MAX_PLACES]))
    remember_store(state.root, spec.server.store, os.environ)
    names = sorted({DEFAULT_TENANT, *(tenant.name for tenant in spec.tenants)})
    replace_private(state.root / "tenants.json", json.dumps(names).encode())


def forget_place(state: StateDirectory, name: str) -> None:
    """Look for nothing there any more. The caller holds the state lock. Raises UserError for a place unheard of."""
    places = {place.name: place for place in remembered_places(state)}
    if places.pop(name, None) is None:
        known = f"there are {', '.join(places)}" if places else "none is known"
        raise UserError(f"there is no place {name} to forget; {known}")
    replace_private(state.places, places_to_json([*places.values()]))


def sqlite_version() -> tuple[int, int, int]:
    """Of the encrypted SQLite that is installed."""
    from sqlcipher3 import dbapi2  # type: ignore[import-untyped]  # ships no types

    version: tuple[int, int, int] = dbapi2.sqlite_version_info
    return version


def is_unsafe_sqlite(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose committed writes."""
    from swell.adapters.stores.sqlite_database import has_wal_reset_bug

    return has_wal_reset_bug(version)
