"""Clients of several gateways, as they come in a cluster: a balancer chooses for new connections, and nobody retries.

Only whoever finds that a kept connection was closed before anything of a request was sent takes a new one, as every
HTTP client does. All else that fails is a failed request: a refused connection, a cut answer, any status but 200.
"""

import contextlib
import http.client
import itertools
import json
import select
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 90.0
JOIN_SECONDS = 120.0


class Balancer:
    """Which gateways are in service. New connections alone ask: those that are open stay where they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[str, str] = {}  # by gateway
        self._turns = itertools.count()

    def put(self, gateway: str, address: str) -> None:
        with self._lock:
            self._addresses[gateway] = address

    def take_out(self, gateway: str) -> None:
        with self._lock:
            del self._addresses[gateway]

    def choose(self) -> tuple[str, str]:
        """A gateway in service and its address, each in its turn."""
        with self._lock:
            return list(self._addresses.items())[next(self._turns) % len(self._addresses)]


@dataclass(frozen=True)
class Outcome:
    """One request's. `problem` is empty where all of it came."""

    gateway: str
    is_new_connection: bool
    request_id: str
    problem: str = ""


@dataclass
class Load:
    """Threads that ask one after the other until told to stop; every second one keeps its connection."""

    balancer: Balancer
    key: str
    model: str
    port: int
    clients: int
    outcomes: list[Outcome] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new requests; waits until everybody has been answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits"

    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.problem]

    def done(self, gateway: str = "", *, on_new_connections: bool = False) -> int:
        """How many were answered, by this gateway or by any."""
        return sum(
            not outcome.problem
            and outcome.gateway == (gateway or outcome.gateway)
            and (outcome.is_new_connection or not on_new_connections)
            for outcome in list(self.outcomes)
        )

    def _ask(self, number: int) -> None:
        client = Client(self.balancer, self.key, self.model, self.port, keeps_connection=number % 2 == 0)
        for turn in itertools.count(number):
            if self._stop.is_set():
                break
            self.outcomes.append(client.ask(stream=turn % 3 == 0, max_tokens=4 + turn % 5))
        client.close()


class Client:
    """One at a time. `open` gives a stream whose events the caller takes as they come."""

    def __init__(self, balancer: Balancer, key: str, model: str, port: int, *, keeps_connection: bool = False) -> None:
        self._balancer = balancer
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if not keeps_connection:
            self._headers["connection"] = "close"
        self._model = model
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self._gateway = ""

    def ask(self, *, stream: bool, max_tokens: int) -> Outcome:
        """One request and all of its answer."""
        is_new, request_id = True, ""
        try:
            is_new = self._connect()
            answer = self._send(stream=stream, max_tokens=max_tokens)
            request_id = answer.headers.get("x-request-id", "")
            body = answer.read()
            problem = problem_of(answer.status, body, stream=stream)
        except (OSError, http.client.HTTPException) as error:
            problem = repr(error)
            self.close()
        return Outcome(self._gateway, is_new, request_id, problem)

    @contextlib.contextmanager
    def open(self, **fields: object) -> Iterator[tuple[str, str, http.client.HTTPResponse]]:
        """The gateway, the request's id and the answer of a stream whose head has come."""
        self._connect()
        try:
            answer = self._send(stream=True, **fields)
            yield self._gateway, answer.headers["x-request-id"], answer
        finally:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> bool:
        """Have a connection; whether it is a new one."""
        kept = self._connection
        if kept is not None and kept.sock is not None and not select.select([kept.sock], [], [], 0)[0]:
            return False
        self.close()
        self._gateway, address = self._balancer.choose()
        self._connection = http.client.HTTPConnection(address, self._port, timeout=TIMEOUT_SECONDS)
        self._connection.connect()
        return True

    def _send(self, **fields: object) -> http.client.HTTPResponse:
        assert self._connection is not None
        message = {"role": "user", "content": "Tell a story."}
        body = json.dumps({"model": self._model, "messages": [message], **fields})
        self._connection.request("POST", "/v1/chat/completions", body, self._headers)
        return self._connection.getresponse()


def problem_of(status: int, body: bytes, *, stream: bool) -> str:
    """What is wrong with an answer; nothing where it is whole."""
    if status != 200:
        return f"{status}: {body[-300:]!r}"
    is_whole = body.rstrip().endswith(b"data: [DONE]") and b'"error"' not in body if stream else b'"usage"' in body
    return "" if is_whole else f"cut or failed: {body[-300:]!r}"
