"""Unix sockets that only their owner may open."""

import socket
from pathlib import Path


def private_socket(path: Path) -> socket.socket:
    """A bound stream socket at `path`, mode 0600, in place of one that a dead server left.

    Between binding and narrowing the mode nobody else can connect: the folder is 0700.
    """
    remove_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    path.chmod(0o600)
    return bound


def remove_socket(path: Path) -> None:
    """Remove the socket's file, if it is there."""
    path.unlink(missing_ok=True)
