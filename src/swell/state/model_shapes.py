"""What of a model decides the memory that it takes: weights, layers, heads. From its published `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from swell.errors import UserError

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config")  # where models that also see keep the language part
_WHOLE_BITS = 16


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One model. `parameters` are all of them, `unquantised` those that stay in 16 bits when the others do not."""

    name: str
    parameters: int
    unquantised: int  # embeddings and the last layer
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context_tokens: int  # the longest that it was made for
    weight_bits: float = _WHOLE_BITS
    latent_size: int = 0  # of multi-head latent attention (DeepSeek): numbers kept per token and layer
    weight_bytes: int = 0  # as the files say; 0: from `parameters`
    is_estimated: bool = False  # parameters were counted from the config instead of the files

    def with_bits(self, bits: float) -> "ModelShape":
        """The same model with its weights kept in `bits` each."""
        return self if bits == self.weight_bits else replace(self, weight_bits=bits, weight_bytes=0)

    @property
    def bytes_of_weights(self) -> float:
        """What the weights take in all."""
        if self.weight_bytes:
            return self.weight_bytes
        whole = self.parameters if self.weight_bits == _WHOLE_BITS else self.unquantised
        return (whole * _WHOLE_BITS + (self.parameters - whole) * self.weight_bits) / 8

    def kv_bytes_per_token(self, tensor_parallel: int, layers: int, bits: float) -> float:
        """What a token's keys and values take on one of `tensor_parallel` accelerators that has `layers` layers.

        Heads are dealt out; where there are fewer than accelerators each has one, so that some are kept twice. A latent
        is whole on each.
        """
        numbers = self.latent_size or 2 * max(1, -(-self.kv_heads // tensor_parallel)) * self.head_size
        return layers * numbers * bits / 8


def _shape(
    name: str, parameters: int, layers: int, heads: int, kv_heads: int, hidden: int, vocabulary: int, context: int
) -> ModelShape:
    """A shape with heads of 128 and an embedding apart from the last layer."""
    return ModelShape(name, parameters, 2 * hidden * vocabulary, layers, heads, kv_heads, 128, context)


# Those that a latency profile ships for, from their publishers' config.json and model cards.
_KNOWN = (
    _shape("llama-3.1-8b", 8_030_261_248, 32, 32, 8, 4096, 128_256, 131_072),
    _shape("llama-3.1-70b", 70_553_706_496, 80, 64, 8, 8192, 128_256, 131_072),
    _shape("qwen3-32b", 32_762_123_264, 64, 64, 8, 5120, 151_936, 40_960),
    _shape("qwen3-30b-a3b", 30_532_122_624, 48, 32, 4, 2048, 151_936, 40_960),
)
SHAPES = MappingProxyType({shape.name: shape for shape in _KNOWN})


def shape_from_config(name: str, config: Mapping[str, Any], weight_bytes: int = 0) -> ModelShape:
    """Read a `config.json` as transformers writes it. Raises UserError where it lacks what is needed.

    Without `weight_bytes` parameters are counted: embeddings, and for each layer attention and a gated feed-forward,
    of every expert. Norms and biases are left out, less than a thousandth.
    """
    text = next((config[key] for key in _TEXT_CONFIGS if isinstance(config.get(key), Mapping)), config)
    layers, heads, hidden = (
        _count(name, text, key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    kv_heads = _count(name, text, "num_key_value_heads", heads)
    head_size = _count(name, text, "head_dim", max(1, hidden // heads))
    vocabulary = _count(name, text, "vocab_size")
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    embeddings = vocabulary * hidden * (1 if tied else 2)
    latent = 0
    if text.get("kv_lora_rank"):
        latent = _count(name, text, "kv_lora_rank") + _count(name, text, "qk_rope_head_dim", 0)
    attention = hidden * head_size * (2 * heads + 2 * kv_heads)
    parameters = embeddings + layers * (attention + _feed_forward(name, text, hidden))
    return ModelShape(
        name=name,
        parameters=parameters,
        unquantised=embeddings,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context_tokens=_count(name, text, "max_position_embeddings", 2048),
        weight_bits=_bits(config),
        latent_size=latent,
        weight_bytes=weight_bytes,
        is_estimated=not weight_bytes,
    )


def _feed_forward(name: str, text: Mapping[str, Any], hidden: int) -> int:
    """Numbers of a layer's feed-forward part; dense first layers of models with experts are counted as the others."""
    experts = next((text[key] for key in ("num_experts", "n_routed_experts", "num_local_experts") if text.get(key)), 0)
    dense = _count(name, text, "intermediate_size", 4 * hidden)
    if not experts:
        return 3 * hidden * dense
    each = _count(name, text, "moe_intermediate_size", dense)
    shared = _count(name, text, "n_shared_experts", 0) * each
    return int(experts) * (3 * hidden * each + hidden) + 3 * hidden * shared


def _bits(config: Mapping[str, Any]) -> float:
    """Of a weight, from `quantization_config` or the type that it was saved in."""
    quantisation = config.get("quantization_config")
    if isinstance(quantisation, Mapping):
        method = str(quantisation.get("quant_method", "")).lower()
        if "bits" in quantisation:
            return float(quantisation["bits"])
        if quantisation.get("load_in_4bit") or "4" in method:
            return 4.0
        return 8.0
    return 32.0 if config.get("torch_dtype", config.get("dtype")) == "float32" else float(_WHOLE_BITS)


def _count(name: str, config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or value < 0 or (value == 0 and default is None):
        raise UserError(f"the config of {name} has no usable {key} ({value!r}); is it a language model's config.json?")
    return value
