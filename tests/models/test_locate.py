"""Finding MLP matrices by structure in tiny random models of many families, and the one clear error for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lingualign.errors import UnsupportedModel
from lingualign.models.locate import locate_mlps

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GATED = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "mistral",
    "olmo2",
    "smollm3",
    "granite",
    "cohere",
    "stablelm",
]
FUSED = ["phi3", "glm4"]
EXPERTS = {
    "mixtral": {"num_local_experts": 2},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 40},
    # Its shared expert is a dense MLP inside the mixture: editing that alone would look like success.
    "qwen2_moe": {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 40,
    },
}


def tiny(model_type: str, **options: Any) -> nn.Module:
    config = AutoConfig.for_model(model_type, **{**SMALL, **options})
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize("model_type", GATED)
def test_gated_families(model_type: str) -> None:
    model = tiny(model_type)
    located = locate_mlps(model)
    assert [mlp.block for mlp in located] == [f"model.layers.{layer}" for layer in range(3)]
    for mlp in located:
        assert mlp.mlp == f"{mlp.block}.mlp"
        assert mlp.inner == {"gate": f"{mlp.mlp}.gate_proj", "up": f"{mlp.mlp}.up_proj"}
        assert mlp.down == f"{mlp.mlp}.down_proj"
        assert (mlp.hidden_size, mlp.inner_size) == (16, 40)
        names = dict(model.named_parameters())
        assert names[f"{mlp.down}.weight"].shape == (16, 40)
        assert all(names[f"{path}.weight"].shape == (40, 16) for path in mlp.inner.values())


@pytest.mark.parametrize(
    ("model_type", "block", "up", "down"),
    [
        ("gpt_neox", "gpt_neox.layers", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        ("phi", "model.layers", "mlp.fc1", "mlp.fc2"),
        ("starcoder2", "model.layers", "mlp.c_fc", "mlp.c_proj"),
    ],
)
def test_families_without_gate(model_type: str, block: str, up: str, down: str) -> None:
    located = locate_mlps(tiny(model_type))
    assert [mlp.inner for mlp in located] == [{"up": f"{block}.{layer}.{up}"} for layer in range(3)]
    assert [mlp.down for mlp in located] == [f"{block}.{layer}.{down}" for layer in range(3)]


def test_inner_width_equal_to_attention_width_is_not_confused() -> None:
    """With heads as wide as the MLP, attention's output map has the shape of `down`; it still has three maps in."""
    located = locate_mlps(tiny("llama", head_dim=10))
    assert [mlp.mlp for mlp in located] == [f"model.layers.{layer}.mlp" for layer in range(3)]


@pytest.mark.parametrize("model_type", FUSED)
def test_fused_projections_are_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"block model\.layers\.0 of .* holds 0 dense MLPs.*fused projections"):
        locate_mlps(tiny(model_type))


@pytest.mark.parametrize("model_type", EXPERTS)
def test_mixtures_of_experts_are_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedModel, match="mixtures of experts"):
        locate_mlps(tiny(model_type, **EXPERTS[model_type]))


def test_one_block_of_experts_among_dense_ones_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match=r"block model\.layers\.2 .*mixtures of experts"):
        locate_mlps(tiny("qwen2_moe", **EXPERTS["qwen2_moe"], mlp_only_layers=[0, 1]))


def test_gpt2_is_refused_in_one_line() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=50, n_embd=16, n_layer=2, n_head=2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModel, match=r"block transformer\.h\.0 of GPT2LMHeadModel") as caught:
        locate_mlps(model)
    assert "\n" not in str(caught.value)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no list of transformer blocks"):
        locate_mlps(nn.Linear(3, 3))
