"""Engines, by the name used in the spec. To add one: copy a sibling, list it here and in `swell.spec.Engine`."""

from collections.abc import Mapping

from swell.adapters.engines.external import External
from swell.adapters.engines.llama_cpp import LlamaCpp
from swell.adapters.engines.vllm import Vllm
from swell.ports.engine import EngineDescription

IMAGE_PYTHON = "python3"  # found through PATH, in our images and in those of vLLM


def local_engines(environ: Mapping[str, str]) -> dict[str, EngineDescription]:
    """Every engine, set up for this machine."""
    engines: tuple[EngineDescription, ...] = (LlamaCpp(), Vllm.on_this_machine(environ), External())
    return {engine.name: engine for engine in engines}


def image_engines(*, accelerated: bool) -> dict[str, EngineDescription]:
    """Every engine that an image can hold, as the image's own Python runs it."""
    engines: tuple[EngineDescription, ...] = (
        LlamaCpp(python=IMAGE_PYTHON),
        Vllm(python=IMAGE_PYTHON, enforce_eager=not accelerated),
    )
    return {engine.name: engine for engine in engines}
