"""How much of what was written to a connection has reached the other machine.

A transport's write buffer does not tell: TLS hands all it has to the transport beneath, whose buffer nobody sees.
"""

import asyncio
import socket
import struct

_TCP_INFO_BYTES, _ACKED_AT = 128, 120  # of Linux's tcp_info: as much of it as is read, and where tcpi_bytes_acked is


def acknowledged_bytes(transport: asyncio.BaseTransport) -> int | None:
    """What the other machine has acknowledged since the connection began, TLS's own bytes included.

    None where nobody counts: for a socket that is closed or not TCP's, or by a kernel that is too old.
    """
    link = transport.get_extra_info("socket")
    if link is None:
        return None
    try:
        known = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (acknowledged,) = struct.unpack_from("=Q", known, _ACKED_AT)
    except (OSError, struct.error):
        return None
    return int(acknowledged)
