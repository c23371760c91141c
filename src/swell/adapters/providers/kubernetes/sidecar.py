"""The container that stands in front of an engine and asks gateways for certificates. Pure.

It is a native sidecar (an init container that goes on), so that it is there before the engine and ends after it. The
engine listens on loopback; what comes in from outside is TLS on PORT, and a kubelet's probes on HEALTH_PORT.
"""

from collections.abc import Mapping
from typing import Any

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.ports.provider import ChildSpec
from swell.security.replica_tls import gateway_name

SIDECAR = "tls"  # name of the container
PORT = 8000  # where gateways reach a Pod, with TLS or without
HEALTH_PORT = 8001
ENGINE_PORT = 8002  # of loopback
MODULE = "swell.server.replica_sidecar"
PYTHON = "python3"  # of Swell's gateway image
CERTIFICATE = "certificate"  # name of the volume
FOLDER = "/certificate"
OWNER_AND_GROUP = 0o440
CPU, MEMORY, MOST_MEMORY = "50m", "64Mi", "256Mi"  # MAX_CONNECTIONS of them, all of whose readers are slow, are 150 MiB


def container(child: ChildSpec, settings: ClusterSettings, security: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar of a child that needs one. Cores may be exceeded: a limit would slow streams down."""
    assert child.needs.tls is not None  # noqa: S101  its caller looked
    command = [
        PYTHON,
        "-m",
        MODULE,
        f"--folder={FOLDER}",
        f"--client={gateway_name(settings.installation)}",
        f"--port={PORT}",
        f"--engine-port={child.port}",
    ]
    if child.lifecycle.health_path:
        command += [f"--health-port={HEALTH_PORT}", f"--health-path={child.lifecycle.health_path}"]
    return {
        "name": SIDECAR,
        "image": child.needs.tls.image,
        "restartPolicy": "Always",
        "command": command,
        "ports": [{"name": SIDECAR, "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": CPU, "memory": MEMORY}, "limits": {"memory": MOST_MEMORY}},
        "securityContext": dict(security),
        "volumeMounts": [{"name": CERTIFICATE, "mountPath": FOLDER, "readOnly": True}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def volume(child: ChildSpec) -> dict[str, Any]:
    """Its certificate, which the kubelet renews in place. A Pod waits until the Secret is there."""
    secret = names.certificate_name(names.object_name(child.workload, child.fingerprint))
    return {"name": CERTIFICATE, "secret": {"secretName": secret, "defaultMode": OWNER_AND_GROUP}}


def probed_port(child: ChildSpec) -> int:
    """Where the kubelet asks for a child's health: it has no certificate to show."""
    return child.port if child.needs.tls is None else HEALTH_PORT
