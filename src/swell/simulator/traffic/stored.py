"""The bytes of a file, in pieces, plain or decompressed. Its first bytes say which; its name does not matter."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from swell.errors import UserError

PIECE_BYTES = 4 * 1024 * 1024  # decompressed, roughly; bounds what is held of a file at a time
LINE_BYTES = 64 * 1024 * 1024  # no line of a trace is longer

_FED_BYTES = 32 * 1024  # compressed, at a time: even input of the highest ratio then comes out in bounded pieces
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHERS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def whole_lines(path: Path) -> Iterator[bytes]:
    """The file's text in pieces of about PIECE_BYTES, each of whole lines; only the last may lack its line's end."""
    held: list[bytes] = []
    held_bytes = 0
    for piece in pieces(path):
        cut = piece.rfind(b"\n") + 1
        if cut and held_bytes + cut >= PIECE_BYTES:
            yield b"".join([*held, piece[:cut]])
            held, held_bytes, piece = [], 0, piece[cut:]  # noqa: PLW2901 -- the rest of the piece begins the next one
        held.append(piece)
        held_bytes += len(piece)
        if held_bytes > LINE_BYTES:
            raise UserError(f"{path}: a line is longer than {LINE_BYTES:,} bytes, so this is not a trace")
    if held_bytes:
        yield b"".join(held)


def pieces(path: Path) -> Iterator[bytes]:
    """The file's text in pieces of any length, without a byte order mark."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            first = True
            for piece in _decompressed(path, file, start):
                text = piece.removeprefix(_BYTE_ORDER_MARK) if first else piece
                first = False
                if text:
                    yield text
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path}: its compressed data is damaged or cut short ({error}); fetch the file again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def _decompressed(path: Path, file: BinaryIO, start: bytes) -> Iterator[bytes]:
    if start.startswith(_GZIP):
        with gzip.GzipFile(fileobj=file) as inner:
            yield from _read(inner)
    elif start.startswith(_ZSTD):
        yield from _unpacked(file)
    else:
        for magic, kind in _OTHERS.items():
            if start.startswith(magic):
                raise UserError(f"{path}: is {kind}; give CSV or JSON lines, plain or compressed with gzip or zstd")
        yield from _read(file)


def _read(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Frame by frame, because the library's own stream reader takes a frame that was cut short for a whole one."""
    frame = None
    while fed := file.read(_FED_BYTES):
        while fed:
            if frame is None:
                frame = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
            yield frame.decompress(fed)
            fed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame has no end")
