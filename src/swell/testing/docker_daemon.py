"""A real dockerd for tests: with folders and a socket of its own, killed, started again, never left behind.

`SWELL_TEST_DOCKER` may name the socket of a daemon that runs already (podman's, for instance); that one is only used.
"""

# ruff: noqa: S603  programs of our own

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from swell.errors import StateError

SOCKET_VARIABLE = "SWELL_TEST_DOCKER"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05
CALL_SECONDS = 60.0
IMPORT_SECONDS = 300.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MNT_DETACH = 2  # linux/fs.h
MISSING = (
    "there is no dockerd: run make test-services as root, or install it (Debian: apt-get install docker.io iptables)"
)
_LIBC = ctypes.CDLL(None)


def find_program() -> str | None:
    """Where dockerd is, if it is installed and may be started."""
    return shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") if os.geteuid() == 0 else None


class DockerDaemon:
    """One daemon, as an administrator uses it. Raises StateError where there is none to be had."""

    def __init__(self) -> None:
        given = os.environ.get(SOCKET_VARIABLE)
        self._program = None if given else find_program()
        if not given and self._program is None:
            raise StateError(MISSING)
        self.folder = Path(tempfile.mkdtemp(prefix="swell-docker-"))
        self.socket = Path(given) if given else self.folder / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket), limits=httpx.Limits(max_keepalive_connections=0)),
            base_url="http://daemon",
            timeout=CALL_SECONDS,
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self.remove_containers({})  # they would outlive it
        finally:
            self._client.close()
            self.stop()
            if self.is_ours:
                _end_what_names(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_ours(self) -> bool:
        """Whether it may be killed."""
        return self._program is not None

    @property
    def pid(self) -> int:
        """Of the daemon; 0 where it does not run, or is somebody else's."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, again where it was stopped or killed, and wait until it answers."""
        if self._program is not None:
            folder = self.folder
            # Left by one that was killed; its containerd died with it, and is otherwise taken to live as long as
            # nobody has collected it.
            for left in (folder / "pid", self.socket, folder / "exec" / "containerd" / "containerd.pid"):
                left.unlink(missing_ok=True)
            command = [self._program, "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
            command += ["--pidfile", str(folder / "pid"), "--host", f"unix://{self.socket}", "--live-restore"]
            with (folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - nothing of this process runs in threads that lock
                )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise StateError(f"the container daemon does not answer: {self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it and what it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL for the daemon alone; containers run on, as they do with a daemon that is updated."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """One call; what it answered, a list of several lines. AssertionError where that is an error."""
        answer = self._client.request(method, path, **options)
        assert answer.status_code < 400, f"{method} {path}: {answer.text}"  # noqa: S101  for tests
        told = [json.loads(line) for line in answer.content.splitlines() if line.strip().startswith((b"{", b"["))]
        errors = [line["error"] for line in told if isinstance(line, dict) and "error" in line]
        assert not errors, f"{method} {path}: {errors}"  # noqa: S101
        return told[0] if len(told) == 1 else told or None

    def read(self, method: str, path: str, **options: Any) -> bytes:
        """One call; its answer as it came, errors too."""
        return self._client.request(method, path, **options).content

    @property
    def is_podman(self) -> bool:
        """Whether it is none of Docker's, which shows in a few places."""
        return "podman" in json.dumps(self.ask("GET", "/version")).lower()

    def has_image(self, image: str) -> bool:
        """Whether it need not be pulled."""
        return self._client.get(f"/images/{image}/json").status_code == 200

    def import_image(self, archive: Path, image: str) -> None:
        """Make an image of one layer out of a root file system."""
        with archive.open("rb") as content:
            params = {"fromSrc": "-", "repo": image}
            self.ask("POST", "/images/create", params=params, content=content, timeout=IMPORT_SECONDS)

    def containers(self, labels: Mapping[str, str], *, running: bool = False) -> list[dict[str, Any]]:
        """All that bear these labels, or those of them that run."""
        listed = self.ask("GET", "/containers/json", params={"all": "0" if running else "1"})
        return [each for each in listed or () if labels.items() <= (each.get("Labels") or {}).items()]

    def runs(self, container: str) -> bool:
        """Whether it runs now. Lists lag behind a container's end, this does not."""
        answer = self._client.get(f"/containers/{container}/json")
        return answer.status_code == 200 and bool(answer.json()["State"]["Running"])

    def kill_container(self, name: str) -> None:
        """As `docker kill` does."""
        self.ask("POST", f"/containers/{name}/kill")

    def remove_containers(self, labels: Mapping[str, str]) -> None:
        """Leave none that bears these labels."""
        for each in self.containers(labels):
            self._client.delete(f"/containers/{each['Id']}", params={"force": "1", "v": "1"})

    def log_tail(self) -> str:
        """What the daemon said last."""
        path = self.folder / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise StateError(f"dockerd has ended: {self.log_tail()}")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)) != 0:
                return False
        with contextlib.suppress(httpx.HTTPError):  # it listens before it answers
            return self._client.get("/_ping").status_code == 200
        return False


def _end_what_names(folder: Path) -> None:
    """Kill what a killed daemon left: the processes that watch its containers, and those containers."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if f"{folder}/" not in (entry / "cmdline").read_text():
                continue
            children = (entry / "task" / entry.name / "children").read_text().split()
            for pid in [*map(int, children), int(entry.name)]:
                os.kill(pid, signal.SIGKILL)
    for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
        target = line.split()[1]
        if target.startswith(f"{folder}/"):
            _LIBC.umount2(target.encode(), _MNT_DETACH)


def _end_with_the_tests() -> None:
    """In the child: have the kernel send SIGTERM when the test process dies, however it dies."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
