"""Where a server on another machine may be: each address that the given names stand for, by itself.

A connection to a name of several addresses waits for the first of them, and a machine that is gone answers nothing. So
each has a time of its own.
"""

import asyncio
import socket
from collections.abc import AsyncIterator

from swell.state.worker import ControlServer

RESOLVE_SECONDS = 5.0  # one name
MAX_ADDRESSES = 16  # of one name that are tried


async def server_addresses(control: ControlServer) -> AsyncIterator[tuple[str, int]]:
    """In the order in which they are given; a name that cannot be resolved now stands for itself."""
    for name, port in control.addresses:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except OSError:
            yield name, port  # whoever connects is told why it cannot
            continue
        for *_, address in found[:MAX_ADDRESSES]:
            yield str(address[0]), int(address[1])
