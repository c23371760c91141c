"""What an inference engine is to Swell: a description of how to run it and how to read it.

Contract for every implementation:

- Pure. Nothing here starts, opens or waits for anything; `launch` may be called any number of times.
- An engine with `managed` False runs elsewhere: it has addresses instead of a launch line.
- Health is judged by status code alone: engines differ in everything else they say.
- `endpoints` are the only paths the gateway may pass on; an engine's control routes are never listed.
- A launched engine listens on `host` alone, and asks for `key` on its `/v1` paths, so that other users of the
  machine and pages in a browser cannot go round the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from swell.spec import ModelSpec  # this module is imported by replicas, which need no pydantic


LOOPBACK = "127.0.0.1"
CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"


@dataclass(frozen=True)
class LaunchCommand:
    """A process to start. `env` is added to the environment of the parent; secrets go there, never into `argv`."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    worker_argv: tuple[str, ...] = ()  # of every node but the first, where it spans several


@dataclass(frozen=True)
class Span:
    """An engine over several nodes. The first one leads: it alone answers requests.

    `leader` and `rank` are words that the place replaces on each node: where the first is found, and which one it is.
    """

    nodes: int
    leader: str = ""
    rank: str = ""


@dataclass(frozen=True)
class EngineMetrics:
    """An engine's own Prometheus names; an empty one means that the engine does not tell."""

    path: str = ""
    running_requests: str = ""
    waiting_requests: str = ""
    kv_usage_ratio: str = ""  # 0 to 1
    prompt_tokens: str = ""  # counter
    generated_tokens: str = ""  # counter


@dataclass(frozen=True)
class Address:
    """Where an engine listens. `base_path` stands before `/v1/...` and is empty or starts with a slash.

    Where there is an `identity`, it asks for that client's certificate, and its own must name `server_name`.
    """

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    identity: str = ""
    server_name: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL that the spec has checked; raises ValueError for one that it would have refused."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    def url(self, path: str = "") -> str:
        """`path` on this address, as a whole URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}{path}"


class EngineDescription(Protocol):
    """One kind of engine."""

    @property
    def name(self) -> str:
        """The name used in the spec."""

    @property
    def managed(self) -> bool:
        """Whether Swell starts it."""

    @property
    def metrics(self) -> EngineMetrics:
        """How to read its metrics."""

    @property
    def stop_grace_seconds(self) -> float:
        """From SIGTERM to SIGKILL. It comes after draining, so nothing is running unless the drain ran out."""

    def endpoints(self, model: ModelSpec) -> tuple[str, ...]:
        """Paths it serves for this model."""

    def health_path(self, model: ModelSpec) -> str:
        """Path to ask whether it is ready."""

    def is_ready(self, model: ModelSpec, status: int) -> bool:
        """Whether an answer of `status` from the health path means that requests may be sent."""

    def launch(
        self,
        model: ModelSpec,
        model_path: Path,
        port: int,
        *,
        cores: int,
        key: str,
        host: str = LOOPBACK,
        span: Span | None = None,
    ) -> LaunchCommand:
        """The process that serves `model` from `model_path` on `port` of `host`, meant for `cores` CPU cores.

        With `span`, those of a replica over several nodes. Raises ValueError for an engine that is not managed, or
        cannot span nodes.
        """

    def addresses(self, model: ModelSpec) -> tuple[Address, ...]:
        """Where it runs already; empty for a managed engine."""
