"""How vLLM splits a replica over its accelerators: what its arguments say, and what follows from that. Pure."""

from collections.abc import Mapping, Sequence
from math import gcd, prod

from swell.state.model_shapes import ModelShape

TENSOR_PARALLEL, PIPELINE_PARALLEL = "--tensor-parallel-size", "--pipeline-parallel-size"
DATA_PARALLEL, CONTEXT_PARALLEL = "--data-parallel-size", "--prefill-context-parallel-size"
_SIZES = {
    TENSOR_PARALLEL: TENSOR_PARALLEL, "-tp": TENSOR_PARALLEL,
    PIPELINE_PARALLEL: PIPELINE_PARALLEL, "-pp": PIPELINE_PARALLEL,
    DATA_PARALLEL: DATA_PARALLEL, "-dp": DATA_PARALLEL,
    CONTEXT_PARALLEL: CONTEXT_PARALLEL, "-pcp": CONTEXT_PARALLEL,
}  # fmt: skip
_SPLIT = (TENSOR_PARALLEL, PIPELINE_PARALLEL)  # of one copy


class SplitError(Exception):
    """A replica cannot be split so; the text says why, and what to write instead."""


def said_sizes(arguments: Sequence[str]) -> dict[str, int] | None:
    """The sizes that vLLM is told, by the long form of their options; None where one is no size, as vLLM will say."""
    found: dict[str, int] = {}
    for number, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        option = _SIZES.get(name.replace("_", "-"))
        if option is None:
            continue
        text = value if equals else "".join(arguments[number + 1 : number + 2])
        if not (text.isascii() and text.isdigit() and int(text)):
            return None
        found[option] = int(text)
    return found


def split_over(
    said: Mapping[str, int], accelerators: int, nodes: int, shape: ModelShape | None, *, is_tpu: bool
) -> dict[str, int]:
    """The tensor and the pipeline parallel size of a replica of so many accelerators of each node. Raises SplitError.

    A layer stays within its node, since networks between them are slow, but for a slice of TPUs. Copies (data parallel)
    and parts of a prompt (context parallel) take accelerators of their own. On one node no layers are dealt out that
    nobody asked for.
    """
    count = accelerators * nodes
    idle = SplitError(
        f"engine_args split it over {' x '.join(map(str, said.values()))} of {count} accelerators; give sizes whose "
        f"product is {count}, or leave {PIPELINE_PARALLEL} or {TENSOR_PARALLEL} out"
    )
    each, left = divmod(count, prod(size for name, size in said.items() if name not in _SPLIT))
    if left:
        raise idle
    tensor, pipeline = said.get(TENSOR_PARALLEL), said.get(PIPELINE_PARALLEL)
    if tensor is None and pipeline is None:
        if shape is None and is_tpu and nodes > 1:
            raise SplitError(
                f"whether its attention heads can be dealt out to {each} chips is not known; where num_attention_heads "
                f"in its config.json can be divided by that, write {TENSOR_PARALLEL}={each} in engine_args"
            )
        within = each if is_tpu else gcd(each, accelerators)
        sizes = [size for size in range(1, within + 1) if within % size == 0]
        tensor = max(size for size in sizes if shape is None or shape.heads % size == 0)
    if tensor is None:
        tensor = max(1, each // (pipeline or 1))
    if pipeline is None:
        pipeline = 1 if nodes == 1 or is_tpu else each // tensor
    if nodes > 1 and tensor * pipeline != each:
        raise idle
    if shape is not None and shape.heads % tensor:
        raise SplitError(
            f"{shape.heads} attention heads cannot be dealt out to {tensor} accelerators; give a {TENSOR_PARALLEL} "
            "that divides them"
        )
    return {TENSOR_PARALLEL: tensor, PIPELINE_PARALLEL: pipeline}
