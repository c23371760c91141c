"""Which addresses alerts may be sent to.

A name is resolved once, all its addresses are judged, and the connection goes to one of those: a name that changes
its address in between cannot lead into the machine's own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from swell.errors import RetryLater
from swell.ports.alert_sink import RETRY_SECONDS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host, best first. Raises RetryLater where there are none."""

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")  # behind a carrier's NAT, and VPNs


async def resolve(host: str, port: int) -> list[str]:
    """As the machine resolves names."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = "its name cannot be resolved; check the name and the network"
        raise RetryLater(f"{host}: {reason}", retry_after_seconds=RETRY_SECONDS) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_loopback_address(text: str) -> bool:
    """Whether the address is this machine itself."""
    return _plain(text).is_loopback


def why_refused(text: str, *, allow_private: bool) -> str:
    """Why nothing may be sent to the address, as the end of a sentence; empty where it may."""
    address = _plain(text)
    if address.is_multicast or address.is_unspecified:
        return "is not the address of one machine; correct the URL"
    is_shared = address.version == 4 and address in _SHARED
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    is_inside = address.is_private or address.is_loopback or address.is_link_local or is_shared or is_site_local
    if is_inside and not allow_private:
        return "is inside this network; set allow_private: true if that is meant"
    return ""


def _plain(text: str) -> Address:
    """The address, as IPv4 where it only wraps one."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
