"""Messages between the server and its gateway workers, over one connection per worker.

Frame: `<u32 length>` big-endian, then msgpack of one message (a tagged union).

Leases. A limit is named `<scope>:<id>:<measure>`, such as `key:ab12:requests_per_minute` or
`tenant:search:concurrent_requests`. The worker keeps a balance per limit; the server keeps, per worker
incarnation, what it granted and has not seen reported. Everything granted counts as spent until it is
reported as used or returned, so a worker that dies can never make a limit overshoot. Messages from
another incarnation than the connection's are ignored.
"""

import struct

import msgspec

from swell.state.snapshot import Delta, Snapshot

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")


class LimitBalance(msgspec.Struct, frozen=True):
    """What a worker holds of a limit, and what it used of it in the last minute; of a budget, since it began."""

    limit: str
    held: int
    used_last_minute: int


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message of a worker. Epoch and sequence of the last snapshot it has, or 0."""

    worker_id: int
    incarnation: str
    pid: int
    epoch: int
    sequence: int
    balances: tuple[LimitBalance, ...] = ()


class LeaseRequest(msgspec.Struct, frozen=True, tag="lease_request"):
    """The worker needs at least `amount` more of `limit`; of a budget, for a request that needs `need` in all."""

    limit: str
    amount: int
    need: int = 0


class LeaseReport(msgspec.Struct, frozen=True, tag="lease_report"):
    """Of what was granted, `used` is spent and `returned` goes back."""

    limit: str
    used: int
    returned: int


class LeaseGrant(msgspec.Struct, frozen=True, tag="lease_grant"):
    """Add `amount` to the balance. `limit_value` and `remaining` feed the rate-limit headers."""

    limit: str
    amount: int
    limit_value: int
    remaining: int


class LeaseDeny(msgspec.Struct, frozen=True, tag="lease_deny"):
    """No room; trying again makes sense after `retry_after_seconds`.

    Of a budget, `is_final` tells that no reservation that comes back would help, and `remaining` what is not spent.
    """

    limit: str
    limit_value: int
    retry_after_seconds: float
    is_final: bool = False
    remaining: int = 0


class LeaseRecall(msgspec.Struct, frozen=True, tag="lease_recall"):
    """Another worker needs this limit: return what is idle, now."""

    limit: str


class ReplicaLoad(msgspec.Struct, frozen=True):
    """One worker's view of one replica."""

    replica_id: str
    in_flight: int
    outstanding_tokens: int
    ejected: bool
    failures: int


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One metric sample; the server sums samples of equal name and labels over workers."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class ModelLoad(msgspec.Struct, frozen=True, array_like=True):
    """One worker's view of one model. What is not a gauge is a sum since the worker began, and never falls."""

    name: str
    arrivals: int = 0
    arrived_prompt_tokens: int = 0
    completed: int = 0  # answered requests; the sums of their prompt (n) and output (o) lengths follow
    n_sum: int = 0
    n2_sum: int = 0
    o_sum: int = 0
    o2_sum: int = 0
    no_sum: int = 0
    decoded_tokens: int = 0  # those of open requests included
    judged: int = 0  # requests of which it is known whether they met the objectives
    attained: int = 0
    ttft_ms_sum: float = 0.0  # over the completed
    itl_ms_sum: float = 0.0
    open_seconds: float = 0.0  # from arrival to end, or until now, over all requests
    in_flight: int = 0  # gauge: sent to replicas
    queued: int = 0  # gauge
    oldest_queued_seconds: float = 0.0  # gauge
    batch: "ModelLoad | None" = None  # what of all this requests of priority batch are; None: there was none


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Once a second, on connecting, and at once when a request finds a model without replicas."""

    in_flight: int
    queued: int
    replicas: tuple[ReplicaLoad, ...]
    samples: tuple[Sample, ...]
    models: tuple[ModelLoad, ...] = ()  # those that were asked for since the worker began


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """Over a network, the answer to each load: a connection that has gone dead is told from a server with no news."""


class MetricsRequest(msgspec.Struct, frozen=True, tag="metrics_request"):
    """A client asked this worker for /metrics; `token` comes back with the answer."""

    token: int


class MetricsResponse(msgspec.Struct, frozen=True, tag="metrics_response"):
    """The exposition text over all workers and the server."""

    token: int
    text: bytes


FromWorker = Hello | LeaseRequest | LeaseReport | Load | MetricsRequest
FromServer = Snapshot | Delta | LeaseGrant | LeaseDeny | LeaseRecall | MetricsResponse | Heard

_encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_server = msgspec.msgpack.Decoder(FromServer).decode


def encode_message(message: FromWorker | FromServer) -> bytes:
    """One frame, length included."""
    payload = _encode(message)
    return LENGTH.pack(len(payload)) + payload


class FrameBuffer:
    """Cuts a byte stream into frames. Raises ValueError at a frame over `MAX_MESSAGE_BYTES`."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data`; return the payloads that are now complete."""
        self._data += data
        frames: list[bytes] = []
        while len(self._data) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._data)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a control message of {length} bytes is over the bound of {MAX_MESSAGE_BYTES}")
            end = LENGTH.size + length
            if len(self._data) < end:
                break
            frames.append(bytes(self._data[LENGTH.size : end]))
            del self._data[:end]
        return frames
