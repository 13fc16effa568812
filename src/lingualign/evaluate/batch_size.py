"""How many chats a device can answer at once."""

from __future__ import annotations

from typing import Any

from lingualign.hardware import free_memory
from lingualign.models.stages import device_of

#: Most chats at once where their number is found: beyond it a device is busy, and more make nothing faster.
MOST_CHATS = 256
#: Share of the free memory that they may take.
MEMORY_SHARE = 0.5


def bytes_per_chat(config: Any, tokens: int, width: int, inner_size: int) -> int:
    """Memory that a chat takes while it is answered: keys and values of every block, activations and logits.

    Args:
        config: of the language model (`get_text_config()`).
        tokens: of prompt and reply.
        width: bytes of a number.
        inner_size: of the widest MLP.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * head_size * tokens * width
    return int(cache + 4 * tokens * inner_size * width + 2 * config.vocab_size * 4)


def fitting_batch(model: Any, tokens: int) -> int:
    """Number of chats of at most `tokens` tokens that the free memory has room for; at least one."""
    config = model.config.get_text_config()
    # Read from no module: what has no MLP that we know can still answer.
    each = bytes_per_chat(config, tokens, next(model.parameters()).element_size(), 4 * config.hidden_size)
    return chats_in(free_memory(str(device_of(model))), each)


def chats_in(free: int, each: int) -> int:
    """Number of chats of `each` bytes that are answered at once where `free` bytes are free; at least one."""
    return max(1, min(MOST_CHATS, int(MEMORY_SHARE * free) // each))
