"""A TCP proxy before Postgres that cuts a connection at a COMMIT: before Postgres has it, or before it is answered."""

import contextlib
import socket
import threading
from typing import Literal, Self

Cut = Literal["before", "after"]
_COMMIT = b"COMMIT\0"
_READ_BYTES = 65_536
_WAIT_SECONDS = 10.0


class CommitCutter:
    """`cut_next("after")` lets the next COMMIT reach Postgres and keeps its answer from whoever sent it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut: Cut | None = None
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            _close(each)
        for thread in self._threads:
            thread.join(_WAIT_SECONDS)

    def cut_next(self, how: Cut) -> None:
        """Cut the connection over which the next COMMIT comes."""
        self._cut = how

    def _begin(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    _close(client)
                    continue
                self._sockets += [client, server]
                is_muted = threading.Event()
                self._begin(self._to_server, client, server, is_muted)
                self._begin(self._to_client, server, client, is_muted)

    def _to_server(self, client: socket.socket, server: socket.socket, is_muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_READ_BYTES):
                if self._cut is not None and _COMMIT in data:
                    how, self._cut = self._cut, None
                    if how == "before":
                        break
                    is_muted.set()
                server.sendall(data)
        _close(client)
        _close(server)

    def _to_client(self, server: socket.socket, client: socket.socket, is_muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_READ_BYTES):
                if is_muted.is_set():  # this is the answer to the COMMIT
                    break
                client.sendall(data)
        _close(client)
        _close(server)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
