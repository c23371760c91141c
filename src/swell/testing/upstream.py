"""A scripted upstream: answers as an inference engine would, as fast as Python can, or as badly as told.

    python -m swell.testing.upstream --port 9101 --journal journal.jsonl --tokens-chunks 64

Tests start it in their own loop: `async with Upstream() as upstream: … upstream.url`. How an answer is
scripted stands in `upstream_script`. Control endpoints, which no gateway forwards:

    PUT  /_upstream/script    a script as JSON, for every request that brings none
    GET  /_upstream/stats     counts, as in `Stats`
    POST /_upstream/release   let every held answer (`hang_after`) go on
    POST /_upstream/drop      reset every open connection
"""

import argparse
import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
import uvloop

from swell.testing.upstream_connection import Connection, Seen, Stats, UpstreamState
from swell.testing.upstream_journal import Journal
from swell.testing.upstream_script import MAX_CHUNKS, Script, decode_script

__all__ = ["Seen", "Stats", "Upstream"]

BACKLOG = 4096


class Upstream(UpstreamState):
    """The upstream in the running loop. `port` 0 chooses a free one; `record` keeps requests in `seen`."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        script: Script | None = None,
        models: tuple[str, ...] = ("m",),
        journal_path: Path | None = None,
        record: bool = True,
    ) -> None:
        super().__init__(script=script or Script(), models=models, record=record)
        self.host = host
        self.port = port
        self._journal_path = journal_path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; afterwards `port` and `url` are final."""
        if self._journal_path is not None:
            self.journal = Journal(self._journal_path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        self.drop()
        if self._server is not None:
            await self._server.wait_closed()
        await self.until(lambda: not self.connections)
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
        """Wait until `condition` holds, looking again at each request, outcome or connection; TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                self.change.clear()
                await self.change.wait()


async def _serve(upstream: Upstream) -> None:
    async with upstream:
        print(f"scripted upstream on {upstream.url}", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m swell.testing.upstream", description="A scripted upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one, which is printed")
    parser.add_argument("--journal", type=Path, help="append a line per request and per outcome to this file")
    parser.add_argument("--tokens-chunks", type=int, help="content chunks per answer (default: the script's, 64)")
    parser.add_argument("--script", default="{}", help="default script as JSON")
    parser.add_argument("--model", action="append", help="name listed by /v1/models; may be repeated")
    options = parser.parse_args()
    script = decode_script(options.script)
    if options.tokens_chunks is not None:
        if not 0 <= options.tokens_chunks <= MAX_CHUNKS:
            parser.error(f"--tokens-chunks must be 0 to {MAX_CHUNKS}")
        script = msgspec.structs.replace(script, chunks=options.tokens_chunks)
    upstream = Upstream(
        host=options.host,
        port=options.port,
        script=script,
        models=tuple(options.model or ["m"]),
        journal_path=options.journal,
        record=False,
    )
    uvloop.run(_serve(upstream))


if __name__ == "__main__":
    main()
