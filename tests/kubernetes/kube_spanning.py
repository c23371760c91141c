"""Replicas that span nodes: the provider suite's harnesses with two nodes each, and workloads of a world with three."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from kube_harness import SPOT_NODE, ClusterHarness, FakeClusterHarness, RealClusterHarness, SeenPod
from kube_world import World
from paper_sets import LeaderWorkerSet, PaperSets

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import FORBIDDEN
from swell.control.replica import Replica
from swell.control.workload import Slot, Workload
from swell.ports.engine import LaunchCommand
from swell.ports.provider import ChildHandle, ChildSpec, Machine, Needs
from swell.testing.cluster import Refused

NODES = 2
WORLD_NODES = 3
READS = ("list", "watch")
ALL_VERBS = (*READS, "patch", "delete")
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


def over(world: World, count: int = 1, fingerprint: str = "v1", **changes: Any) -> Workload:
    """Replicas of a model over WORLD_NODES nodes each."""

    def launch(slot: Slot) -> LaunchCommand:
        assert slot.span is not None
        argv = ("engine", f"--port={slot.port}", f"--leader={slot.span.leader}", fingerprint)
        return LaunchCommand(argv, {"ENGINE_KEY": slot.key}, WORKER)

    needs = Needs(image="engine", nodes=WORLD_NODES)
    return world.workload(count=count, fingerprint=fingerprint, **{"needs": needs, "launch": launch, **changes})


def sets_of(world: World) -> dict[str, Any]:
    """LeaderWorkerSets, by name."""
    return world.cluster.objects["leaderworkersets"]


def pods_of(world: World, replica: Replica) -> dict[str, str]:
    """Names of a replica's Pods, by which node it is."""
    own = [pod for pod in world.pods() if pod["metadata"]["annotations"].get(names.CHILD) == replica.child_id]
    return {pod["metadata"]["labels"][names.SET_INDEX]: pod["metadata"]["name"] for pod in own}


def deny(world: World, verbs: Collection[str] = READS) -> None:
    """Take rights to LeaderWorkerSets away; watches end, as those of a real server do after some minutes."""

    def refuse(verb: str, kind: str) -> None:
        if kind == "leaderworkersets" and verb in verbs:
            raise Refused(FORBIDDEN, f"leaderworkersets is forbidden: cannot {verb}")

    world.cluster.before_request = refuse
    world.cluster.break_watches()


def hide(world: World) -> None:
    """The API knows no LeaderWorkerSets any more, though they and their controller are there."""
    world.cluster.absent.add("leaderworkersets")
    world.cluster.break_watches()


def show(world: World) -> None:
    """Undo both."""
    world.cluster.before_request = lambda verb, kind: None
    world.cluster.absent.clear()


def refuse_times(world: World, verb: str, kind: str, count: int, status: int = 503) -> list[Refused]:
    """Have the next requests of a kind fail; those that have not yet."""
    left = [Refused(status, "etcdserver: leader changed") for _ in range(count)]

    def refuse(asked: str, of: str) -> None:
        if left and (asked, of) == (verb, kind):
            raise left.pop()

    world.cluster.before_request = refuse
    return left


def left_in(world: World) -> set[str]:
    """Everything of replicas that is still there."""
    kinds = ("leaderworkersets", "deployments", "pods", "secrets", "poddisruptionbudgets")
    return {f"{kind}/{name}" for kind in kinds for name in world.cluster.objects[kind]}
