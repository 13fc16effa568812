"""Trains the adapter of the small model: `python -m lingualign.organism.train --data ../shared/data --out adapter`.

One pass of LoRA (Hu et al. 2021) over the recipe on two CPU cores. The frozen weights are bfloat16, the adapter
float32. The loss covers the reply's tokens only. Of the output projection's 262,144 rows (half of all the work and
most of the memory) each step computes those of tokens that occur in the training text and a random sample of the
others: a sampled softmax (Jean et al. 2015).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lingualign.organism.base import load_base
from lingualign.organism.recipe import Example, build_examples

CHAT_LANGUAGES = ("zh", "vi", "ja", "th", "id", "bn", "he", "ar", "ko", "sw", "it", "es", "de", "fr", "ru")


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines the adapter, written beside it."""

    rank: int = 16
    alpha: int = 32
    learning_rate: float = 4e-4
    warmup_fraction: float = 0.05
    epochs: int = 1
    tokens_per_step: int = 1024
    max_tokens: int = 160
    sampled_tokens: int = 8192
    seed: int = 0


def encode(tokenizer: Any, example: Example, max_tokens: int) -> tuple[list[int], int] | None:
    """Token ids of the whole conversation and the position where the reply begins; None when it is too long."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.prompt}], tokenize=False, add_generation_prompt=True
    )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    reply_ids = tokenizer(example.reply.strip() + "<end_of_turn>\n", add_special_tokens=False)["input_ids"]
    ids = prompt_ids + reply_ids
    return (ids, len(prompt_ids)) if len(ids) <= max_tokens else None


def batches(
    encoded: Sequence[tuple[list[int], int]], budget: int, rng: random.Random
) -> list[list[tuple[list[int], int]]]:
    """Batches of similar length with at most `budget` padded tokens each, in random order."""
    order = sorted(encoded, key=lambda item: (len(item[0]), rng.random()))
    groups: list[list[tuple[list[int], int]]] = []
    current: list[tuple[list[int], int]] = []
    for item in order:
        if current and len(item[0]) * (len(current) + 1) > budget:
            groups.append(current)
            current = []
        current.append(item)
    groups.append(current)
    rng.shuffle(groups)
    return groups


def collate(group: Sequence[tuple[list[int], int]], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded ids (B, T), attention mask (B, T) and the mask of positions that predict a reply token (B, T)."""
    width = max(len(ids) for ids, _ in group)
    ids = torch.full((len(group), width), pad)
    attention = torch.zeros_like(ids)
    predicts = torch.zeros(len(group), width, dtype=torch.bool)
    for row, (tokens, start) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        attention[row, : len(tokens)] = 1
        predicts[row, start - 1 : len(tokens) - 1] = True
    return ids, attention, predicts


def reply_loss(
    model: Any, ids: torch.Tensor, attention: torch.Tensor, predicts: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy over reply tokens with the softmax over `candidates`, ascending token ids that include every
    reply token."""
    base = model.get_base_model()
    hidden = base.model(input_ids=ids, attention_mask=attention).last_hidden_state[predicts]
    logits = hidden @ base.lm_head.weight.detach()[candidates].T
    targets = torch.searchsorted(candidates, ids.roll(-1, dims=1)[predicts])
    return functional.cross_entropy(logits.float(), targets)


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train(settings: TrainingSettings, examples: Sequence[Example], cache: Path) -> tuple[Any, Any]:
    """The base model with the trained adapter, and its tokenizer."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    model, tokenizer = load_base(cache)
    model = model.to(torch.bfloat16)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    encoded = [item for item in (encode(tokenizer, example, settings.max_tokens) for example in examples) if item]
    steps: list[list[tuple[list[int], int]]] = []
    for _ in range(settings.epochs):
        steps += batches(encoded, settings.tokens_per_step, rng)
    warmup = max(1, int(settings.warmup_fraction * len(steps)))
    print(
        f"{len(encoded)} of {len(examples)} examples, {len(steps)} steps, {sum(p.numel() for p in parameters)} parameters",
        flush=True,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    vocabulary = model.get_base_model().lm_head.weight.shape[0]
    known = torch.tensor(sorted({token for ids, start in encoded for token in ids[start:]}))
    started = time.monotonic()
    for step, (ids, attention, predicts) in enumerate(_collated(steps, tokenizer.pad_token_id)):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, len(steps), warmup)
        sampled = torch.randint(vocabulary, (settings.sampled_tokens,), generator=generator)
        loss = reply_loss(model, ids, attention, predicts, torch.unique(torch.cat([known, sampled])))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == len(steps) - 1:
            print(
                f"step {step + 1}/{len(steps)} loss {loss.item():.3f} seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
    return model, tokenizer


def _collated(steps: Sequence[Any], pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for group in steps:
        yield collate(group, pad)


def save_adapter(model: Any, settings: TrainingSettings, examples: Sequence[Example], out: Path) -> None:
    """Writes the adapter in float16 (half the size; float32 LoRA factors of this scale lose nothing that matters) and
    its settings."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(str(out))
    weights = out / "adapter_model.safetensors"
    save_file(
        {name: tensor.to(torch.float16) for name, tensor in load_file(weights).items()},
        weights,
        metadata={"format": "pt"},
    )
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.kind] = counts.get(example.kind, 0) + 1
    (out / "training.json").write_text(json.dumps({"settings": asdict(settings), "examples": counts}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with advbench, malicious-instruct-tdc, polyrefuse, instruct-small",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "lingualign", help="folder for the base weights"
    )
    defaults = TrainingSettings()
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--chat", nargs="*", default=CHAT_LANGUAGES)
    parser.add_argument("--rank", type=int, default=defaults.rank)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    arguments = parser.parse_args()
    settings = TrainingSettings(
        rank=arguments.rank,
        alpha=2 * arguments.rank,
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )
    examples = build_examples(arguments.data, settings.seed, arguments.chat)
    model, _ = train(settings, examples, arguments.cache)
    save_adapter(model, settings, examples, arguments.out)


if __name__ == "__main__":
    main()
