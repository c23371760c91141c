"""The provider suite's harnesses with children that span two nodes each."""

from dataclasses import replace
from pathlib import Path

from control_plane import ControlPlane
from kube_harness import SPOT_NODE, ClusterHarness, FakeClusterHarness, RealClusterHarness, SeenPod
from paper_sets import LeaderWorkerSet, PaperSets

from swell.adapters.providers.kubernetes import names
from swell.ports.provider import ChildHandle, ChildSpec, Machine, Needs

NODES = 2
WORKER = ("python3", "-m", "engine", "--rank=$(LWS_WORKER_INDEX)")


def spanning(spec: ChildSpec) -> ChildSpec:
    """The same over two nodes."""
    return replace(spec, needs=replace(spec.needs, nodes=NODES), worker_argv=WORKER)


class Spanning(ClusterHarness):
    """Before a harness of children that have one node."""

    def steady(self) -> ChildSpec:
        spec = spanning(super().steady())
        self.children[spec.workload] = spec
        return spec

    def impossible(self) -> ChildSpec:
        return replace(self.steady(), needs=Needs(nodes=NODES))

    def spot(self) -> tuple[ChildSpec, Machine]:
        spec, machine = super().spot()
        return replace(spec, needs=replace(spec.needs, nodes=NODES)), machine

    def pod_of(self, handle: ChildHandle) -> str:
        """The Pod of a child's first node."""
        own = [pod for pod in self.pods() if pod.annotations.get(names.CHILD) == handle.child_id]
        (name,) = [pod.name for pod in own if pod.labels[names.SET_INDEX] == "0"]
        return name

    def living(self) -> set[str]:
        """A child has as many Pods as nodes, and lives while one of them runs."""
        running: dict[str, list[SeenPod]] = {}
        for pod in self.pods():
            if pod.is_running:
                running.setdefault(pod.annotations[names.CHILD], []).append(pod)
        assert all(len(pods) <= NODES for pods in running.values()), "a child was started twice"
        return set(running)


class FakeSpanningHarness(Spanning, FakeClusterHarness):
    """On a cluster of make-believe."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.controllers.add_node(f"{self.spot_node}b", zone="zone-b", labels=SPOT_NODE, gpu=1)


class RealSpanningHarness(Spanning, RealClusterHarness):
    """On a real control plane, with a controller of paper."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        super().__init__(folder, plane)
        self.nodes.add(f"{self.spot_node}b", {"topology.kubernetes.io/zone": "zone-b", **SPOT_NODE}, gpus=1)
        self.sets = PaperSets(self.nodes.client)

    def step(self) -> None:
        self.sets.step()
        super().step()

    async def close(self) -> None:
        self.nodes.client.deletecollection(LeaderWorkerSet)
        await super().close()
