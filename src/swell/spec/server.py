"""How Swell itself listens, waits and bounds. `bounds` and `timeouts` mirror `swell.state.worker` field by field."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from swell.spec.base import Conflict, Count, LocalPath, Seconds, SpecModel, Switch, Text, is_loopback
from swell.spec.store import StoreSpec

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")

Bytes = Annotated[Count, Field(ge=1024, le=16 * 1024**3)]
Number = Annotated[Count, Field(ge=1, le=10_000_000)]


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise PydanticCustomError("host", "is not a host name or an address without brackets and port")
    return value


Host = Annotated[Text, AfterValidator(_host)]


class TimeoutsSpec(SpecModel):
    """Seconds. Every wait in the gateway has one of these as its bound."""

    header_seconds: Seconds = Field(
        default=10.0, description="From the first byte of a request to the end of its headers."
    )
    body_seconds: Seconds = Field(default=60.0, description="From the end of the headers to the end of the body.")
    keep_alive_seconds: Seconds = Field(default=75.0, description="Idle client connection.")
    connect_seconds: Seconds = Field(default=5.0, description="To a replica.")
    first_byte_seconds: Seconds = Field(default=300.0, description="From sending a request to the response's head.")
    idle_seconds: Seconds = Field(default=120.0, description="Between two reads of a response.")
    total_seconds: Seconds = Field(default=3600.0, description="A whole request.")
    slow_client_seconds: Seconds = Field(
        default=30.0, description="A client that does not read while its buffer is full."
    )
    lease_seconds: Seconds = Field(default=2.0, description="Waiting for the server to grant a share of a limit.")
    drain_seconds: Seconds = Field(default=30.0, description="Running requests after SIGTERM.")
    snapshot_max_age_seconds: Seconds = Field(default=900.0, description="Serving without a server.")


class BoundsSpec(SpecModel):
    """Sizes and counts of the gateway, per worker."""

    header_bytes: Bytes = 32 * 1024
    header_count: Number = 100
    body_bytes: Bytes = 16 * 1024 * 1024
    json_depth: Annotated[Count, Field(ge=1, le=500)] = 64
    response_bytes: Bytes = Field(default=64 * 1024 * 1024, description="A JSON response held while it arrives.")
    event_bytes: Bytes = Field(default=4 * 1024 * 1024, description="One server-sent event.")
    client_buffer_bytes: Bytes = Field(
        default=256 * 1024, description="Unread by the client before the upstream is paused."
    )
    connections: Number = 20_000
    queued_requests: Annotated[Count, Field(ge=0, le=1_000_000)] = Field(
        default=1_000, description="Waiting, per model and priority class."
    )
    pipelined_requests: Annotated[Count, Field(ge=1, le=1_000)] = 8
    idle_upstream_connections: Annotated[Count, Field(ge=0, le=100_000)] = Field(
        default=256, description="Per replica."
    )
    retries: Annotated[Count, Field(ge=0, le=10)] = Field(default=2, description="Other tries before the first byte.")


class QueueSeconds(SpecModel):
    """Longest wait for a replica, per priority class."""

    interactive: Seconds = 30.0
    standard: Seconds = 60.0
    batch: Seconds = 600.0


class TlsSpec(SpecModel):
    """TLS on the listener: a certificate with its key, or a local CA made on first use."""

    certificate: LocalPath | None = Field(default=None, description="PEM file, the leaf first.")
    private_key: LocalPath | None = Field(default=None, description="PEM file.")
    local_ca: Switch = False

    def conflicts(self) -> list[Conflict]:
        given = self.certificate, self.private_key
        if self.local_ca and any(given):
            return [("local_ca", "contradicts certificate and private_key; keep one way")]
        if not self.local_ca and not any(given):
            return [("", "says nothing; give certificate and private_key, or local_ca: true")]
        if any(given) and not all(given):
            missing, present = ("private_key", "certificate") if self.certificate else ("certificate", "private_key")
            return [(missing, f"is missing beside {present}; give both")]
        return []


class GatewaysSpec(SpecModel):
    """Where gateways on other machines reach the server. Both sides show a certificate of one private authority."""

    host: Host = "127.0.0.1"
    port: Annotated[Count, Field(ge=1, le=65_535)] = 7443
    ca: LocalPath | None = Field(default=None, description="PEM file of the authority. Without: made on first use.")
    certificate: LocalPath | None = Field(
        default=None, description="PEM file that names the server `server.swell.internal`."
    )
    private_key: LocalPath | None = Field(default=None, description="PEM file.")

    def conflicts(self) -> list[Conflict]:
        files = {"ca": self.ca, "certificate": self.certificate, "private_key": self.private_key}
        missing = [name for name, file in files.items() if file is None]
        if 0 < len(missing) < len(files):
            return [(missing[0], "is missing; give ca, certificate and private_key, or none of them")]
        return []


class ExternalScalerSpec(SpecModel):
    """Where KEDA asks how many replicas a model shall have: an external scaler, by gRPC."""

    host: Host = "127.0.0.1"
    port: Annotated[Count, Field(ge=1, le=65_535)] = 7444
    certificate: LocalPath | None = Field(
        default=None, description="PEM file, the leaf first; read anew when it changes."
    )
    private_key: LocalPath | None = Field(default=None, description="PEM file.")
    client_ca: LocalPath | None = Field(
        default=None, description="PEM file: only who shows a certificate of this authority is answered."
    )
    allow_plaintext_off_loopback: Switch = False

    def conflicts(self) -> list[Conflict]:
        files = {"certificate": self.certificate, "private_key": self.private_key}
        missing = [name for name, file in files.items() if file is None]
        if len(missing) == 1:
            present = next(name for name in files if name not in missing)
            return [(missing[0], f"is missing beside {present}; give both")]
        if not missing:
            return []
        if self.client_ca is not None:
            return [("client_ca", "has no effect in plaintext; give certificate and private_key with it")]
        if not self.allow_plaintext_off_loopback and not is_loopback(self.host):
            advice = "give certificate and private_key, or set allow_plaintext_off_loopback: true"
            problem = "is reachable from other machines and would be spoken to unencrypted"
            return [("host", f"{self.host} {problem}; {advice}")]
        return []


class CustomResourcesSpec(SpecModel):
    """Models and tenants that are declared as custom resources in a namespace of a Kubernetes cluster."""

    kubeconfig: LocalPath | None = Field(
        default=None, description="Credentials; default: the Pod's own, else KUBECONFIG, else ~/.kube/config."
    )
    context: Text | None = Field(default=None, description="Which context of them; default: the current one.")
    namespace: Annotated[Text, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] | None = Field(
        default=None, description="Default: that of the credentials."
    )


class ServerSpec(SpecModel):
    """The server and its gateway workers."""

    host: Host = "127.0.0.1"
    port: Annotated[Count, Field(ge=1, le=65_535)] = 8080
    workers: Annotated[Count, Field(ge=0, le=256)] = Field(default=1, description="Gateway processes on the one port.")
    gateways: GatewaysSpec | None = Field(default=None, description="Gateways on other machines, beside the workers.")
    tls: TlsSpec | None = None
    store: StoreSpec | None = Field(default=None, description="A database in the place of the encrypted file.")
    custom_resources: CustomResourcesSpec | None = Field(
        default=None, description="More models and tenants, from a Kubernetes cluster; {} for the one it runs in."
    )
    external_scaler: ExternalScalerSpec | None = Field(
        default=None, description="Where KEDA asks how many replicas models shall have; {} for this machine alone."
    )
    allow_plaintext_off_loopback: Switch = False
    bounds: BoundsSpec = BoundsSpec()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    queue_seconds: QueueSeconds = QueueSeconds()
    spool_sync_seconds: Annotated[Seconds, Field(ge=0.001, le=60)] = Field(
        default=0.1, description="The most usage a power cut can lose."
    )
    log_bytes: Bytes = Field(default=16 * 1024 * 1024, description="A log file is rotated at this size.")
    log_files: Annotated[Count, Field(ge=0, le=100)] = Field(default=5, description="Rotated files kept per log.")

    def conflicts(self) -> list[Conflict]:
        taken = {self.port: "port"} if self.workers else {}
        taken |= {self.gateways.port: "gateways.port"} if self.gateways else {}
        if self.external_scaler is not None and self.external_scaler.port in taken:
            port = self.external_scaler.port
            return [("external_scaler.port", f"{port} is {taken[port]} too; give each a port of its own")]
        if self.workers == 0 and self.gateways is None:
            return [
                ("workers", "is 0, so that nobody could be served; give 1 or more, or say where gateways come from")
            ]
        if self.workers == 0:
            return []
        if self.tls is None and not self.allow_plaintext_off_loopback and not is_loopback(self.host):
            advice = "add tls (local_ca: true makes a certificate), or set allow_plaintext_off_loopback: true"
            return [
                ("host", f"{self.host} is reachable from other machines and would carry keys unencrypted; {advice}")
            ]
        return []
