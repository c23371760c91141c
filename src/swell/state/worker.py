"""What a gateway worker is started with. Written by the server as JSON (mode 0600), read once by the worker."""

import signal

import msgspec

# Tells a worker that it will be stopped soon. Whoever does not listen to it yet, while starting, is not ended by it.
LEAVE_SIGNAL = signal.SIGWINCH


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds. Every wait in the gateway has one of these as its bound."""

    header_seconds: float = 10.0  # from the first byte of a request to the end of its headers
    body_seconds: float = 60.0  # from the end of the headers to the end of the body
    keep_alive_seconds: float = 75.0  # idle client connection
    connect_seconds: float = 5.0  # to a replica
    first_byte_seconds: float = 300.0  # from sending a request to the response's head
    idle_seconds: float = 120.0  # between two reads of a response
    total_seconds: float = 3600.0  # a whole request
    slow_client_seconds: float = 30.0  # a client that does not read while its buffer is full
    lease_seconds: float = 2.0  # waiting for the server to grant a share of a limit
    drain_seconds: float = 30.0  # running requests after SIGTERM
    snapshot_max_age_seconds: float = 900.0  # serving without a server


class Bounds(msgspec.Struct, frozen=True):
    """Sizes and counts."""

    header_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 16 * 1024 * 1024
    json_depth: int = 64
    response_bytes: int = 64 * 1024 * 1024  # a JSON response held while it arrives
    event_bytes: int = 4 * 1024 * 1024  # one server-sent event
    client_buffer_bytes: int = 256 * 1024  # unread by the client before the upstream is paused
    connections: int = 20_000
    queued_requests: int = 1_000  # waiting, per model and priority class
    pipelined_requests: int = 8
    idle_upstream_connections: int = 256  # per replica
    retries: int = 2  # other tries before the first byte


class ControlServer(msgspec.Struct, frozen=True):
    """Where a server on another machine is, and with which PEM files both prove who they are."""

    addresses: tuple[tuple[str, int], ...]  # host and port; tried in turn, and all that a name stands for
    ca_file: str
    certificate_file: str
    private_key_file: str


class WorkerSettings(msgspec.Struct, frozen=True):
    """Everything a worker is told by its parent."""

    worker_id: int
    incarnation: str  # 12 hex digits, new for every start
    host: str
    port: int
    control_socket: str  # of the server on this machine
    spool_dir: str  # this incarnation's own folder
    pepper_file: str
    certificate_file: str = ""  # PEM chain; empty: plaintext
    private_key_file: str = ""
    spool_sync_seconds: float = 0.1  # what a power cut can lose
    queue_seconds: dict[str, float] = msgspec.field(  # longest wait for a replica, per priority class
        default_factory=lambda: {"interactive": 30.0, "standard": 60.0, "batch": 600.0}
    )
    timeouts: Timeouts = Timeouts()
    bounds: Bounds = Bounds()
    control: ControlServer | None = None  # in the place of `control_socket`
    parent_pid: int = 0  # ends with this process; 0: outlives it
