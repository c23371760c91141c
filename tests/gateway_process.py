"""A real `swell gateway` for tests: started, killed, and never left behind."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from swell_process import STOP_SECONDS, SwellProcess, end_with_the_tests, processes_naming, words_of

LEAN = ("-m", "swell.server.gateway_arguments")  # what runs where only a gateway is installed


@dataclass
class GatewayProcess:
    """One gateway of a server. Its state outlives it, as a volume does."""

    state: Path
    port: int
    arguments: list[str]
    program: tuple[str, ...] = LEAN
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, server: SwellProcess, folder: Path, *, gateways_port: int, port: int, name: str) -> "GatewayProcess":
        """A gateway with one worker and credentials of its own, not started yet."""
        credentials = folder / f"{name}-credentials"
        server.command("credentials", str(credentials), "--name", name)
        return cls.at([gateways_port], credentials, folder, port=port, name=name)

    @classmethod
    def at(cls, servers: Sequence[int], credentials: Path, folder: Path, *, port: int, name: str) -> "GatewayProcess":
        """The same for servers that listen to gateways at these ports."""
        addresses = [word for each in servers for word in ("--server", f"127.0.0.1:{each}")]
        arguments = [
            *addresses, "--credentials", str(credentials), "--state", str(folder / name),
            "--port", str(port), "--workers", "1", "--name", name,
        ]  # fmt: skip
        return cls(folder / name, port, arguments)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has said so far."""
        path = self._output_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _output_path(self) -> Path:
        return self.state.with_name(self.state.name + ".output")

    def start(self) -> None:
        """Start it (again) without waiting for it."""
        with self._output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200", "SWELL_TEST_STATE": str(self.state)},
                start_new_session=True,
                preexec_fn=end_with_the_tests,  # noqa: PLW1509 - nothing of this process runs in threads that lock
            )

    def is_ready(self) -> bool:
        """Whether it answers /readyz with 200. AssertionError where it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, f"the gateway ended with {self._process.returncode}:\n{self.output}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        """Its workers that live, also those of a run before."""
        return [each for each in processes_naming(self.state) if "swell.server.gateway_worker" in words_of(each)]

    def spools(self) -> list[str]:
        """What the server does not have in full yet."""
        return sorted(path.name for path in (self.state / "spool").iterdir())

    def kill(self) -> None:
        """SIGKILL for the gateway alone; its workers end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def stop(self, seconds: float = 2 * STOP_SECONDS) -> int:
        """SIGTERM, and wait until it has drained; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def wait(self) -> int:
        """Wait until it has ended by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    def end(self) -> None:
        """Kill whatever is left."""
        for process in processes_naming(self.state):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes_naming(self.state), timeout=STOP_SECONDS)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
