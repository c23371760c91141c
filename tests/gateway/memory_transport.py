"""A transport in memory: what would go over a socket is kept, and the test plays the other end."""

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path

from gateway_under_test import PEPPER

from swell.gateway.client import ClientConnection
from swell.gateway.service import Service
from swell.gateway.upstream import UpstreamConnection, UpstreamPool
from swell.security.keys import digest_key, new_key
from swell.state.snapshot import KeyDigest, KeyEntry, ModelEntry, ReplicaEntry, Snapshot
from swell.state.usage import Settled, read_frames
from swell.state.worker import WorkerSettings


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; notes whether reading is paused and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.reading = True
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data
        self.on_write()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True


class MemoryGateway:
    """A service without sockets: one client connection at a time, one kept connection to one replica."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "pepper").write_bytes(PEPPER)
        settings = WorkerSettings(
            worker_id=0, incarnation="0123456789ab", host="127.0.0.1", port=0, control_socket="",
            spool_dir=str(folder / "spool"), pepper_file=str(folder / "pepper"),
        )  # fmt: skip
        self.service = Service(settings)
        key_id, self.token = new_key()
        key = KeyEntry(key_id, "t", (KeyDigest(digest_key(PEPPER, self.token)),))
        endpoints = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
        replica = ReplicaEntry("m-0", "127.0.0.1", 1)
        model = ModelEntry(name="m", upstream_model="m", endpoints=endpoints, replicas=(replica,))
        self.service.directory.apply(Snapshot(1, 1, 1, (model,), (key,), ()))
        self._folder = folder / "spool"
        self._read_up_to: dict[Path, int] = {}
        self._last: Settled | None = None
        self.client, self.client_transport = self._client()

    def _client(self) -> tuple[ClientConnection, MemoryTransport]:
        client, transport = ClientConnection(self.service), MemoryTransport()
        client.connection_made(transport)
        return client, transport

    def replica(self) -> tuple[UpstreamConnection, MemoryTransport]:
        """A fresh kept connection, which the next request takes."""
        pool = self.service.directory.models["m"].replicas["m-0"].connector
        assert isinstance(pool, UpstreamPool)
        connection, transport = UpstreamConnection(pool), MemoryTransport()
        connection.connection_made(transport)
        pool.put(connection)
        return connection, transport

    def exchange(self, request: bytes, answer: list[bytes], *, then_close: bool = False) -> bytes:
        """What the client gets for `request` when the replica's answer arrives in these reads."""
        if self.client_transport.closed:
            self.client.connection_lost(None)
            self.client, self.client_transport = self._client()
        connection, transport = self.replica()
        self.client_transport.written.clear()
        try:
            self.client.data_received(request)
            assert transport.written.startswith(b"POST "), bytes(self.client_transport.written)
            for piece in answer:
                if transport.closed:
                    break
                connection.data_received(piece)
            if then_close or transport.closed:
                connection.connection_lost(None)
            assert not self.service.exchanges
            return bytes(self.client_transport.written)
        finally:
            self._empty_pool()
            for exchange in list(self.service.exchanges):
                exchange.client_left()

    def last_settled(self) -> Settled:
        """The last outcome in the spool."""
        for path in sorted(self._folder.glob("*.spool")):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
                start = self._read_up_to.get(path, 0)
                for record, end in read_frames(pages, start):
                    self._read_up_to[path] = end
                    if isinstance(record, Settled):
                        self._last = record
        assert self._last is not None
        return self._last

    def close(self) -> None:
        self.client.connection_lost(None)
        self.service.spool.close()

    def _empty_pool(self) -> None:
        pool = self.service.directory.models["m"].replicas["m-0"].connector
        assert isinstance(pool, UpstreamPool)
        while (kept := pool.take()) is not None:
            kept.connection_lost(None)
