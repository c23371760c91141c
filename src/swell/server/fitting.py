"""The answer of `swell plan --fit`: on what a model fits, what that costs, and how vLLM is launched on it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swell.errors import UserError
from swell.policy.fit import UTILISATION, Fit, fit
from swell.state import catalogue
from swell.state.accelerators import ACCELERATORS, asked_for
from swell.state.catalogue import Price
from swell.state.model_shapes import SHAPES, ModelShape, shape_from_config
from swell.state.scaling import Market

TRIED_NODES = (2, 4, 8, 16)
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_INDEX_BYTES = 256 * 1024 * 1024
_FP8 = "-fp8"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica, and what it costs an hour on demand; None where no price of it is listed."""

    name: str  # such as `4xH100`, or `2 nodes of 8xH100`
    fit: Fit
    usd_per_hour: float | None


def shape_of(model: str, weight_bits: float | None = None) -> ModelShape:
    """The shape of a known model, or of a folder with config.json and weights. Raises UserError."""
    plain = catalogue.plain_model(model)
    known = SHAPES.get(plain.removesuffix(_FP8))
    path = Path(model).expanduser()
    if path.exists():
        shape = _read(path)
    elif known is not None:
        shape = known.with_bits(8) if plain.endswith(_FP8) else known
    else:
        raise UserError(
            f"there is no folder {model!r}, nor is it one of {', '.join(SHAPES)}; "
            "name a folder with the model's config.json, or the file itself"
        )
    return shape if weight_bits is None else shape.with_bits(weight_bits)


def candidates(
    shape: ModelShape,
    names: Sequence[str] | None = None,
    *,
    context_tokens: int | None = None,
    kv_bits: float = 16,
    among: Iterable[Price] | None = None,
    nodes: int = 1,
) -> list[Candidate]:
    """Every replica that could be, cheapest first, those that fit before those that do not. Raises UserError.

    Over several nodes each of them has what a name says, and costs as much.
    """
    listed = list(catalogue.prices() if among is None else among)
    every = [f"{count}x{row.name}" for row in ACCELERATORS.values() for count in row.per_machine]
    found = []
    for name in every if names is None else names:
        asked = asked_for(name)
        label = f"{asked.count}x{asked.kind}" if asked.count > 1 else asked.kind
        arithmetic = fit(shape, asked, context_tokens=context_tokens, kv_bits=kv_bits, nodes=nodes)
        usd = _usd(asked.accelerator.name, asked.count, listed)
        label = f"{nodes} nodes of {label}" if nodes > 1 else label
        found.append(Candidate(label, arithmetic, None if usd is None else usd * nodes))
    return sorted(found, key=lambda each: (not each.fit.fits, each.usd_per_hour is None, each.usd_per_hour or 0.0))


def over_nodes(
    shape: ModelShape,
    names: Sequence[str] | None,
    context_tokens: int | None,
    kv_bits: float,
    among: Iterable[Price] | None,
) -> Candidate | None:
    """The cheapest over the fewest nodes, of those that are tried, on which it fits; None where it fits on none."""
    for nodes in TRIED_NODES:
        found = candidates(shape, names, context_tokens=context_tokens, kv_bits=kv_bits, among=among, nodes=nodes)
        if found and found[0].fit.fits:
            return found[0]
    return None


def launch_arguments(shape: ModelShape, found: Fit) -> list[str]:
    """vLLM's arguments for a replica that fits; what is vLLM's default anyway is left out."""
    arguments = [f"--max-model-len={found.context_tokens}", f"--max-num-seqs={found.sequences}"]
    if found.tensor_parallel > 1:
        arguments.append(f"--tensor-parallel-size={found.tensor_parallel}")
    if found.pipeline_parallel > 1:
        arguments.append(f"--pipeline-parallel-size={found.pipeline_parallel}")
    if shape.weight_bits == 8 and not shape.weight_bytes:  # files that are quantised already say so themselves
        arguments.append("--quantization=fp8")
    if found.kv_bits == 8:
        arguments.append("--kv-cache-dtype=fp8")
    return arguments


def document(shape: ModelShape, found: Sequence[Candidate]) -> dict[str, Any]:
    """For `--json`."""
    return {
        "model": shape.name,
        "parameters": shape.parameters,
        "weight_bytes": round(shape.bytes_of_weights),
        "weight_bits": shape.weight_bits,
        "is_estimated": shape.is_estimated,
        "memory_utilisation": UTILISATION,
        "replicas": [
            {
                "replica": each.name,
                "nodes": each.fit.nodes,
                "fits": each.fit.fits,
                "why_not": each.fit.why_not or None,
                "usd_per_hour": each.usd_per_hour,
                "memory_gib": each.fit.memory_gib,
                "weights_gib": each.fit.weights_gib,
                "other_gib": each.fit.other_gib,
                "kv_gib": each.fit.kv_gib,
                "kv_bytes_per_token": each.fit.kv_bytes_per_token,
                "kv_tokens": each.fit.kv_tokens,
                "sequences": each.fit.sequences,
                "context_tokens": each.fit.context_tokens,
                "tensor_parallel": each.fit.tensor_parallel,
                "pipeline_parallel": each.fit.pipeline_parallel,
                "vllm_arguments": launch_arguments(shape, each.fit) if each.fit.fits else [],
            }
            for each in found
        ],
    }


def _usd(accelerator: str, count: int, listed: list[Price]) -> float | None:
    try:
        price = catalogue.cheapest(accelerator, count, among=listed)
    except UserError:
        return None
    return price.usd_per_hour(Market.ON_DEMAND, count)


def _read(path: Path) -> ModelShape:
    """From a folder as it is published, or a config.json alone."""
    if path.suffix.lower() == ".gguf":
        raise UserError(f"{path} is a GGUF file; --fit reads the config.json that the model was published with")
    config_path = path / "config.json" if path.is_dir() else path
    config = _json(config_path, MAX_CONFIG_BYTES)
    folder = config_path.parent
    name = str(config.get("_name_or_path") or folder.resolve().name)
    return shape_from_config(name, config, _weight_bytes(folder) if path.is_dir() else 0)


def _weight_bytes(folder: Path) -> int:
    """Of all safetensors, as their index says, or their sizes; 0 where there are none."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        metadata = _json(index, MAX_INDEX_BYTES).get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        if type(total) is int and total > 0:
            return total
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _json(path: Path, limit: int) -> dict[str, Any]:
    try:
        if path.stat().st_size > limit:
            raise UserError(f"{path} is over {limit:,} bytes; is it the right file?")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name a folder with config.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); name a folder with the model's config.json") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a config: it holds no mapping")
    return found
