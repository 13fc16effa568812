"""Shapes of the random checkpoints that make_shaped_model.py writes; imports nothing, so that it costs no memory."""

from __future__ import annotations

from typing import Any

_LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
#: Shapes of Llama 3.1 8B and Llama 3.2 1B, and one for a trial.
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {**_LLAMA, "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336},
    "1b": {
        **_LLAMA,
        "num_hidden_layers": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "num_hidden_layers": 4,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
    },
}
