"""A real registry on a loopback port, in a folder of its own, that can be halted in the middle of a pull."""

import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Self

from swell.testing.docker_daemon import DockerDaemon
from swell_process import choose_free_port, wait_until

MISSING = "there is no docker-registry: run make test-services as root, or apt-get install docker-registry (Debian)"
PROGRAM = "/steady"  # the only file of the image
# An ELF header, one segment, and: write(1, "steady\n", 7); for (;;) pause();
_CODE = bytes.fromhex("b801000000bf01000000488d3510000000ba070000000f05b8220000000f05ebf7") + b"steady\n"
_HEADER = bytes.fromhex("7f454c46020101000000000000000000") + struct.pack(
    "<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0
)
_SEGMENT = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(_CODE), 120 + len(_CODE), 0x1000)
STEADY_X86_64 = _HEADER + _SEGMENT + _CODE
STOP_SECONDS = 20.0
_CONFIG = """
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class ImageRegistry:
    """Holds one small image, `image`."""

    def __init__(self, docker: DockerDaemon) -> None:
        self._docker = docker
        self.folder = Path(tempfile.mkdtemp(prefix="swell-registry-"))
        self.port = choose_free_port()
        self.image = self.name_of("steady:1")
        self._process: subprocess.Popen[bytes] | None = None

    def name_of(self, image: str) -> str:
        """An image of this registry, by what its daemon calls it."""
        return f"127.0.0.1:{self.port}/{image}"

    def __enter__(self) -> Self:
        config = self.folder / "config.yml"
        config.write_text(_CONFIG.format(folder=self.folder / "data", port=self.port))
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        try:
            wait_until(self._answers, what="the registry answers")
            self._push()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self.resume()
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def halt(self) -> None:
        """Answer nobody for now."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def forget_locally(self) -> None:
        """Have the daemon pull it again."""
        if self._docker.has_image(self.image):
            self._docker.ask("DELETE", f"/images/{self.image}", params={"force": "1"})

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _push(self) -> None:
        tarball = self.folder / "image.tar"
        program = tarfile.TarInfo(PROGRAM.lstrip("/"))
        program.size, program.mode = len(STEADY_X86_64), 0o755
        with tarfile.open(tarball, mode="w") as tar:
            tar.addfile(program, io.BytesIO(STEADY_X86_64))
        self._docker.import_image(tarball, self.image)
        repository, _, tag = self.image.rpartition(":")
        nobody = {"X-Registry-Auth": "e30="}  # no credentials
        self._docker.ask("POST", f"/images/{repository}/push", params={"tag": tag}, headers=nobody)
        self.forget_locally()
