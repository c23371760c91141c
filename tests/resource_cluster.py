"""A cluster of make-believe with Swell's own resources, in a thread, for tests that speak to a real `swell up`."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from swell.clock import SystemClock
from swell.testing.cluster import ApiServer, FakeCluster, Refused

START_SECONDS = 10.0
NAMESPACE = "models"

_Result = TypeVar("_Result")


class ResourceCluster:
    """`with` it. Everything of the cluster happens in its thread."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig.json"
        self.cluster = FakeCluster(SystemClock())
        self._server = ApiServer(self.cluster, NAMESPACE)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_SECONDS)
        named = {"name": "it"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [named | {"cluster": {"server": self._server.url}}],
            "users": [named | {"user": {"token": self._server.token}}],
            "contexts": [named | {"context": {"cluster": "it", "user": "it", "namespace": NAMESPACE}}],
        }
        self.kubeconfig.write_text(json.dumps(config))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)
        self._loop.close()

    def _run(self) -> None:
        async def serve() -> None:
            async with self._server:
                self._ready.set()
                await self._stop.wait()

        self._loop.run_until_complete(serve())

    def do(self, act: Callable[[], _Result]) -> _Result:
        """Run it in the cluster's thread."""

        async def acting() -> _Result:
            return act()

        return asyncio.run_coroutine_threadsafe(acting(), self._loop).result(START_SECONDS)

    def create(self, kind: str, name: str, /, **spec: Any) -> None:
        """As `kubectl create`."""
        self.do(lambda: self.cluster.create(kind, {"metadata": {"name": name}, "spec": spec}))

    def change(self, kind: str, name: str, /, **spec: Any) -> None:
        """Give it another spec."""
        self.do(lambda: self.cluster.put(kind, {**self.cluster.get(kind, name), "spec": spec}))

    def delete(self, kind: str, name: str) -> None:
        """As `kubectl delete`."""
        self.do(lambda: self.cluster.delete(kind, name))

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """What is written of it."""
        found: dict[str, Any] = self.do(lambda: self.cluster.get(kind, name)).get("status", {})
        return found

    def condition(self, kind: str, name: str, of: str) -> tuple[str, str, str]:
        """A condition's status, reason and message; empty ones where it is not there."""
        each = next((each for each in self.status(kind, name).get("conditions", []) if each["type"] == of), None)
        return ("", "", "") if each is None else (each["status"], each["reason"], each["message"])

    def requests(self, what: str) -> int:
        """How many there were, such as of `patch models`."""
        return self.do(lambda: self.cluster.requests[what])

    def refuse(self, verb: str, kind: str, status: int, message: str) -> None:
        """Answer so from now on."""

        def before(asked: str, of: str) -> None:
            if (asked, of) == (verb, kind):
                raise Refused(status, message)

        self.do(lambda: setattr(self.cluster, "before_request", before))

    def answer_again(self) -> None:
        """As before `refuse`."""
        self.do(lambda: setattr(self.cluster, "before_request", lambda verb, kind: None))
