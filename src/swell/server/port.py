"""Whether the port can be had, asked before workers share it: SO_REUSEPORT would hide somebody else's listener."""

import errno
import socket

from swell.errors import UserError


def require_free_port(host: str, port: int) -> None:
    """Raise UserError where `port` on `host` is taken or cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UserError(f"the host {host} is not known on this machine; choose another with --host") from error
    with socket.socket(family, kind, protocol) as probe:
        # Without it, connections that have just ended would keep the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise _refusal(error, host, port) from error


def _refusal(error: OSError, host: str, port: int) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"port {port} on {host} is taken by another program; end it, or choose another port with --port "
            "(or server.port in the file)"
        )
    if error.errno == errno.EACCES:
        return UserError(f"port {port} needs more rights than this user has; choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return UserError(f"{host} is no address of this machine; choose another with --host")
    return UserError(f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port")
