"""Messages between the server and a gateway on another machine, framed like those of workers (RFC 7).

One connection tells of the workers. On another the spools' reader calls its store: one request at a time, answered in
order.
"""

import msgspec

from swell.state.messages import LENGTH
from swell.state.records import FinalisedSpool, SpoolPosition, UsageChange
from swell.state.worker import Bounds, Timeouts

MAX_NAME_CHARS = 253


class GatewayHello(msgspec.Struct, frozen=True, tag="gateway"):
    """First message of both connections. `gateway` is its state directory's id, `name` what people call it.

    `run` is another one for every process, by which a copy of the state directory is told from a new connection.
    """

    gateway: str
    name: str
    version: str
    run: str = ""


class GatewayReport(msgspec.Struct, frozen=True, tag="report"):
    """Once a second, and at once when it changes: the incarnations of the workers whose processes run."""

    workers: tuple[str, ...]


class GatewaySettings(msgspec.Struct, frozen=True, tag="settings"):
    """What its workers shall be started with, at the beginning of a connection."""

    pepper: bytes
    port: int
    workers: int
    spool_sync_seconds: float
    queue_seconds: dict[str, float]
    timeouts: Timeouts
    bounds: Bounds


class TurnedAway(msgspec.Struct, frozen=True, tag="turned_away"):
    """In the place of settings, and the end of the connection: why this gateway may not serve now."""

    problem: str


class ReportHeard(msgspec.Struct, frozen=True, tag="heard"):
    """The answer to each report: these workers are known now."""

    workers: tuple[str, ...]


class UsageWanted(msgspec.Struct, frozen=True, tag="wanted"):
    """Somebody asks for the ledger up to now: send up what the spools have."""

    token: int


class UsageSent(msgspec.Struct, frozen=True, tag="sent"):
    """The ledger has what was in the spools when `token` came."""

    token: int


class ApplyUsage(msgspec.Struct, frozen=True, tag="apply"):
    """`UsageStore.apply_usage`."""

    changes: list[UsageChange]
    position: SpoolPosition


class AskPosition(msgspec.Struct, frozen=True, tag="position"):
    """`UsageStore.spool_position`."""

    spool: str


class FinaliseSpool(msgspec.Struct, frozen=True, tag="finalise"):
    """`UsageStore.finalise_spool`."""

    spool: str
    damaged: bool


class ForgetSpools(msgspec.Struct, frozen=True, tag="forget"):
    """`UsageStore.forget_spools`, of this gateway's."""

    existing: list[str]


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """To one call. A `problem` means that nothing was changed; whether waiting helps, `retry_after_seconds` tells."""

    position: SpoolPosition | None = None
    finalised: FinalisedSpool | None = None
    problem: str = ""
    retry_after_seconds: float | None = None


UsageCall = ApplyUsage | AskPosition | FinaliseSpool | ForgetSpools
FromGateway = GatewayHello | GatewayReport | UsageSent | UsageCall
ToGateway = GatewaySettings | TurnedAway | ReportHeard | UsageWanted | Answer

_encode = msgspec.msgpack.Encoder().encode
decode_from_gateway = msgspec.msgpack.Decoder(FromGateway).decode
decode_to_gateway = msgspec.msgpack.Decoder(ToGateway).decode


def encode_gateway_message(message: FromGateway | ToGateway) -> bytes:
    """One frame, length included."""
    payload = _encode(message)
    return LENGTH.pack(len(payload)) + payload
