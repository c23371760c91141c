"""llama.cpp as a child process, one per replica (`llama_cpp_child`).

Found by trying (xllamacpp 2026.10): one server with mean pooling switched on answers chat and embeddings alike, and
its chat answers are the same, token for token, as without. `/health` says 503 while the model loads and 200 after. Its
server closes a connection after every stream, although it promised to keep it; a client must expect that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

KEY_VARIABLE = "SWELL_ENGINE_KEY"
DEFAULT_PARALLEL = 4
DEFAULT_CONTEXT_TOKENS = 2048

_METRICS = EngineMetrics(
    path="/metrics",
    running_requests="llamacpp:requests_processing",
    waiting_requests="llamacpp:requests_deferred",
    prompt_tokens="llamacpp:prompt_tokens_total",
    generated_tokens="llamacpp:tokens_predicted_total",
)


@dataclass(frozen=True)
class LlamaCpp:
    """The embedded engine: GGUF models on CPUs (and whatever else the installed llama.cpp was built for).

    `python` is the interpreter that has Swell and xllamacpp installed.
    """

    python: str = sys.executable
    name: str = "llama.cpp"
    managed: bool = True
    stop_grace_seconds: float = 5.0  # idle, it ends within 0.2 s; with streams it would wait 30 s for them
    metrics: EngineMetrics = _METRICS

    def endpoints(self, model: ModelSpec) -> tuple[str, ...]:
        return (CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)

    def health_path(self, model: ModelSpec) -> str:
        return model.health_path or "/health"

    def is_ready(self, model: ModelSpec, status: int) -> bool:
        return status == 200

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
        if span is not None:
            raise ValueError(f"{model.name}: llama.cpp runs on one node")
        argv = [self.python, "-m", "swell.adapters.engines.llama_cpp_child", f"--threads={max(1, cores)}"]
        argv += model.engine_args  # may change what stands before, not what stands after
        argv += [
            f"--model={model_path}",
            f"--host={host}",
            f"--port={port}",
            f"--alias={model.upstream_model or model.name}",
            f"--parallel={model.parallel or DEFAULT_PARALLEL}",
            f"--context-tokens={model.context_tokens or DEFAULT_CONTEXT_TOKENS}",
            f"--max-in-flight={model.max_in_flight}",
        ]
        return LaunchCommand(tuple(argv), {KEY_VARIABLE: key})

    def addresses(self, model: ModelSpec) -> tuple[Address, ...]:
        return ()
