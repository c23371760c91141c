"""The provider suite's world on real containers."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

from swell.adapters.providers.container import ContainerProvider
from swell.adapters.providers.container_body import CHILD, INSTALLATION, ContainerPlace, container_name
from swell.ports.provider import ChildHandle, ChildSpec, Needs
from swell.testing.docker_daemon import DockerDaemon
from swell_process import wait_until

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.02

STEADY = "import signal; print('steady', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('steady', flush=True)\nwhile True: signal.pause()"


class ContainerHarness:
    """Containers of one installation, all removed with the test."""

    def __init__(self, docker: DockerDaemon, image: str, folder: Path) -> None:
        self.docker = docker
        self.image = image
        self.folder = folder
        self.installation = secrets.token_hex(8)
        self.place = ContainerPlace("here", docker.socket, self.installation, user="65532:65532")
        self._providers: list[ContainerProvider] = []
        self._killers: list[Thread] = []

    @property
    def labels(self) -> dict[str, str]:
        """What every container of this harness bears."""
        return {INSTALLATION: self.installation}

    def provider(
        self, place: ContainerPlace | None = None, on_exit: Callable[[str], None] | None = None
    ) -> ContainerProvider:
        provider = ContainerProvider(place or self.place, on_exit)
        self._providers.append(provider)
        return provider

    def python(self, code: str, *arguments: str, needs: Needs | None = None, port: int = 0) -> ChildSpec:
        """A child that runs `code`."""
        child_id = f"test-{secrets.token_hex(8)}"
        log = self.folder / "logs" / f"{child_id}.log"
        argv = ("python3", "-c", code, *arguments)
        needs = needs or Needs(image=self.image)
        return ChildSpec(child_id, argv, log, workload="test", fingerprint="f", needs=needs, port=port)

    def steady(self) -> ChildSpec:
        return self.python(STEADY)

    def stubborn(self) -> ChildSpec:
        return self.python(STUBBORN)

    def failing(self) -> ChildSpec:
        return self.python("raise SystemExit(1)")

    def impossible(self) -> ChildSpec:
        return replace(self.steady(), needs=Needs(image="Not A Reference"))

    async def settled(self, handle: ChildHandle) -> None:
        await self.until(lambda: handle.log_path.exists() and "steady\n" in handle.log_path.read_text())

    async def pass_seconds(self, seconds: float) -> None:
        return

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls: nothing else tells what a daemon did."""
        async with asyncio.timeout(WAIT_SECONDS):
            turn = asyncio.Event()
            while not condition():
                asyncio.get_running_loop().call_later(POLL_SECONDS, turn.set)
                await turn.wait()
                turn.clear()

    def crash(self, handle: ChildHandle) -> None:
        """In a thread: it may still be about to begin, which this thread's loop sees to."""
        name = container_name(handle.child_id)

        def kill() -> None:
            wait_until(lambda: self.docker.runs(name), what="it runs, so that it can be killed")
            self.docker.kill_container(name)

        self._killers.append(Thread(target=kill))
        self._killers[-1].start()

    def living(self) -> set[str]:
        listed = self.docker.containers(self.labels, running=True)
        return {each["Labels"][CHILD] for each in listed if self.docker.runs(each["Id"])}

    async def close(self) -> None:
        """Leave nothing behind."""
        for killer in self._killers:
            killer.join()
        for provider in self._providers:
            await provider.close()
        self.docker.remove_containers(self.labels)
