"""Sizes of the tiny random models that tests make from configurations of transformers."""

from __future__ import annotations

from typing import Any

HIDDEN, INNER = 32, 48
SMALL: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
