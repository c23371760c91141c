"""Clients of a server that scales, in threads: what each got, and whether any of it was cut."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swell_process import Reply, SwellProcess, wait_until

JOIN_SECONDS = 60.0


@dataclass
class Clients:
    """Each asks for streams, one after the other, until it has had `asks` answers or `stop` is called."""

    server: SwellProcess
    count: int
    asks: int
    model: str = "m"
    fields: dict[str, Any] = field(default_factory=dict)
    replies: list[Reply | Exception] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """All at once."""
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new requests."""
        self._stop.set()

    def join(self) -> None:
        """Wait until everybody has got what was asked for."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits"

    def check_whole(self) -> None:
        """No request failed and no stream was cut."""
        assert self.replies
        for reply in self.replies:
            check_stream(reply)

    def _ask(self) -> None:
        for _ in range(self.asks):
            if self._stop.is_set():
                return
            try:
                self.replies.append(self.server.chat(self.model, stream=True, **self.fields))
            except Exception as error:
                self.replies.append(error)


def check_stream(reply: Reply | Exception) -> None:
    """A whole stream without an error in it."""
    assert isinstance(reply, Reply), repr(reply)
    assert reply.status == 200, reply.body
    assert reply.body.rstrip().endswith(b"data: [DONE]"), reply.body[-300:]
    assert b'"error"' not in reply.body, reply.body[-300:]


def status_of(server: SwellProcess) -> dict[str, Any] | None:
    """What the server says of itself; None where none answers. Faster than the command."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as endpoint:
        endpoint.settimeout(5.0)
        connection = http.client.HTTPConnection("swell")
        connection.sock = endpoint
        try:
            endpoint.connect(str(server.state / "admin.sock"))
            connection.request("GET", "/api/status")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        return found


def replicas_of(server: SwellProcess) -> list[dict[str, Any]]:
    """As the server sees them; none where no server answers."""
    seen = status_of(server)
    return seen["replicas"] if seen else []


def until_ready(server: SwellProcess, count: int, seconds: float = 20.0) -> list[dict[str, Any]]:
    """Wait until at least so many replicas are ready."""

    def ready() -> list[dict[str, Any]]:
        found = [replica for replica in replicas_of(server) if replica["phase"] == "ready"]
        return found if len(found) >= count else []

    found: list[dict[str, Any]] = wait_until(ready, seconds=seconds, what=f"{count} replicas are ready")
    return found


def until_none(server: SwellProcess, seconds: float = 20.0) -> None:
    """Wait until there are no replicas, and no process of one."""
    wait_until(
        lambda: (status_of(server) or {}).get("replicas") == [], seconds=seconds, what="the last replica is gone"
    )
    assert server.replicas() == []


def trail_of(server: SwellProcess) -> list[dict[str, Any]]:
    """The decisions, oldest first."""
    found: list[dict[str, Any]] = server.command("status", "--why", "--limit", "1000")["decisions"]
    return found[::-1]


def check_trail(trail: Sequence[dict[str, Any]]) -> list[int]:
    """Every line explains itself, and each begins where the one before ended; the numbers of replicas, in order."""
    numbers = [trail[0]["before"]]
    for line in trail:
        assert line["reason"]
        assert line["binding"]
        assert line["times"] >= 1
        assert line["at_unix"] <= line["until_unix"]
        assert line["is_hold"] == (line["before"] == line["replicas"]), line
        assert line["before"] == numbers[-1], f"{line} does not go on from {numbers}"
        if not line["is_hold"]:
            numbers.append(line["replicas"])
    return numbers
