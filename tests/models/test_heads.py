"""Finding attention output matrices in tiny models of many families, and the one clear error for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lingualign.errors import UnsupportedModel
from lingualign.models.heads import locate_attention_outputs

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _tiny(model_type: str, **options: Any) -> nn.Module:
    config = AutoConfig.for_model(model_type, **{**SMALL, **options})
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize(
    ("model_type", "options", "head_size"),
    [
        ("llama", {}, 4),
        ("llama", {"head_dim": 96}, 96),
        ("qwen2", {}, 4),
        ("qwen3", {"head_dim": 6}, 6),
        ("gemma3_text", {"head_dim": 10}, 10),
        ("phi3", {"num_key_value_heads": 4}, 4),
        ("mixtral", {"num_local_experts": 2}, 4),
        ("phi", {}, 4),
        ("gpt_neox", {}, 4),
        ("opt", {"ffn_dim": 40, "word_embed_proj_dim": 16}, 4),
    ],
)
def test_heads_share_the_columns_of_every_block(model_type: str, options: dict[str, Any], head_size: int) -> None:
    model = _tiny(model_type, **options)
    found = locate_attention_outputs(model)
    assert [(output.heads, output.head_size) for output in found] == [(4, head_size)] * 3
    parameters = dict(model.named_parameters())
    for index, output in enumerate(found):
        assert f".{index}." in output.module
        columns = [column for head in range(4) for column in range(4 * head_size)[output.columns(head)]]
        assert columns == list(range(parameters[output.parameter].shape[1]))


def test_a_model_without_them_is_named() -> None:
    with pytest.raises(UnsupportedModel, match="3 blocks and 0 attention output matrices"):
        locate_attention_outputs(_tiny("gpt2", n_layer=3, n_head=4, n_embd=16))
