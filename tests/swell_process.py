"""A real `swell up` for tests: started, asked, killed, and never left behind."""

import contextlib
import ctypes
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

START_SECONDS = 60.0  # from `swell up` to /readyz; a cold machine fetches nothing in these tests
MODEL_SECONDS = 60.0  # a small model that is already in the cache
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
FIRST_PORT, PORTS, PORT_RANGES = 20_000, 1_500, 8  # below 32768, where ports of connections begin
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)
_ports = itertools.count(os.getpid() % PORTS)


def wait_until(condition: Callable[[], Any], *, seconds: float = 10.0, what: str = "") -> Any:
    """Ask `condition` until it is true and return what it said; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds:g} s: {what or condition}")
        select.select([], [], [], POLL_SECONDS)


def choose_free_port() -> int:
    """A loopback port that nobody listens on.

    The system would give one of those that connections begin at, which another connection may have taken by the time
    that it is listened on. These are below them, and tests that run beside each other have theirs apart.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    first = FIRST_PORT + worker % PORT_RANGES * PORTS
    for _ in range(PORTS):
        port = first + next(_ports) % PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that was closed is free
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError(f"no port from {first} on is free")


@dataclass(frozen=True)
class Reply:
    """What a request without an SDK came to."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class SwellProcess:
    """One `swell up`. `key` is a key made after it became ready."""

    state: Path
    port: int
    arguments: list[str]
    environment: dict[str, str]
    key: str = ""
    key_id: str = ""
    program: tuple[str, ...] = ("-m", "swell.cli.main")  # what `swell` is, for starting the server
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def base_url(self) -> str:
        """For an SDK: ends in /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def output(self) -> str:
        """What `swell up` printed so far."""
        path = self._output_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def _output_path(self) -> Path:
        return self.state.with_name(self.state.name + ".output")

    def start(self) -> None:
        """Start the server (again, after it was killed) without waiting for it."""
        with self._output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "up", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                preexec_fn=end_with_the_tests,  # noqa: PLW1509 - nothing of this process runs in threads that lock
            )

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait for /readyz to answer 200; AssertionError with the output where the server ended first."""

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"swell up ended with {self._process.returncode}:\n{self.output}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.get("/readyz").status == 200
            return False

        try:
            wait_until(ready, seconds=seconds, what="/readyz answers 200")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}\n{self.logs()}") from None

    def wait_model(self, model: str, seconds: float = MODEL_SECONDS) -> None:
        """Wait until a chat with `model` is answered; needs a key."""

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.chat(model, max_tokens=1).status == 200
            return False

        try:
            wait_until(answers, seconds=seconds, what=f"{model} answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}\n{self.logs()}") from None

    def command(self, *arguments: str, check: bool = True) -> Any:
        """Run `swell ARGUMENTS --state STATE --json` and return what it printed, decoded."""
        ended = subprocess.run(
            [sys.executable, "-m", "swell.cli.main", *arguments, "--state", str(self.state), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        if check and ended.returncode != 0:
            raise AssertionError(f"swell {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr.decode()}")
        return json.loads(ended.stdout or ended.stderr)

    def create_key(self, name: str = "tests", *options: str) -> None:
        """Make a key and remember it as `key` and `key_id`."""
        made = self.command("keys", "create", name, *options)
        self.key, self.key_id = made["key"], made["id"]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        *,
        headers: dict[str, str | None] | None = None,
        timeout_seconds: float = 30.0,
    ) -> Reply:
        """One request on a connection of its own, with the key unless `headers` say otherwise (None: not sent)."""
        sent: dict[str, str | None] = {"content-type": "application/json"} if body is not None else {}
        if self.key:
            sent["authorization"] = f"Bearer {self.key}"
        sent |= headers or {}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def chat(self, model: str = "m", **fields: Any) -> Reply:
        """One chat completion with a one-word prompt."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
        return self.request("POST", "/v1/chat/completions", body)

    def open_chat(self, model: str = "m", *, timeout_seconds: float = 60.0, **fields: Any) -> http.client.HTTPResponse:
        """As `chat`, but returned when its head has come: the caller reads the body. Ends with its connection."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **fields})
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}", "connection": "close"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        connection.request("POST", "/v1/chat/completions", body, headers)
        return connection.getresponse()

    def children(self) -> list[psutil.Process]:
        """Every process that belongs to this state directory, the server left out."""
        own = self._process.pid if self._process else 0
        return [process for process in processes_naming(self.state) if process.pid != own]

    def workers(self) -> list[psutil.Process]:
        """The gateway workers among the children."""
        return [process for process in self.children() if "swell.server.gateway_worker" in words_of(process)]

    def replicas(self) -> list[psutil.Process]:
        """The children that are not gateway workers."""
        workers = {process.pid for process in self.workers()}
        return [process for process in self.children() if process.pid not in workers]

    def kill(self) -> None:
        """SIGKILL for the server alone; its children live on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM for the server, and wait until it has drained and stopped everything; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def logs(self) -> str:
        """The end of every log in the state directory."""
        parts = []
        for path in sorted((self.state / "logs").glob("*.log")):
            parts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(parts)

    def end(self) -> None:
        """Stop it if it runs, then kill whatever is left: no test leaves a process behind."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        finally:
            if self._process is not None and self._process.poll() is None:
                self.kill()
            for process in self.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(self.children(), timeout=STOP_SECONDS)


class SwellUp(Protocol):
    """Starts `swell up` with the text of a swell.yaml (None: the default one) and waits until it is ready."""

    def __call__(
        self, spec: str | None, *arguments: str, workers: int = 1, ready: bool = True, environment: dict[str, str] = ...
    ) -> SwellProcess: ...


def end_with_the_tests() -> None:
    """In the child: have the kernel send SIGTERM when the test process dies, however it dies."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def words_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def processes_naming(state: Path) -> list[psutil.Process]:
    """Living processes whose command line or environment holds the state directory's path."""
    text, own, found = str(state), os.getpid(), []
    for process in psutil.process_iter():
        try:
            if process.pid == own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            named = any(text in word for word in process.cmdline())
            if named or any(text in value for value in process.environ().values()):
                found.append(process)
        except psutil.Error:
            continue
    return found
