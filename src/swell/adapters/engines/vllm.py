"""vLLM as a child process: GPUs, TPUs, and CPUs through its CPU distribution."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from swell.adapters.engines import vllm_nodes
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
from swell.state.accelerators import asked_for

if TYPE_CHECKING:
    from swell.spec import ModelSpec  # this module is imported by replicas, which need no pydantic

PYTHON_VARIABLE = "SWELL_VLLM_PYTHON"
_ACCELERATORS = ("nvidia0", "kfd", "accel0", "vfio/0")  # NVIDIA, AMD, TPU (two generations), under /dev
_POOLING_ARGUMENTS = (("--runner", "pooling"), ("--task", "embed"))

_METRICS = EngineMetrics(
    path="/metrics",
    running_requests="vllm:num_requests_running",
    waiting_requests="vllm:num_requests_waiting",
    kv_usage_ratio="vllm:kv_cache_usage_perc",  # a ratio in spite of its name
    prompt_tokens="vllm:prompt_tokens_total",
    generated_tokens="vllm:generation_tokens_total",
)


@dataclass(frozen=True)
class Vllm:
    """vLLM's OpenAI server. `python` is the interpreter that has vLLM installed."""

    python: str = sys.executable
    enforce_eager: bool = False  # no graph capture: needed on CPUs, slower on GPUs
    name: str = "vllm"
    managed: bool = True
    stop_grace_seconds: float = 15.0
    metrics: EngineMetrics = _METRICS

    @classmethod
    def on_this_machine(cls, environ: Mapping[str, str], devices: Path = Path("/dev")) -> Vllm:
        """The interpreter from SWELL_VLLM_PYTHON, and eager mode where there is no accelerator."""
        accelerated = any((devices / name).exists() for name in _ACCELERATORS)
        return cls(environ.get(PYTHON_VARIABLE, sys.executable), enforce_eager=not accelerated)

    def endpoints(self, model: ModelSpec) -> tuple[str, ...]:
        """Generation, or embeddings where the engine arguments ask for the pooling runner; vLLM does one of them."""
        words = " ".join(model.engine_args).replace("=", " ").split()
        if any(pair in _POOLING_ARGUMENTS for pair in pairwise(words)):
            return (EMBEDDINGS,)
        return (CHAT_COMPLETIONS, COMPLETIONS, RESPONSES, MESSAGES)

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
        own = self._arguments(model)
        # Without the flag vLLM keeps to itself how many of a prompt's tokens its prefix cache had.
        argv = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--enable-prompt-tokens-details", *own]
        if model.lora:
            argv += ["--lora-modules", *(f"{adapter.name}={adapter.path}" for adapter in model.lora)]
        argv += [
            f"--model={model_path}",
            f"--served-model-name={model.upstream_model or model.name}",
            f"--host={host}",
            f"--port={port}",
        ]
        env = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if span is None:
            return LaunchCommand(tuple(argv), env)
        if any(asked_for(name).accelerator.is_tpu for name in model.accelerators):
            lead, join = vllm_nodes.leading(self.python, argv, span), vllm_nodes.joining(self.python, span)
            return LaunchCommand(lead, {**env, **vllm_nodes.RAY_ENVIRONMENT}, join)
        worker = vllm_nodes.headless(self.python, str(model_path), own, span)
        return LaunchCommand((*argv, *vllm_nodes.rank_arguments(span, "0")), env, worker)

    def _arguments(self, model: ModelSpec) -> list[str]:
        """What every node of a replica is told alike."""
        arguments = ["--enforce-eager"] if self.enforce_eager else []
        if model.context_tokens:
            arguments.append(f"--max-model-len={model.context_tokens}")
        if model.parallel:
            arguments.append(f"--max-num-seqs={model.parallel}")
        if model.lora:
            arguments += ["--enable-lora", f"--max-loras={len(model.lora)}"]
        return [*arguments, *model.engine_args]  # may change what stands before, not what stands after

    def addresses(self, model: ModelSpec) -> tuple[Address, ...]:
        return ()
