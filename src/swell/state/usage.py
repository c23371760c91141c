"""Usage records and the spool's frame format, shared by the gateway (writes) and metering (reads).

A request leaves up to three records in the spool of the worker that served it:

1. `Reserved`, before anything goes out, with the request's bound. `sent` tells whether the request
   goes to a replica in the same breath.
2. `Sent`, only where the request had to wait in a queue first, immediately before it goes out.
3. `Settled`, once, when the outcome is known.

A record without `Settled` from a dead worker stands at its bound if it was sent (the engine may have
done the work) and is void if it was not.

Frame: `<u32 length><u32 crc32>` little-endian, then `length` bytes of msgpack. A segment is
preallocated and zero-filled; a zero length ends it. The payload is written before the header, so a
worker killed between the two leaves a zero length and not a torn record; the checksum catches what a
power cut can tear.
"""

import mmap
import struct
import time
import zlib
from collections.abc import Iterator
from enum import StrEnum

import msgspec

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENT_SUFFIX = ".spool"
LOCK_NAME = "lock"  # flock'd by the living worker inside its spool folder
MAX_RECORD_BYTES = 4096

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size


def id_prefix(month: str) -> str:
    """What the ids of requests of a month such as `202611` begin with: the ledger in Postgres is cut there."""
    return f"req-{month}-"


def month_at(unix: float) -> str:
    """The month of UTC as requests' ids have it."""
    return time.strftime("%Y%m", time.gmtime(unix))


class UsageStatus(StrEnum):
    """How far a request's usage is known."""

    RESERVED = "reserved"  # sent, outcome unknown: counts at its bound
    SETTLED = "settled"  # tokens as the engine reported them
    ESTIMATED = "estimated"  # cut short: tokens as Swell counted what was delivered
    VOID = "void"  # never reached a replica: counts nothing


class Reserved(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """A request's bound, written before it goes out. Tokens are upper bounds, and so is what they are charged at.

    Rates are nano-dollars per million tokens. `at_unix_ms` is when it was admitted: its period follows from that.
    """

    request_id: str
    at_unix_ms: int
    key_id: str
    tenant: str
    model: str
    endpoint: str
    prompt_tokens: int
    completion_tokens: int
    sent: bool
    prompt_rate: int = 0
    completion_rate: int = 0
    charge_usd_nanos: int = 0


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """A queued request goes out now."""

    request_id: str


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """The outcome. `status` is settled, estimated or void; durations are -1 where unknown.

    Of the prompt tokens, `cached_tokens` were found in a prefix cache; 0 also where the engine did not say, and in
    records of versions that did not ask.
    """

    request_id: str
    at_unix_ms: int
    status: str
    prompt_tokens: int
    completion_tokens: int
    replica_id: str
    http_status: int
    duration_ms: int
    first_token_ms: int
    charge_usd_nanos: int = 0
    cached_tokens: int = 0


SpoolRecord = Reserved | Sent | Settled

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SpoolRecord).decode


encode_payload = _encode
pack_header = _HEADER.pack  # (length, crc32): written at a frame's beginning in one piece, it makes the frame valid


def encode_frame(record: SpoolRecord) -> tuple[bytes, bytes]:
    """Header and payload of one frame, apart, because the payload must be written first."""
    payload = _encode(record)
    return _HEADER.pack(len(payload), zlib.crc32(payload)), payload


def read_frames(segment: bytes | mmap.mmap, offset: int = 0) -> Iterator[tuple[SpoolRecord, int]]:
    """Yield `(record, offset after it)` from `offset` until the first unwritten or damaged frame.

    A damaged frame ends the segment: what follows it cannot be trusted to be aligned. The caller
    tells the two apart with `is_damaged`.
    """
    size = len(segment)
    unpack, crc32 = _HEADER.unpack_from, zlib.crc32  # every request passes here twice
    start = offset + HEADER_BYTES
    while start <= size:
        length, checksum = unpack(segment, offset)
        end = start + length
        if length == 0 or length > MAX_RECORD_BYTES or end > size:
            return
        payload = segment[start:end]
        if crc32(payload) != checksum:
            return
        try:
            record = _decode(payload)
        except msgspec.DecodeError:
            return
        yield record, end
        offset = end
        start = end + HEADER_BYTES


def is_damaged(segment: bytes | mmap.mmap, offset: int) -> bool:
    """Whether the frame at `offset` was begun but cannot be read (as opposed to never written)."""
    if offset + HEADER_BYTES > len(segment):
        return False
    length, _ = _HEADER.unpack_from(segment, offset)
    return length != 0 and next(read_frames(segment, offset), None) is None
