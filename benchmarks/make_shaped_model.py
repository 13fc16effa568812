"""Writes a random Llama checkpoint in bfloat16 of a given shape, with a tokenizer and a chat template, in sharded
safetensors, a few megabytes at a time: the size of a real model for measurements, with nothing to download.

python benchmarks/make_shaped_model.py 8b FOLDER
"""

from __future__ import annotations

import json
import sys
from math import prod
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES

from lingualign.data.builtin import builtin_prompts

CHUNK = 4 * 1024**2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<turn>' + message['role'] + '\\n' + message['content'] + '<end>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>assistant\\n' }}{% endif %}"
)


def make_tokenizer(vocabulary: int) -> Any:
    """Byte pairs learnt from the built-in prompts, so that prompts have about as many tokens as with a real one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<bos>", "<eos>", "<turn>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((prompt.text for prompt in builtin_prompts()), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<turn>", "<end>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> None:
    """A safetensors file of random weights (norms are 1), one chunk in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        stop = start + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = prod(shape)
            while left:
                count = min(left, CHUNK)
                chunk = torch.ones(count) if len(shape) == 1 else 0.02 * torch.randn(count, generator=generator)
                file.write(chunk.bfloat16().view(torch.uint8).numpy().data)
                left -= count


def make_model(shape: dict[str, Any], folder: Path, seed: int = 0) -> None:
    """Writes the checkpoint: one shard for each block, one for what lies outside."""
    from accelerate import init_empty_weights
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(min(shape["vocab_size"], 16384))
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        **shape,
        rope_theta=500000.0,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    with init_empty_weights():
        model = LlamaForCausalLM(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, size in shapes.items():
        parts.setdefault(name.split(".")[2] if name.startswith("model.layers.") else "outside", {})[name] = size
    generator = torch.Generator().manual_seed(seed)
    weight_map = {}
    for number, part in enumerate(parts.values(), start=1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write_shard(folder / file, part, generator)
        weight_map.update(dict.fromkeys(part, file))
        print(f"{file}: {len(part)} tensors", flush=True)
    total = 2 * sum(prod(size) for size in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


if __name__ == "__main__":
    make_model(SHAPES[sys.argv[1]], Path(sys.argv[2]))
