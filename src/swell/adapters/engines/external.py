"""Endpoints that somebody else runs: nothing to launch, only to watch and to route to.

Readiness: with a `health_path` in the spec, that path must answer 2xx. Without one, `/health` is asked, and an
endpoint that answers it with "no such thing here" (404, 405, 501) counts as ready too: it speaks HTTP, and most
hosted services have no health path. A refused key (401, 403) or a server error does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swell.errors import UserError
from swell.ports.engine import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
    LOOPBACK,
    MESSAGES,
    RESPONSES,
    Address,
    EngineMetrics,
    LaunchCommand,
    Span,
)

if TYPE_CHECKING:
    from swell.spec import ModelSpec  # this module is imported by replicas, which need no pydantic

_NO_SUCH_PATH = frozenset({404, 405, 501})
MAX_KEY_BYTES = 8192

_METRICS = EngineMetrics()


@dataclass(frozen=True)
class External:
    """The engine that is none of ours."""

    name: str = "external"
    managed: bool = False
    stop_grace_seconds: float = 0.0
    metrics: EngineMetrics = _METRICS

    def endpoints(self, model: ModelSpec) -> tuple[str, ...]:
        """All that Swell knows; what the endpoint lacks it refuses itself."""
        return (CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)

    def health_path(self, model: ModelSpec) -> str:
        return model.health_path or "/health"

    def is_ready(self, model: ModelSpec, status: int) -> bool:
        return 200 <= status < 300 or (model.health_path is None and status in _NO_SUCH_PATH)

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
        raise ValueError(f"{model.name} runs elsewhere; there is nothing to launch")

    def addresses(self, model: ModelSpec) -> tuple[Address, ...]:
        return tuple(Address.parse(url) for url in model.endpoints)


def read_key(model: ModelSpec, environ: Mapping[str, str]) -> str:
    """The key for a model's endpoints, from the variable or file that its spec names; empty where it names none.

    Raises UserError where the key cannot be read or could not be a header value.
    """
    if model.api_key_env:
        key, where = environ.get(model.api_key_env, ""), f"the environment variable {model.api_key_env}"
    elif model.api_key_file:
        where = f"the file {model.api_key_file}"
        try:
            with Path(model.api_key_file).open("rb") as file:
                key = file.read(MAX_KEY_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise UserError(f"model {model.name}: cannot read {where} ({error.strerror}); put the key there") from error
    else:
        return ""
    key = key.strip()
    if not key:
        raise UserError(f"model {model.name}: {where} holds no key; set it, or take it out of the spec")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"model {model.name}: {where} holds characters that no key has; check what is in it")
    return key
