"""The provider suite's harnesses: over a cluster of make-believe, and over a real control plane."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from control_plane import ControlPlane
from kube_children import SETTINGS, child
from lightkube.config.kubeconfig import Cluster, KubeConfig, User
from nodes import NAMESPACE_LABEL, PaperNodes
from rights import give_rights

from swell.adapters.providers.accelerators import Platform
from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.client import LightkubeApi
from swell.adapters.providers.kubernetes.pacing import Pace
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.adapters.providers.kubernetes.settings import Prefetch
from swell.clock import ManualClock
from swell.ports.provider import ChildHandle, ChildSpec, Machine, Needs
from swell.testing.cluster import ApiServer, Controllers, FakeCluster

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.005
STEP_SECONDS = 0.05  # of the injected clock, for each of those
LONGER = 1.02  # each of them
NOTICE = "cloud.google.com/impending-node-termination"
ON_GKE = replace(SETTINGS, platform=Platform.GKE)
SPOT_NODE = {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-accelerator": "nvidia-l4"}
QUICK = Pace(per_second=10_000.0, burst=10_000)


@dataclass(frozen=True)
class SeenPod:
    """What a harness sees of a Pod."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    is_running: bool
    run: int


class ClusterHarness(ABC):
    """What both kinds of cluster have in common. Every child has a workload of its own; a provider that follows another
    one is a restarted server's. Time is injected, as far as Swell and the nodes are concerned."""

    namespace = SETTINGS.namespace
    spot_node = "spot-1"
    node_selector: Mapping[str, str] = {}
    authority = ""  # whose certificates Pods and gateways show each other

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.children: dict[str, ChildSpec] = {}  # by workload
        self.providers: list[KubernetesProvider] = []
        self.place = "c"
        self.prefetch: Prefetch | None = None  # of the next provider

    @abstractmethod
    def api(self) -> LightkubeApi:
        """A client of its own."""

    @abstractmethod
    def step(self) -> None:
        """Let the cluster go on."""

    @abstractmethod
    def pods(self) -> list[SeenPod]:
        """All Pods."""

    def provider(self) -> KubernetesProvider:
        for earlier in self.providers[-1:]:
            for task in earlier.tasks:
                task.cancel()
        settings = replace(
            ON_GKE,
            namespace=self.namespace,
            node_selector=self.node_selector,
            place=self.place,
            prefetch=self.prefetch,
            authority=self.authority,
        )
        provider = KubernetesProvider(self.api(), settings, clock=self.clock, pace=QUICK, pause=self._pause)
        self.providers.append(provider)
        return provider

    def steady(self) -> ChildSpec:
        name = f"test-{secrets.token_hex(4)}"
        spec = replace(child(f"{name}-0.{secrets.token_hex(4)}", name), log_path=self.folder / f"{name}.log")
        self.children[name] = spec
        return spec

    def impossible(self) -> ChildSpec:
        return replace(self.steady(), needs=Needs())

    def spot(self) -> tuple[ChildSpec, Machine]:
        needs = Needs(image="engine", accelerator="L4", accelerators=1, market="spot")
        return replace(self.steady(), needs=needs), Machine("spot", "zone-b", "L4")

    def unavailable(self) -> ChildSpec:
        return replace(self.steady(), needs=replace(self.spot()[0].needs, accelerators=2))

    async def settled(self, handle: ChildHandle) -> None:
        await self.until(lambda: self.providers[-1].status(handle).address is not None)

    async def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.providers[-1].wake()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls, for what comes over sockets; the cluster goes on meanwhile."""
        async with asyncio.timeout(WAIT_SECONDS):
            turn, step = asyncio.Event(), STEP_SECONDS
            while not condition():
                step *= LONGER
                await self.pass_seconds(step)
                self.step()
                asyncio.get_running_loop().call_later(POLL_SECONDS, turn.set)
                await turn.wait()
                turn.clear()

    def pod_of(self, handle: ChildHandle) -> str:
        """The only Pod of a child's workload."""
        workload = next(name for name, spec in self.children.items() if spec.child_id == handle.child_id)
        (name,) = [pod.name for pod in self.pods() if pod.labels[names.WORKLOAD] == workload]
        return name

    def living(self) -> set[str]:
        """The first run of a container is that of its child; a later one is somebody's who claims it."""
        found = []
        for pod in self.pods():
            if pod.is_running and (pod.run == 0 or pod.annotations.get(names.RUN) == str(pod.run)):
                own = self.children[pod.labels[names.WORKLOAD]].child_id
                found.append(pod.annotations.get(names.CHILD, own))
        assert len(found) == len(set(found)), "a child was started twice"
        return set(found)

    async def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Let go of everything."""
        for provider in self.providers:
            await provider.close()


class FakeClusterHarness(ClusterHarness):
    """A cluster of make-believe, through lightkube and HTTP on loopback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster = FakeCluster(self.clock)
        self.controllers = Controllers(self.cluster, names.WORKLOAD)
        self.controllers.add_node("node-1", zone="zone-a")
        self.controllers.add_node(self.spot_node, zone="zone-b", labels=SPOT_NODE, gpu=1)
        self.server = ApiServer(self.cluster, self.namespace)

    def api(self) -> LightkubeApi:
        config = KubeConfig.from_one(cluster=Cluster(server=self.server.url), user=User(token=self.server.token))
        found = config.get()
        assert found is not None
        return LightkubeApi(found, self.namespace)

    def step(self) -> None:
        self.controllers.step()

    def stubborn(self) -> ChildSpec:
        spec = self.steady()
        self.controllers.kubelet.stubborn.add(spec.workload)
        return spec

    def failing(self) -> ChildSpec:
        spec = self.steady()
        self.controllers.kubelet.failing.add(spec.workload)
        return spec

    def give_notice(self, handle: ChildHandle) -> None:
        self.controllers.taint(self.spot_node, NOTICE)

    def reclaim(self, handle: ChildHandle) -> None:
        self.controllers.reclaim(self.spot_node)

    def crash(self, handle: ChildHandle) -> None:
        self.controllers.kubelet.crash(self.pod_of(handle))

    def pods(self) -> list[SeenPod]:
        found = []
        for name, pod in self.cluster.objects["pods"].items():
            status = next(iter(pod["status"].get("containerStatuses", [])), None)
            is_running = status is not None and "running" in status["state"]
            run = status["restartCount"] if status is not None else 0
            metadata = pod["metadata"]
            found.append(SeenPod(name, metadata["labels"], metadata.get("annotations", {}), is_running, run))
        return found


class RealClusterHarness(ClusterHarness):
    """A real control plane with nodes of paper, a namespace a test."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        super().__init__(folder)
        self._plane = plane
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.spot_node = f"{self.namespace}-spot"
        self.node_selector = {NAMESPACE_LABEL: self.namespace}  # what other tests have left must not take its room
        self.nodes = PaperNodes(plane.config, self.namespace, self.clock, names.WORKLOAD)
        give_rights(self.nodes.client, self.namespace)
        self.nodes.add(f"{self.namespace}-1", {"topology.kubernetes.io/zone": "zone-a"})
        self.nodes.add(self.spot_node, {"topology.kubernetes.io/zone": "zone-b", **SPOT_NODE}, gpus=1)

    def api(self) -> LightkubeApi:
        return LightkubeApi(self._plane.swell_config, self.namespace)

    def step(self) -> None:
        self.nodes.step()

    def stubborn(self) -> ChildSpec:
        spec = self.steady()
        self.nodes.stubborn.add(spec.workload)
        return spec

    def failing(self) -> ChildSpec:
        spec = self.steady()
        self.nodes.failing.add(spec.workload)
        return spec

    def give_notice(self, handle: ChildHandle) -> None:
        self.nodes.taint(self.spot_node, NOTICE)

    def reclaim(self, handle: ChildHandle) -> None:
        self.nodes.reclaim(self.spot_node)

    def crash(self, handle: ChildHandle) -> None:
        self.nodes.crash(self.pod_of(handle))

    def pods(self) -> list[SeenPod]:
        found = []
        for pod in self.nodes.pods():
            assert pod.metadata is not None
            assert pod.status is not None
            status = next(iter(pod.status.containerStatuses or []), None)
            is_running = status is not None and status.state is not None and status.state.running is not None
            run = status.restartCount if status is not None else 0
            labels, annotations = pod.metadata.labels or {}, pod.metadata.annotations or {}
            found.append(SeenPod(pod.metadata.name or "", labels, annotations, is_running, run))
        return found

    async def close(self) -> None:
        await super().close()
        self.nodes.close()
