"""Memory arithmetic: against the shipped profiles, whose figures come from elsewhere, and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import UserError
from swell.policy.fit import GIB, OTHER_GIB, TALKING_GIB, UTILISATION, fit
from swell.state.accelerators import ACCELERATORS, Fp8, asked_for
from swell.state.catalogue import profiles
from swell.state.model_shapes import SHAPES, ModelShape, shape_from_config

_PROFILED = [profile for profile in profiles().values() if profile.model.removesuffix("-fp8") in SHAPES]
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("profile", _PROFILED, ids=lambda profile: profile.name)
def test_what_the_shipped_profiles_say_of_the_cache(profile) -> None:  # type: ignore[no-untyped-def]
    shape = SHAPES[profile.model.removesuffix("-fp8")]
    if profile.model.endswith("-fp8"):
        shape = shape.with_bits(8)
    found = fit(shape, asked_for(f"{profile.accelerator_count}x{profile.accelerator}"), context_tokens=4096)
    assert found.fits
    # Of the model with experts the activations are smaller than what is reserved for all.
    allowance = 0.06 if shape.name == "qwen3-30b-a3b" else 0.02
    assert found.kv_tokens == pytest.approx(profile.kv_tokens, rel=allowance)


def test_every_model_with_a_profile_for_an_accelerator_has_a_shape() -> None:
    assert {p.model.removesuffix("-fp8") for p in profiles().values() if p.accelerator != "CPU"} == set(SHAPES)


@given(
    name=st.sampled_from([f"{count}x{row.name}" for row in ACCELERATORS.values() for count in row.per_machine]),
    shape=st.sampled_from(list(SHAPES.values())),
    bits=st.sampled_from([16, 8]),
    context=st.integers(64, 200_000),
)
def test_what_is_promised_is_there(name: str, shape: ModelShape, bits: int, context: int) -> None:
    asked = asked_for(name)
    found = fit(shape.with_bits(bits), asked, context_tokens=context)
    assert found.tensor_parallel * found.pipeline_parallel == asked.count
    assert shape.heads % found.tensor_parallel == 0
    used = found.weights_gib + found.other_gib + found.kv_tokens * found.kv_bytes_per_token / GIB
    if found.fits:
        assert used <= UTILISATION * asked.memory_gib + 1e-9
        assert found.kv_tokens >= context
        assert 1 <= found.sequences <= 256
    elif asked.accelerator.fp8 is not Fp8.NONE:
        assert found.kv_tokens < context
    smaller = fit(shape.with_bits(bits), asked, context_tokens=64)
    assert smaller.fits or not found.fits  # a shorter request never fits worse


def test_heads_that_do_not_divide_are_split_by_layers() -> None:
    odd = shape_from_config("odd", {**LLAMA_8B, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128})
    found = fit(odd, asked_for("8xL4"), context_tokens=4096)
    assert (found.tensor_parallel, found.pipeline_parallel) == (4, 2)
    assert found.kv_bytes_per_token == 16 * 2 * 1 * 128 * 2  # 16 layers, one head, keys and values, two bytes


def test_fewer_heads_for_keys_than_accelerators_are_kept_twice() -> None:
    few = shape_from_config("few", {**LLAMA_8B, "num_key_value_heads": 2})
    four, eight = (fit(few, asked_for(f"{count}xL4"), context_tokens=4096) for count in (4, 8))
    assert four.kv_bytes_per_token == eight.kv_bytes_per_token


def test_a_latent_is_whole_on_every_accelerator() -> None:
    latent = shape_from_config("deep", {**LLAMA_8B, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    found = fit(latent, asked_for("8xH100"), context_tokens=4096)
    assert found.kv_bytes_per_token == 32 * 576 * 2


def test_a_config_gives_the_published_parameters() -> None:
    shape = shape_from_config("llama", LLAMA_8B)
    assert shape.parameters == pytest.approx(8_030_261_248, rel=1e-3)
    assert (shape.head_size, shape.context_tokens, shape.is_estimated) == (128, 131_072, True)
    experts = shape_from_config(
        "qwen3-30b-a3b",
        {
            "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
            "num_attention_heads": 32, "num_hidden_layers": 48, "num_key_value_heads": 4, "head_dim": 128,
            "vocab_size": 151936, "max_position_embeddings": 40960,
        },
    )  # fmt: skip
    assert experts.parameters == pytest.approx(30_532_122_624, rel=1e-3)
    tied = shape_from_config("tied", {**LLAMA_8B, "tie_word_embeddings": True})
    assert shape.parameters - tied.parameters == 4096 * 128256


@pytest.mark.parametrize(
    ("quantisation", "bits"), [({"quant_method": "fp8"}, 8), ({"bits": 4, "quant_method": "gptq"}, 4), (None, 16)]
)
def test_the_bits_that_a_config_names(quantisation: object, bits: float) -> None:
    assert shape_from_config("llama", {**LLAMA_8B, "quantization_config": quantisation}).weight_bits == bits


@pytest.mark.parametrize("missing", ["num_hidden_layers", "vocab_size", "hidden_size"])
def test_a_config_that_lacks_something_is_refused_by_name(missing: str) -> None:
    with pytest.raises(UserError, match=missing):
        shape_from_config("llama", {key: value for key, value in LLAMA_8B.items() if key != missing})


def test_why_not_is_said() -> None:
    shape = SHAPES["llama-3.1-8b"]
    assert "GiB" in fit(shape, asked_for("T4")).why_not
    assert "--context-tokens" in fit(shape, asked_for("L4"), context_tokens=131_072).why_not
    assert "8-bit" in fit(shape, asked_for("A100-80GB"), context_tokens=4096, kv_bits=8).why_not
    assert "quantised" in fit(shape.with_bits(8), asked_for("4xv6e"), context_tokens=4096).why_not
    assert fit(shape, asked_for("A100-80GB")).other_gib == OTHER_GIB
    assert fit(shape, asked_for("2xA100-80GB")).other_gib == OTHER_GIB + TALKING_GIB


@given(
    name=st.sampled_from([f"{count}x{row.name}" for row in ACCELERATORS.values() for count in row.per_machine]),
    shape=st.sampled_from(list(SHAPES.values())),
    nodes=st.sampled_from([1, 2, 3, 4, 8]),
)
def test_over_nodes_every_accelerator_has_its_share_and_a_layer_stays_in_one(
    name: str, shape: ModelShape, nodes: int
) -> None:
    asked = asked_for(name)
    found = fit(shape, asked, context_tokens=1024, nodes=nodes)
    assert found.tensor_parallel * found.pipeline_parallel == asked.count * nodes
    assert found.weights_gib * asked.count * nodes == pytest.approx(shape.bytes_of_weights / GIB)
    if not asked.accelerator.is_tpu:
        assert asked.count % found.tensor_parallel == 0
        assert found.pipeline_parallel % nodes == 0
    elif nodes > 1 and found.fits:
        assert found.pipeline_parallel == 1


def test_what_one_node_cannot_hold_two_can() -> None:
    shape = SHAPES["llama-3.1-70b"]
    assert not fit(shape, asked_for("4xL4"), context_tokens=4096).fits
    found = fit(shape, asked_for("4xL40S"), context_tokens=4096, nodes=2)
    assert found.fits
    assert (found.tensor_parallel, found.pipeline_parallel) == (4, 2)


@pytest.mark.parametrize(
    ("name", "nodes", "problem"),
    [
        ("8xv5e", 2, "4 chips each; write 4xv5e"),
        ("4xv6e", 3, "slices of v6e have 4, 8, 16, 32, 64 machines"),
        ("H100-MIG-1g.10gb", 2, "do not span nodes"),
        ("4xv6e", 64, "heads cannot be dealt out to 256 chips"),
    ],
)
def test_nodes_that_are_no_replica_are_refused(name: str, nodes: int, problem: str) -> None:
    assert problem in fit(SHAPES["llama-3.1-70b"], asked_for(name), context_tokens=1024, nodes=nodes).why_not
