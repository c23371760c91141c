"""The provider suite's harness over a cluster of make-believe, through lightkube and real HTTP on loopback."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kube_children import SETTINGS, child
from lightkube.config.kubeconfig import Cluster, KubeConfig, User

from swell.adapters.providers.accelerators import Platform
from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.client import LightkubeApi
from swell.adapters.providers.kubernetes.pacing import Pace
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.clock import ManualClock
from swell.ports.provider import ChildHandle, ChildSpec, Machine, Needs
from swell.testing.cluster import ApiServer, Controllers, FakeCluster

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.005
STEP_SECONDS = 0.05  # of the injected clock, for each of those
LONGER = 1.02  # each of them
ON_GKE = replace(SETTINGS, platform=Platform.GKE)
SPOT_NODE = {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-accelerator": "nvidia-l4"}
QUICK = Pace(per_second=10_000.0, burst=10_000)


class FakeClusterHarness:
    """Every child has a workload of its own. A provider that follows another one is a restarted server's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.cluster = FakeCluster(self.clock)
        self.controllers = Controllers(self.cluster, names.WORKLOAD)
        self.controllers.add_node("node-1", zone="zone-a")
        self.controllers.add_node("spot-1", zone="zone-b", labels=SPOT_NODE, gpu=1)
        self.server = ApiServer(self.cluster, SETTINGS.namespace)
        self.children: dict[str, ChildSpec] = {}  # by workload
        self._providers: list[KubernetesProvider] = []

    def api(self) -> LightkubeApi:
        """A client of its own."""
        config = KubeConfig.from_one(cluster=Cluster(server=self.server.url), user=User(token=self.server.token))
        found = config.get()
        assert found is not None
        return LightkubeApi(found, SETTINGS.namespace)

    def provider(self) -> KubernetesProvider:
        for earlier in self._providers[-1:]:
            self._kill(earlier)
        provider = KubernetesProvider(self.api(), ON_GKE, clock=self.clock, pace=QUICK, pause=self._pause)
        self._providers.append(provider)
        return provider

    def steady(self) -> ChildSpec:
        name = f"test-{secrets.token_hex(4)}"
        spec = replace(child(f"{name}-0.{secrets.token_hex(4)}", name), log_path=self.folder / f"{name}.log")
        self.children[name] = spec
        return spec

    def stubborn(self) -> ChildSpec:
        spec = self.steady()
        self.controllers.kubelet.stubborn.add(spec.workload)
        return spec

    def failing(self) -> ChildSpec:
        spec = self.steady()
        self.controllers.kubelet.failing.add(spec.workload)
        return spec

    def impossible(self) -> ChildSpec:
        return replace(self.steady(), needs=Needs())

    def spot(self) -> tuple[ChildSpec, Machine]:
        needs = Needs(image="engine", accelerator="L4", accelerators=1, market="spot")
        return replace(self.steady(), needs=needs), Machine("spot", "zone-b", "L4")

    def unavailable(self) -> ChildSpec:
        return replace(self.steady(), needs=replace(self.spot()[0].needs, accelerators=2))

    def give_notice(self, handle: ChildHandle) -> None:
        self.controllers.taint("spot-1", "cloud.google.com/impending-node-termination")

    def reclaim(self, handle: ChildHandle) -> None:
        self.controllers.reclaim("spot-1")

    async def settled(self, handle: ChildHandle) -> None:
        await self.until(lambda: self._providers[-1].status(handle).address is not None)

    async def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._providers[-1].wake()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls, for what comes over sockets; the cluster goes on meanwhile."""
        async with asyncio.timeout(WAIT_SECONDS):
            turn, step = asyncio.Event(), STEP_SECONDS
            while not condition():
                step *= LONGER
                await self.pass_seconds(step)
                self.controllers.step()
                asyncio.get_running_loop().call_later(POLL_SECONDS, turn.set)
                await turn.wait()
                turn.clear()

    def crash(self, handle: ChildHandle) -> None:
        self.controllers.kubelet.crash(self.pod_of(handle))

    def pod_of(self, handle: ChildHandle) -> str:
        """The only Pod of a child's workload."""
        workload = next(name for name, spec in self.children.items() if spec.child_id == handle.child_id)
        (name,) = [
            name
            for name, pod in self.cluster.objects["pods"].items()
            if pod["metadata"]["labels"][names.WORKLOAD] == workload
        ]
        return name

    def living(self) -> set[str]:
        """The first run of a container is that of its child; a later one is somebody's who claims it."""
        found = []
        for pod in self.cluster.objects["pods"].values():
            metadata, statuses = pod["metadata"], pod["status"].get("containerStatuses", [])
            if not statuses or "running" not in statuses[0]["state"]:
                continue
            spec, run = self.children[metadata["labels"][names.WORKLOAD]], statuses[0]["restartCount"]
            if run == 0 or metadata["annotations"].get(names.RUN) == str(run):
                found.append(metadata["annotations"].get(names.CHILD, spec.child_id))
        assert len(found) == len(set(found)), "a child was started twice"
        return set(found)

    async def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    def _kill(self, provider: KubernetesProvider) -> None:
        for task in provider.tasks:
            task.cancel()

    async def close(self) -> None:
        """Let go of everything."""
        for provider in self._providers:
            await provider.close()
