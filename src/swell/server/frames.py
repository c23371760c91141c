"""Frames of control messages (`swell.state.messages`), read whole from a stream or from a blocking socket."""

import asyncio
import socket

from swell.state.messages import LENGTH, MAX_MESSAGE_BYTES


async def read_frame(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """The next payload. Raises TimeoutError, EOFError where the stream ended, ValueError for one that is too long."""
    async with asyncio.timeout(seconds):
        return await reader.readexactly(_length(await reader.readexactly(LENGTH.size)))


def receive_frame(connection: socket.socket) -> bytes:
    """The same; how long it waits is the socket's to say."""
    return _exactly(connection, _length(_exactly(connection, LENGTH.size)))


def _length(head: bytes) -> int:
    (length,) = LENGTH.unpack(head)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes is over the bound of {MAX_MESSAGE_BYTES}")
    return int(length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        piece = connection.recv(count - len(content))
        if not piece:
            raise EOFError("it closed the connection")
        content += piece
    return bytes(content)
