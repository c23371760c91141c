"""Free ports on loopback."""

import socket
from collections.abc import Collection

from swell.errors import AtCapacity

TRIES = 64
RETRY_SECONDS = 5.0


def free_port(taken: Collection[int]) -> int:
    """A port of 127.0.0.1 that nobody listens on, and none of `taken`. Raises AtCapacity where none is to be had.

    Somebody may take it before the child does; then the child ends, and its next start gets another one.
    """
    for _ in range(TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
    raise AtCapacity("found no free port on 127.0.0.1; stop something that listens", retry_after_seconds=RETRY_SECONDS)
