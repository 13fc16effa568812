"""Finding MLP matrices by structure in tiny random models of many families, and the one clear error for the others.
What is then done with them: test_architectures.py."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lingualign.errors import UnsupportedModel
from lingualign.models.changed import changed_matrices, require_editable
from lingualign.models.coverage import coverage
from lingualign.models.locate import attention_output, locate_mlps

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
#: Mixtures in which nothing can be edited, with why.
EXPERTS: dict[str, tuple[dict[str, Any], str]] = {
    "mixtral": ({"num_local_experts": 2}, "holds only 2 routed experts"),
    "gpt_oss": ({"num_local_experts": 2}, "holds only 2 routed experts"),
    "qwen3_moe": (
        {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 40},
        "holds only 2 routed experts",
    ),
    # Its shared expert is scaled for each token: what it adds to the mixture is not linear in its weight alone.
    "qwen2_moe": (
        {
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 40,
        },
        "shared_expert_gate.weight comes between the shared expert and the mixture's output",
    ),
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
def test_fused_gate_and_up(model_type: str) -> None:
    """With half as many key heads as heads, attention's fused map is twice as wide as its output map reads, too."""
    for mlp in locate_mlps(tiny(model_type)):
        gate, up, down = mlp.matrices
        assert gate.module == up.module == f"{mlp.block}.mlp.gate_up_proj"
        assert [(m.role, m.first_row, m.in_width, m.out_width) for m in (gate, up)] == [
            ("gate", 0, 16, 40),
            ("up", 40, 16, 40),
        ]
        assert (down.module, down.in_width, down.out_width) == (f"{mlp.block}.mlp.down_proj", 40, 16)


def test_conv1d_is_stored_transposed() -> None:
    model = tiny("gpt2", n_embd=16, n_layer=3, n_head=2)
    for mlp in locate_mlps(model):
        up, down = mlp.matrices
        assert (up.transposed, up.in_width, up.out_width) == (True, 16, 64)
        assert model.get_parameter(down.parameter).shape == (64, 16)


@pytest.mark.parametrize("model_type", EXPERTS)
def test_experts_are_found_and_nothing_is_said_to_be_editable(model_type: str) -> None:
    options, reason = EXPERTS[model_type]
    located = locate_mlps(tiny(model_type, **options))
    for mlp in located:
        assert mlp.mlp == f"{mlp.block}.mlp"
        assert {(matrix.role, matrix.in_width, matrix.out_width, matrix.experts) for matrix in mlp.routed} == {
            ("gate", 16, 40, 2),
            ("up", 16, 40, 2),
            ("down", 40, 16, 2),
        }
        with pytest.raises(UnsupportedModel, match=reason) as caught:
            _ = mlp.down
        assert "\n" not in str(caught.value)
    with pytest.raises(
        UnsupportedModel, match=rf"^model\.layers\.0\.mlp.*{reason}.*, and no other block can be edited"
    ):
        require_editable(located)
    require_editable(located, "attention")


def test_rows_of_gate_and_up_that_come_in_turns() -> None:
    options, _ = EXPERTS["gpt_oss"]
    gate, up, _ = locate_mlps(tiny("gpt_oss", **options))[0].routed
    assert [(m.role, m.first_row, m.row_step) for m in (gate, up)] == [("gate", 0, 2), ("up", 1, 2)]
    assert gate.transposed


def test_dense_blocks_among_experts_can_be_edited() -> None:
    located = locate_mlps(tiny("qwen2_moe", **EXPERTS["qwen2_moe"][0], mlp_only_layers=[0, 1]))
    require_editable(located)
    assert [mlp.obstacle is None for mlp in located] == [True, True, False]
    assert located[1].down == "model.layers.1.mlp.down_proj"


def test_lists_of_experts() -> None:
    """Experts as modules of their own, as code on the hub has them; more of them than there are blocks."""
    model = tiny("llama", num_hidden_layers=2)
    for layer in model.get_submodule("model.layers").children():
        dense = layer.mlp
        layer.mlp = nn.Module()
        layer.mlp.experts = nn.ModuleList([copy.deepcopy(dense) for _ in range(4)])
        layer.mlp.gate = nn.Linear(16, 4, bias=False)
        layer.mlp.shared_expert = dense
    located = locate_mlps(model)
    assert [mlp.down for mlp in located] == [f"model.layers.{layer}.mlp.shared_expert.down_proj" for layer in (0, 1)]
    assert [len(mlp.routed) for mlp in located] == [12, 12]
    assert located[0].routed[-1].module == "model.layers.0.mlp.experts.3.down_proj"
    assert located[0].output == "model.layers.0.mlp"


@pytest.mark.parametrize(
    ("place", "second", "reason"),
    [
        ("model.layers.0", False, r"the routed experts model\.layers\.0\.experts are no mixture of their own"),
        ("model.layers.0.mlp", True, r"model\.layers\.0\.mlp holds 2 MLPs beside its routed experts"),
    ],
)
def test_mixtures_of_another_build_cannot_be_edited(place: str, second: bool, reason: str) -> None:
    """Experts beside the rest of the block, as in Gemma 4, and a mixture with two shared experts."""
    model = tiny("llama", num_hidden_layers=1)
    block = model.get_submodule("model.layers.0")
    dense = block.mlp
    if second:
        block.mlp = nn.Module()
        block.mlp.first, block.mlp.second = copy.deepcopy(dense), copy.deepcopy(dense)
    model.get_submodule(place).experts = nn.ModuleList([copy.deepcopy(dense) for _ in range(4)])
    with pytest.raises(UnsupportedModel, match=reason):
        require_editable(locate_mlps(model))


def test_three_dimensional_weights_that_are_no_experts_are_an_error_by_name() -> None:
    model = tiny("llama")
    model.get_submodule("model.layers.1").register_parameter("odd", nn.Parameter(torch.zeros(2, 5, 7)))
    with pytest.raises(UnsupportedModel, match=r"^model\.layers\.1 holds three-dimensional weights \[\(2, 5, 7\)\]"):
        locate_mlps(model)


def test_blocks_that_share_weights_are_refused() -> None:
    model = tiny("llama")
    layers = model.get_submodule("model.layers")
    layers[2].mlp.down_proj = layers[0].mlp.down_proj
    with pytest.raises(UnsupportedModel, match=r"layers\.2\.mlp.* and model\.layers\.0\.mlp.* are one tensor"):
        locate_mlps(model)


def test_a_matrix_without_a_role_is_an_error_by_name() -> None:
    model = tiny("llama")
    model.get_submodule("model.layers.1").memory = nn.Linear(16, 7)
    assert len(locate_mlps(model)) == 3
    with pytest.raises(UnsupportedModel, match=r"^model\.layers\.1\.memory\.weight of LlamaForCausalLM is neither"):
        coverage(model, locate_mlps(model))


def test_coverage_is_told_in_a_line_for_each_run_of_like_blocks() -> None:
    options, _ = EXPERTS["qwen2_moe"]
    model = tiny("qwen2_moe", **options, mlp_only_layers=[0, 1])
    lines = coverage(model, locate_mlps(model)).lines()
    assert lines[0] == "model.layers.0-1: gate mlp.gate_proj 40×16, up mlp.up_proj 40×16, down mlp.down_proj 16×40"
    assert lines[1].startswith("model.layers.2: router mlp.gate 2×16, routed gate+up mlp.experts.gate_up_proj 2×80×16")
    assert re.match(r"^\d+\.\d% of the parameters can be edited, the routed experts stay as they are; ", lines[2])


def test_the_shares_of_a_model_without_experts_add_up_to_the_whole() -> None:
    model = tiny("llama")
    shares = re.findall(r"(\d+\.\d)%", coverage(model, locate_mlps(model)).lines()[-1])
    assert len(shares) == 3
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.2)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no list of transformer blocks"):
        locate_mlps(nn.Linear(3, 3))


@pytest.mark.parametrize("model_type", [*GATED, *FUSED, *EXPERTS, "gpt_neox", "phi", "starcoder2", "gpt2", "bloom"])
def test_attention_writes_to_the_residual_stream_by_one_matrix(model_type: str) -> None:
    model = tiny(model_type, **EXPERTS.get(model_type, ({}, ""))[0])
    for mlp in locate_mlps(model):
        found = attention_output(model, mlp.block, 16)
        assert found is not None
        assert found.module.rpartition(".")[2] in ("o_proj", "dense", "c_proj")
        assert found.parameter in dict(model.named_parameters())


def test_a_query_as_wide_as_the_residual_stream_is_not_the_output() -> None:
    model = tiny("llama", num_key_value_heads=4)
    found = attention_output(model, "model.layers.1", 16)
    assert found is not None
    assert found.module == "model.layers.1.self_attn.o_proj"
    assert (found.in_width, found.out_width) == (16, 16)


def test_attention_without_one_output_is_one_line() -> None:
    model = tiny("llama")
    located = locate_mlps(model)
    model.model.layers[1].self_attn.o_proj = nn.Identity()
    assert attention_output(model, "model.layers.1", 16) is None
    with pytest.raises(UnsupportedModel, match=r"^block model\.layers\.1 .*; use family = 'output'$"):
        changed_matrices(model, located[1], "residual")
    assert len(changed_matrices(model, located[1], "output")) == 1
