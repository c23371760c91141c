"""What a child is as a container, and what a daemon's answers say of one. Pure.

Nothing that a container can do without is left to it: no capabilities, no new privileges, no root, no writable disk but
a bounded /tmp, no other network than its own, no restart behind Swell's back.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swell.ports.engine import LOOPBACK, Address
from swell.ports.provider import MARKER, ChildSpec

PORT = 8000  # that every child listens on in its own network
CHILD, WORKLOAD, FINGERPRINT = "swell.child", "swell.workload", "swell.fingerprint"
INSTALLATION, PLACE, DEVICES, MEMORY = "swell.installation", "swell.place", "swell.devices", "swell.memory"
MAX_PROCESSES = 4096  # threads count
LOG_FILE_BYTES = 8 * 1024 * 1024  # kept by the daemon, beside what Swell copies into its own log
LOG_FILES = 2
_SIGNALLED = 128  # how shells and daemons tell a signal in an exit code
_MOST_SIGNALS = 64


@dataclass(frozen=True)
class ContainerPlace:
    """A daemon, and how containers are run there."""

    name: str  # of the place in the spec
    socket: Path
    installation: str  # of the state directory: two on one machine leave each other's containers alone
    user: str  # uid:gid
    network: str = ""  # empty: a network of the daemon's own, published on this machine's loopback
    devices: tuple[str, ...] = ()  # GPUs that may be handed out, by index or id
    tmp_bytes: int = 2 * 1024**3
    shared_memory_bytes: int = 1024**3


@dataclass(frozen=True)
class Seen:
    """A container as its daemon describes it."""

    child_id: str
    name: str
    state: str  # created, running, paused, exited, dead, …
    exit_code: int | None = None
    address: Address | None = None
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0

    @property
    def runs(self) -> bool:
        """Whether it runs, or is only held."""
        return self.state in ("running", "paused", "restarting")

    @property
    def ended(self) -> bool:
        """Whether it ran once and does not any more."""
        return self.state in ("exited", "dead", "removing", "stopped")


def container_name(child_id: str) -> str:
    """A child's id as a container's name; the id itself where it has no character that a name may not have."""
    name = re.sub(r"[^a-zA-Z0-9_.-]", "-", child_id)
    return name if re.match(r"[a-zA-Z0-9].", name) else f"swell-{name}"


def create_body(place: ContainerPlace, child: ChildSpec, devices: Collection[str]) -> dict[str, Any]:
    """The body that creates a child's container. It holds the child's secrets."""
    needs = child.needs
    port = f"{child.port}/tcp"
    environ = {"HOME": "/tmp", "TMPDIR": "/tmp", **child.env, MARKER: child.child_id}  # noqa: S108  its own tmpfs
    labels = {
        CHILD: child.child_id,
        WORKLOAD: child.workload,
        FINGERPRINT: child.fingerprint,
        INSTALLATION: place.installation,
        PLACE: place.name,
        DEVICES: ",".join(devices),
        MEMORY: str(needs.memory_bytes),
    }
    host: dict[str, Any] = {
        "Init": True,  # a first process that passes signals on and collects what ends
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={place.tmp_bytes}"},  # noqa: S108  engines compile there
        "ShmSize": place.shared_memory_bytes,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": MAX_PROCESSES,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(LOG_FILE_BYTES), "max-file": str(LOG_FILES)},
        },
        "Mounts": [
            {
                "Type": "bind" if mount.source.startswith("/") else "volume",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": True,
            }
            for mount in needs.mounts
        ],
    }
    body: dict[str, Any] = {
        "Image": needs.image,
        "Entrypoint": [child.argv[0]],
        "Cmd": list(child.argv[1:]),
        "Env": [f"{name}={value}" for name, value in environ.items()],
        "Labels": labels,
        "User": place.user,
        "Healthcheck": {"Test": ["NONE"]},  # Swell asks itself
        "HostConfig": host,
    }
    if needs.cpus:
        host["NanoCpus"] = round(needs.cpus * 1e9)
    if needs.memory_bytes:
        host["Memory"] = host["MemorySwap"] = needs.memory_bytes  # no swap: a model in it answers nobody in time
    if devices:
        host["DeviceRequests"] = [{"Driver": "", "DeviceIDs": list(devices), "Capabilities": [["gpu"]]}]
    if place.network:
        host["NetworkMode"] = place.network
    if child.port:
        body["ExposedPorts"] = {port: {}}
        if not place.network:
            host["PortBindings"] = {port: [{"HostIp": LOOPBACK, "HostPort": ""}]}
    return body


def seen_in_list(entry: Mapping[str, Any], place: ContainerPlace) -> Seen:
    """From one entry of the list of containers, which tells no exit code."""
    published = next(
        (
            Address(str(port.get("IP") or LOOPBACK), int(port["PublicPort"]))
            for port in entry.get("Ports") or ()
            if port.get("PublicPort")
        ),
        None,
    )
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    name = str((entry.get("Names") or [""])[0]).lstrip("/")
    return _seen(name, entry.get("Labels") or {}, str(entry.get("State", "")), None, published, networks, place)


def seen_alone(detail: Mapping[str, Any], place: ContainerPlace) -> Seen:
    """From the inspection of one container."""
    state, settings = detail.get("State") or {}, detail.get("NetworkSettings") or {}
    published = None
    for bindings in (settings.get("Ports") or {}).values():
        for binding in bindings or ():
            published = published or Address(str(binding.get("HostIp") or LOOPBACK), int(binding["HostPort"]))
    labels = (detail.get("Config") or {}).get("Labels") or {}
    name = str(detail.get("Name", "")).lstrip("/")
    status = str(state.get("Status", ""))
    return _seen(
        name, labels, status, exit_code_of(state.get("ExitCode")), published, settings.get("Networks") or {}, place
    )


def exit_code_of(code: object) -> int | None:
    """A daemon's exit code as the port tells it: negative for a signal."""
    try:
        number = int(str(code))
    except ValueError:
        return None
    return _SIGNALLED - number if _SIGNALLED < number <= _SIGNALLED + _MOST_SIGNALS else number


def _seen(
    name: str,
    labels: Mapping[str, str],
    state: str,
    exit_code: int | None,
    published: Address | None,
    networks: Mapping[str, Any],
    place: ContainerPlace,
) -> Seen:
    address = published
    if place.network:
        own = str((networks.get(place.network) or {}).get("IPAddress") or "")
        address = Address(own, PORT) if own else None
    is_ours = (labels.get(INSTALLATION), labels.get(PLACE)) == (place.installation, place.name)
    memory = str(labels.get(MEMORY, ""))
    return Seen(
        child_id=str(labels.get(CHILD, "")) if is_ours else "",
        name=name,
        state=state.lower(),
        exit_code=exit_code,
        address=address,
        devices=tuple(filter(None, str(labels.get(DEVICES, "")).split(","))),
        memory_bytes=int(memory) if memory.isdigit() else 0,
    )
