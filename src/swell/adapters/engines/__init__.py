"""Engines, by the name used in the spec. To add one: copy a sibling, list it here and in `swell.spec.Engine`."""

from collections.abc import Mapping

from swell.adapters.engines.external import External
from swell.adapters.engines.llama_cpp import LlamaCpp
from swell.adapters.engines.vllm import Vllm
from swell.ports.engine import EngineDescription


def local_engines(environ: Mapping[str, str]) -> dict[str, EngineDescription]:
    """Every engine, set up for this machine."""
    engines: tuple[EngineDescription, ...] = (LlamaCpp(), Vllm.on_this_machine(environ), External())
    return {engine.name: engine for engine in engines}
