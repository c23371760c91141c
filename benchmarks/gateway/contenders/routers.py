"""LLM routers written in Rust, from PyPI. Each runs with its defaults for one worker of the plain HTTP kind."""

from pathlib import Path

from benchmarks.gateway.contenders.base import Contender
from benchmarks.gateway.environments import program
from benchmarks.gateway.processes import CONTENDER_CORE, free_port, launch, wait_http


class _Router(Contender):
    environment: str
    requirement: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def start(self) -> None:
        path = program(self.environment, self.requirement, self.command[0])
        # Their metrics listen on one port by default, so each gets another.
        argv: list[str | Path] = [
            path,
            *self.command[1:],
            *("--worker-urls", self.setup.upstream_url),
            *("--policy", "cache_aware"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *("--max-concurrent-requests", "100000"),
            *("--log-level", "error"),
            *self.flags,
        ]
        self.process = launch(argv, core=CONTENDER_CORE, log=self.log)
        wait_http(f"http://127.0.0.1:{self.port}/health", self.process, self.log)


class VllmRouter(_Router):
    """vLLM's router, a fork of SGLang's."""

    environment = "vllm-router"
    requirement = "vllm-router==0.1.17"
    command = ("vllm-router",)


class SglangRouter(_Router):
    """SGLang's router."""

    environment = "sglang-router"
    requirement = "sglang-router==0.3.2"
    command = ("smg", "launch")


class Smg(_Router):
    """Shepherd Model Gateway, SGLang's router carried on."""

    environment = "smg"
    requirement = "smg==1.13.0"
    command = ("smg", "launch")
