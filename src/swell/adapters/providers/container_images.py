"""Pulling images: each once, whoever waits for it, bounded, and told as it goes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swell.adapters.providers.container_api import DockerApi, RefusedError, json_lines, launch_error, message_of
from swell.errors import LaunchFailed

PULL_SECONDS = 3600.0  # tens of GB through a slow line
PULL_SILENCE_SECONDS = 300.0  # unpacking one large layer says nothing for minutes
MAX_LAYERS = 1000
_GB, _MB = 1e9, 1e6
_ADVICE = "; check its name in providers[].images, and that the daemon may pull it"


@dataclass
class PullProgress:
    """How far a pull is: bytes by layer, of those whose size is known."""

    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def hear(self, line: Mapping[str, Any]) -> None:
        """One line of a pull. Layers are told when they are downloaded, then again when they are unpacked."""
        detail, layer = line.get("progressDetail") or {}, str(line.get("id", ""))
        if line.get("status") == "Downloading" and (layer in self.total or len(self.total) < MAX_LAYERS):
            self.done[layer] = int(detail.get("current") or 0)
            self.total[layer] = max(self.done[layer], int(detail.get("total") or 0))
        elif line.get("status") in ("Download complete", "Pull complete") and layer in self.total:
            self.done[layer] = self.total[layer]

    def text(self) -> str:
        """Such as `340 MB of 4.1 GB`; empty before anything is known."""
        total = sum(self.total.values())
        return f"{_size(sum(self.done.values()))} of {_size(total)}" if total else ""


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB else f"{count / _MB:.0f} MB"


class Images:
    """What a daemon is asked to pull."""

    def __init__(self, api: DockerApi) -> None:
        self._api = api
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, PullProgress] = {}

    async def pull(self, image: str) -> None:
        """Return when the daemon has it. Raises LaunchFailed or AtCapacity. Cancelling one who waits ends no pull."""
        task = self._pulls.get(image)
        if task is None:
            self._progress[image] = PullProgress()
            task = self._pulls[image] = asyncio.get_running_loop().create_task(self._pull(image))
            task.add_done_callback(self._forgetter(image))
        await asyncio.shield(task)

    def waiting(self, image: str) -> str:
        """How it goes, for people."""
        progress = self._progress.get(image)
        text = progress.text() if progress else ""
        return f"image {image} is pulled ({text})" if text else f"image {image} is pulled"

    async def close(self) -> None:
        """End every pull."""
        tasks = list(self._pulls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forgetter(self, image: str) -> Callable[[asyncio.Task[None]], None]:
        def forget(task: asyncio.Task[None]) -> None:
            self._pulls.pop(image, None)
            self._progress.pop(image, None)
            if not task.cancelled():
                task.exception()  # whoever waited was told; nobody may be left who did

        return forget

    async def _pull(self, image: str) -> None:
        what = f"cannot pull image {image}"
        try:
            async with asyncio.timeout(PULL_SECONDS):
                await self._read(image, what)
        except RefusedError as refused:
            raise launch_error(refused, what, advice=_ADVICE) from refused
        except TimeoutError as error:
            raise LaunchFailed(f"{what}: it took more than {PULL_SECONDS:g} s; pull it by hand") from error

    async def _read(self, image: str, what: str) -> None:
        params = {
            "fromImage": image if _is_exact(image) else f"{image}:latest"
        }  # without a tag all tags would be pulled
        stream = self._api.stream("POST", "/images/create", params, silence_seconds=PULL_SILENCE_SECONDS)
        async with stream as answer:
            async for line in json_lines(answer):
                if "error" in line:
                    reason = message_of(str(line["error"]).encode())
                    raise launch_error(RefusedError(0, reason), what, advice=_ADVICE)
                self._progress[image].hear(line)


def _is_exact(image: str) -> bool:
    return "@" in image or ":" in image.rpartition("/")[2]
