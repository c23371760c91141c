"""Frames of control messages (`swell.state.messages`), read whole from a stream or from a blocking socket."""

import asyncio
import socket

from swell.state.messages import LENGTH, MAX_MESSAGE_BYTES


async def read_frame(reader: asyncio.StreamReader, seconds: float, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """The next payload. Raises TimeoutError, EOFError where the stream ended, ValueError for one that is too long."""
    async with asyncio.timeout(seconds):
        return await reader.readexactly(_length(await reader.readexactly(LENGTH.size), max_bytes))


def receive_frame(connection: socket.socket) -> bytes:
    """The same; how long it waits is the socket's to say."""
    return _exactly(connection, _length(_exactly(connection, LENGTH.size)))


def _length(head: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> int:
    (length,) = LENGTH.unpack(head)
    if length > max_bytes:
        raise ValueError(f"a message of {length} bytes is over the bound of {max_bytes}")
    return int(length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        piece = connection.recv(count - len(content))
        if not piece:
            raise EOFError("it closed the connection")
        content += piece
    return bytes(content)
