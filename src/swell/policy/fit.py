"""Whether a model fits accelerators, and what is left for its KV cache: memory arithmetic, and nothing measured.

A replica of `count` accelerators splits each layer over `tensor_parallel` of them and layers over `pipeline_parallel`
groups. Over several nodes `count` is that of all of them, and a layer stays within its node, since what its parts tell
one another for every token is more than networks carry; but for TPUs, whose slices have a network of their own. On each
accelerator

    room = utilisation · memory - weights / count - other
    kv_tokens = room / (kv_bytes_per_token of its layers and heads)

`other` is what activations of a chunk, graphs and buffers take: 3.6 GiB, and 0.36 GiB more where accelerators talk to
one another. These are the largest among the shipped profiles' (of aiconfigurator's data for vLLM), whose `kv_tokens`
this arithmetic gives within 2 %, except for one model whose activations are smaller. vLLM's own default of utilisation
is 0.9.
"""

from dataclasses import dataclass

from swell.state.accelerators import Asked, Fp8, slice_problem
from swell.state.model_shapes import ModelShape

GIB = 1024**3
UTILISATION = 0.9
OTHER_GIB = 3.6
TALKING_GIB = 0.36
MOST_SEQUENCES = 256  # vLLM's own default
USUAL_TOKENS = 2048  # of a request, for the number of sequences
_HALF_BITS = 8


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model lies on a replica's accelerators. GiB are of one accelerator."""

    asked: Asked
    tensor_parallel: int
    pipeline_parallel: int
    memory_gib: float
    weights_gib: float
    other_gib: float
    kv_gib: float  # what is left; negative where nothing is
    kv_bytes_per_token: float
    kv_tokens: int  # of all requests together
    sequences: int  # to decode at once
    context_tokens: int
    kv_bits: float
    why_not: str = ""  # it cannot serve
    nodes: int = 1  # each with what was asked for

    @property
    def fits(self) -> bool:
        """Whether at least one request of `context_tokens` can be served."""
        return not self.why_not


def fit(
    shape: ModelShape,
    asked: Asked,
    *,
    context_tokens: int | None = None,
    kv_bits: float = 16,
    utilisation: float = UTILISATION,
    nodes: int = 1,
) -> Fit:
    """The arithmetic for one replica over so many nodes. `context_tokens` are those of the longest request; without,
    the model's own."""
    context = context_tokens or shape.context_tokens
    count = asked.count * nodes
    tensor = _tensor_parallel(shape, count if asked.accelerator.is_tpu else asked.count)
    pipeline = count // tensor
    memory, weights = asked.memory_gib, shape.bytes_of_weights / count / GIB
    other = OTHER_GIB + (TALKING_GIB if count > 1 else 0.0)
    room = utilisation * memory - weights - other
    per_token = shape.kv_bytes_per_token(tensor, -(-shape.layers // pipeline), kv_bits)
    tokens = max(0, int(room * GIB / per_token))
    return Fit(
        asked, tensor, pipeline, memory, weights, other, room, per_token, tokens,
        sequences=min(MOST_SEQUENCES, tokens // min(context, USUAL_TOKENS)),
        context_tokens=context,
        kv_bits=kv_bits,
        why_not=_unspanned(asked, nodes, pipeline)
        or _why_not(shape, asked, context, kv_bits, pipeline, room, tokens, utilisation),
        nodes=nodes,
    )  # fmt: skip


def _tensor_parallel(shape: ModelShape, count: int) -> int:
    """The most accelerators that attention heads can be dealt out to evenly; layers are split over the rest."""
    return max(size for size in range(1, count + 1) if count % size == 0 and shape.heads % size == 0)


def _unspanned(asked: Asked, nodes: int, pipeline: int) -> str:
    """Why these nodes cannot be one replica, whatever the memory."""
    if nodes == 1:
        return ""
    row = asked.accelerator
    if asked.mig or asked.is_shared:
        return f"parts of {row.name} do not span nodes; take whole ones"
    problem = slice_problem(asked, nodes)
    if not problem and row.is_tpu and pipeline > 1:
        problem = f"heads cannot be dealt out to {asked.count * nodes} chips, and no layers to nodes of TPUs"
    return problem


def _why_not(
    shape: ModelShape, asked: Asked, context: int, kv_bits: float, pipeline: int, room: float, tokens: int, share: float
) -> str:
    row = asked.accelerator
    if pipeline > shape.layers:
        return f"{shape.layers} layers cannot be split over {pipeline} groups; take fewer accelerators"
    if kv_bits <= _HALF_BITS and row.fp8 < Fp8.ALL:
        return f"{row.name} has no 8-bit floats for the KV cache; keep 16 bits"
    if shape.weight_bits == _HALF_BITS and not shape.weight_bytes and row.fp8 < Fp8.WEIGHTS:
        return f"{row.name} cannot make weights of 8-bit floats; name files that are quantised for it"
    if room <= 0:
        need = share * asked.memory_gib - room
        return f"needs {need:.1f} GiB of each, which gives {share * asked.memory_gib:.1f}"
    if tokens < context:
        return f"holds {tokens:,} tokens, less than one request of {context:,}; give --context-tokens {tokens} at most"
    return ""
