"""How many connections one address may open that do not prove who it is. Pure.

Each takes one of a stock that fills again with time; who shows a certificate that is trusted gives it back. So many
gateways may come from one address, as from behind a NAT, as long as they are gateways, and whoever else opens
connections there is soon refused before anything is worked out for it. An IPv6 network counts as one address: whoever
has one has all of it.
"""

import ipaddress

UNPROVEN_CONNECTIONS = 256  # of an address at once; more than a door's handshakes, so that gateways that come wait
UNPROVEN_PER_SECOND = 16.0  # connections of an address, in the long run
MAX_ADDRESSES = 4096  # that are remembered; then whoever was seen least lately begins anew
NETWORK_BITS = 64  # of IPv6


class Unproven:
    """Of one door. `now` is in seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._stocks: dict[str, tuple[float, float]] = {}  # by address, seen last at the end: what is left, and when

    def admits(self, address: str, now: float) -> bool:
        """Whether another connection of an address may try; one that may counts as unproven from then on."""
        left = self._left(address, now)
        may = left >= 1.0
        self._keep(address, left - 1.0 if may else left, now)
        return may

    def proved(self, address: str, now: float) -> None:
        """One that was admitted has shown who it is."""
        self._keep(address, min(UNPROVEN_CONNECTIONS, self._left(address, now) + 1.0), now)

    def __len__(self) -> int:
        return len(self._stocks)

    def _left(self, address: str, now: float) -> float:
        left, since = self._stocks.get(address, (UNPROVEN_CONNECTIONS, now))
        return min(UNPROVEN_CONNECTIONS, left + (now - since) * UNPROVEN_PER_SECOND)

    def _keep(self, address: str, left: float, now: float) -> None:
        self._stocks.pop(address, None)
        self._stocks[address] = left, now
        if len(self._stocks) > MAX_ADDRESSES:
            del self._stocks[next(iter(self._stocks))]


def source(peer: object) -> str:
    """What counts as the address of a connection, of what the system calls its peer."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, NETWORK_BITS), strict=False))
