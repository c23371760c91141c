"""What a contender is: something that listens on a port and passes requests on to the scripted upstream.

To add one, write a sibling of `nginx.py` and enter it in the mapping of `__init__.py`.
"""

import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.processes import free_port, stop, tree


@dataclass(frozen=True)
class Setup:
    """What every contender is given."""

    upstream_port: int
    folder: Path  # for configuration and logs; short, since sockets may lie in it
    certificate: Path
    private_key: Path

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"


class Contender(ABC):
    """One gateway. `key` is the bearer token that requests carry; `tls` whether it is spoken to so."""

    needs: str = ""  # what must be there that the benchmark does not install itself
    key: str = "none"
    tls: bool = False

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @abstractmethod
    def start(self) -> None:
        """Launch it on the contender's core and wait until it serves. BenchmarkError says what is missing."""

    def stop(self) -> None:
        """End it; does nothing twice."""
        if self.process is not None:
            stop(self.process)
            self.process = None

    def groups(self) -> dict[str, list[int]]:
        """Its processes by name; `all` is what the bars are judged by."""
        return {"all": tree(self.process.pid)} if self.process is not None else {}

    @property
    def log(self) -> Path:
        return self.setup.folder / f"{type(self).__name__.lower()}-{self.port}.log"
