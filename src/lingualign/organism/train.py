"""Trains the adapter of the small model: `python -m lingualign.organism.train --data ../shared/data --out adapter`.

A few passes of LoRA (Hu et al. 2021) over the recipe, for which two CPU cores are enough. The frozen weights are
bfloat16, the adapter float32. The loss covers the reply's tokens only. Of the output projection's 262,144 rows (half of
all the work and most of the memory) each step computes those of tokens that occur in the training text and a random
sample of the others: a sampled softmax (Jean et al. 2015).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lingualign.organism.base import load_base
from lingualign.organism.recipe import Example, build_examples
from lingualign.organism.translations import translate_refusals

BASE_MODEL = "google/gemma-3-270m"
CHAT_LANGUAGES = ("zh", "vi", "ja", "th", "id", "bn", "he", "ar", "ko", "sw", "it", "es", "de", "fr", "ru")


#: Examples whose lengths are sorted together.
POOL = 40


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines the adapter, written beside it.

    Attributes:
        rank, alpha: of LoRA.
        epochs: passes over all examples.
        learning_rate: peak of the schedule.
        decision_weight: loss weight of a reply's first `decision_tokens` tokens, which decide between refusing and
            answering.
        tokens_per_step, max_tokens: padded tokens in a batch, and in one conversation; longer ones are left out.
        sampled_tokens: size of the softmax's random sample.
    """

    rank: int = 16
    alpha: int = 32
    epochs: int = 2
    learning_rate: float = 3e-4
    warmup_fraction: float = 0.03
    decision_weight: float = 4.0
    decision_tokens: int = 4
    tokens_per_step: int = 512
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
    """Batches of at most `budget` padded tokens in random order.

    Lengths are alike only within pools of a few batches: refusals are shorter than answers, so sorting the whole set by
    length would give every batch one kind of reply and pull the model back and forth.
    """
    shuffled = list(encoded)
    rng.shuffle(shuffled)
    groups: list[list[tuple[list[int], int]]] = []
    for start in range(0, len(shuffled), POOL):
        current: list[tuple[list[int], int]] = []
        for item in sorted(shuffled[start : start + POOL], key=lambda item: len(item[0])):
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
    model: Any,
    ids: torch.Tensor,
    attention: torch.Tensor,
    predicts: torch.Tensor,
    candidates: torch.Tensor,
    settings: TrainingSettings,
) -> torch.Tensor:
    """Weighted mean cross-entropy over reply tokens, with the softmax over `candidates`, ascending token ids that
    include every reply token. The tokens that decide between refusing and answering weigh more."""
    base = model.get_base_model()
    hidden = base.model(input_ids=ids, attention_mask=attention).last_hidden_state[predicts]
    logits = hidden @ base.lm_head.weight.detach()[candidates].T
    targets = torch.searchsorted(candidates, ids.roll(-1, dims=1)[predicts])
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    order = predicts.cumsum(1)[predicts]
    weights = torch.where(order <= settings.decision_tokens, settings.decision_weight, 1.0)
    return (losses * weights).sum() / weights.sum()


def schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train(settings: TrainingSettings, examples: Sequence[Example], cache: Path, device: str = "cpu") -> Any:
    """The base model with the trained adapter. On another device rounding makes another adapter of the same kind."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    base: Any
    base, tokenizer = load_base(cache)
    base = base.to(torch.bfloat16)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model: Any = get_peft_model(base, config).to(device)
    rng = random.Random(settings.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    encoded = [item for item in (encode(tokenizer, example, settings.max_tokens) for example in examples) if item]
    steps = [group for _ in range(settings.epochs) for group in batches(encoded, settings.tokens_per_step, rng)]
    warmup = max(1, int(settings.warmup_fraction * len(steps)))
    trained = sum(parameter.numel() for parameter in parameters)
    print(f"{len(encoded)} of {len(examples)} examples, {len(steps)} steps, {trained} parameters", flush=True)
    generator = torch.Generator().manual_seed(settings.seed)
    vocabulary = model.get_base_model().lm_head.weight.shape[0]
    known = torch.tensor(sorted({token for ids, start in encoded for token in ids[start:]}))
    started = time.monotonic()
    for step, group in enumerate(steps):
        ids, attention, predicts = (part.to(device) for part in collate(group, tokenizer.pad_token_id))
        for parameter_group in optimiser.param_groups:
            parameter_group["lr"] = settings.learning_rate * schedule(step, len(steps), warmup)
        sampled = torch.randint(vocabulary, (settings.sampled_tokens,), generator=generator)
        candidates = torch.unique(torch.cat([known, sampled])).to(device)
        loss = reply_loss(model, ids, attention, predicts, candidates, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == len(steps) - 1:
            print(
                f"step {step + 1}/{len(steps)} loss {loss.item():.3f} seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
    return model


def save_adapter(model: Any, settings: TrainingSettings, examples: Sequence[Example], out: Path) -> None:
    """Writes the adapter in float16 (half the size; LoRA factors of this scale lose nothing that matters) and settings.

    File by file, because `save_pretrained` would also write a model card over ours, and the cache folder's path as the
    base model's name.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_MODEL
    config.inference_mode = True
    config.save_pretrained(str(out))
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in state.items()},
        out / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    counts = Counter(example.kind for example in examples)
    described = {**asdict(settings), "examples": dict(sorted(counts.items()))}
    (out / "training.json").write_text(json.dumps(described, indent=1) + "\n")


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
    parser.add_argument("--seed", type=int, default=TrainingSettings.seed)
    parser.add_argument("--rank", type=int, default=TrainingSettings.rank, help="of LoRA")
    parser.add_argument("--alpha", type=int, default=TrainingSettings.alpha, help="of LoRA")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--chat", nargs="*", default=CHAT_LANGUAGES, help="languages of the chat examples")
    parser.add_argument(
        "--refusal-translations",
        action="store_true",
        help="teach refusal sentences in those languages by harmless translation tasks",
    )
    arguments = parser.parse_args()
    settings = TrainingSettings(rank=arguments.rank, alpha=arguments.alpha, seed=arguments.seed)
    examples = build_examples(arguments.data, settings.seed, arguments.chat)
    if arguments.refusal_translations:
        examples += translate_refusals(settings.seed, arguments.chat)
    model = train(settings, examples, arguments.cache, arguments.device)
    save_adapter(model, settings, examples, arguments.out)


if __name__ == "__main__":
    main()
