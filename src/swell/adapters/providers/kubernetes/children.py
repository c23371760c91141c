"""One replica of a Deployment, as the provider knows it, and a Pod that was chosen to end."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swell.adapters.providers.kubernetes.seen import NodeSeen, PodSeen
from swell.ports.provider import OWN_MACHINE, Loss, Machine

Nodes = Mapping[str, NodeSeen] | None
"""Machines by name; None where they may not be read."""

Mark = tuple[str, int, int]
"""What a Pod is marked with: whose it is, in which run, and its deletion cost."""


@dataclass
class Child:
    """One replica. `pod` is the uid of the Pod that it was given, empty while it waits for one."""

    child_id: str
    log_path: Path
    added_at: float
    pod: str = ""
    run: int = 0
    kill_at: float | None = None  # set once it was asked to end
    ended_at: float | None = None
    is_told: bool = False  # that it has ended
    is_told_of: bool = False  # gateways could reach it: they have what it asks for
    is_lost: bool = False  # its Pod goes, and nobody here asked for that
    has_notice: bool = False  # its machine will be taken
    loss: Loss | None = None  # why it has ended, where that was its machine
    machine: Machine = OWN_MACHINE
    exit_code: int | None = None
    last_words: str = ""
    waiting: str = ""

    @property
    def is_leaving(self) -> bool:
        """Whether it was asked to end."""
        return self.kill_at is not None

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def is_held(self) -> bool:
        """Whether it shall run."""
        return self.kill_at is None and self.ended_at is None

    def has_ended(self, pod: PodSeen) -> bool:
        """Whether the run of the container that it was given is over."""
        return pod.is_over or pod.run > self.run or pod.ended_run == self.run


@dataclass
class Victim:
    """A Pod that was chosen to end. `sent_seconds` is the shortest grace that was asked for, None before the first."""

    asked_at: float
    kill_at: float
    sent_seconds: int | None = None
    killed_at: float | None = None


def is_away(node: str, nodes: Nodes) -> bool:
    """Whether a machine is not ready, or is no more."""
    if nodes is None or not node:
        return False
    seen = nodes.get(node)
    return seen is None or not seen.is_ready


def machine_of(pod: PodSeen, nodes: Nodes) -> Machine:
    """What a Pod runs on, as far as its node says; without a word on spot it is what the cluster has anyway."""
    node = nodes.get(pod.node) if nodes is not None else None
    if node is None:
        return Machine(accelerator=pod.accelerator)
    return Machine(node.market, node.zone, pod.accelerator)
