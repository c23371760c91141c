"""The scripted upstream of `swell.testing` in a thread of its own, for tests that speak to a real `swell up`."""

import asyncio
import threading
from pathlib import Path
from typing import Self

from swell.testing.upstream import Seen, Upstream
from swell.testing.upstream_journal import Line, read_journal
from swell.testing.upstream_script import Script

START_SECONDS = 10.0


class UpstreamThread:
    """Runs one `Upstream`; `seen` and `journal` tell what reached it."""

    def __init__(self, journal_path: Path, script: Script | None = None, port: int = 0) -> None:
        self._journal_path = journal_path
        self._upstream = Upstream(journal_path=journal_path, script=script or Script(), port=port)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="scripted upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise AssertionError("the scripted upstream did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)
        self._loop.close()

    @property
    def url(self) -> str:
        return self._upstream.url

    @property
    def seen(self) -> list[Seen]:
        """Every request that arrived, oldest first."""
        return list(self._upstream.seen)

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return self._upstream.stats.in_flight

    @property
    def held(self) -> int:
        """Answers that stand still until `release`."""
        return len(self._upstream.held)

    def journal(self) -> list[Line]:
        """Every line written so far."""
        return read_journal(self._journal_path)

    def set_script(self, script: Script) -> None:
        """What requests without a script of their own are answered with from now on."""
        self._upstream.script = script

    def release(self) -> None:
        """Let every held answer go on."""
        self._loop.call_soon_threadsafe(self._upstream.release)

    def drop(self) -> None:
        """Reset every open connection."""
        self._loop.call_soon_threadsafe(self._upstream.drop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with self._upstream:
            self._ready.set()
            await self._stop.wait()
