"""Which attention heads carry a task in a language: causal mediation on few-shot prompts.

A head's mean output over prompts with right answers is written into a prompt whose examples were shuffled, at the last
token; what this adds to the probability of the right answer is the head's indirect effect (Todd et al. 2024, Function
Vectors in Large Language Models, arXiv 2310.15213, whose procedure Soteria takes over).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.soteria.tasks import FewShotPrompt, Task, few_shot_prompts
from lingualign.models.chat import EncodedChat
from lingualign.models.heads import AttentionOutput, locate_attention_outputs

#: (layer, head), both from zero.
Head = tuple[int, int]
#: Heads patched in one forward pass: memory and speed only.
_BATCH = 128


def indirect_effects(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Task],
    *,
    shots: int = 10,
    prompts: int = 25,
    seed: int = 0,
    on_prompt: Callable[[], None] = lambda: None,
) -> Tensor:
    """Mean indirect effect of every head over the tasks' prompts. Shape (layers, heads), float64.

    IE(l, h) = P(answer | shuffled prompt, head patched with its mean) − P(answer | shuffled prompt), where means are
    the task's own. Only the last token is patched, so the tokens before it run once per prompt, not once per head.

    Args:
        model, tokenizer: a causal LM.
        tasks: tasks in one language.
        shots: solved examples per prompt.
        prompts: prompts per task for the means, and as many shuffled ones for the effects.
        seed: of the draws.
        on_prompt: called after each shuffled prompt, for progress.

    Raises:
        DataError: a task has too few pairs.
        UnsupportedModel: the attention output matrices are not found.
    """
    outputs = locate_attention_outputs(model)
    total = torch.zeros(len(outputs), outputs[0].heads, dtype=torch.float64)
    for index, task in enumerate(tasks):
        generator = np.random.default_rng([seed, index])
        options: dict[str, Any] = {"shots": shots, "count": prompts, "generator": generator}
        means = _mean_outputs(model, outputs, few_shot_prompts(tokenizer, task, shuffled=False, **options))
        for prompt in few_shot_prompts(tokenizer, task, shuffled=True, **options):
            total += _effects(model, outputs, means, prompt)
            on_prompt()
    return total / (len(tasks) * prompts)


def top_heads(effects: Tensor, share: float) -> frozenset[Head]:
    """The given share of heads with the largest effects (layers, heads)."""
    heads = effects.shape[1]
    kept = effects.flatten().topk(max(1, round(share * effects.numel()))).indices.tolist()
    return frozenset((index // heads, index % heads) for index in kept)


def group_heads(by_language: Mapping[str, frozenset[Head]], minimum: int) -> frozenset[Head]:
    """Heads that are in at least `minimum` languages' sets, or in the only one."""
    needed = min(minimum, len(by_language))
    every = frozenset().union(*by_language.values())
    return frozenset(head for head in every if sum(head in chosen for chosen in by_language.values()) >= needed)


def _mean_outputs(model: Any, outputs: Sequence[AttentionOutput], prompts: Sequence[FewShotPrompt]) -> list[Tensor]:
    """Per layer the mean of all heads' outputs at the last token, (heads · head_size,)."""
    sites = [Site(output.module, "input") for output in outputs]
    chats = [EncodedChat(prompt.ids, (0, len(prompt.ids)), len(prompt.ids)) for prompt in prompts]
    rows = collect_rows(model, chats, sites, Positions(template_tokens=1))
    return [rows[site][:, 0].mean(0) for site in sites]


@torch.inference_mode()
def _effects(model: Any, outputs: Sequence[AttentionOutput], means: Sequence[Tensor], prompt: FewShotPrompt) -> Tensor:
    """IE of every head on one prompt, (layers, heads)."""
    device = next(model.parameters()).device
    ids = torch.tensor([prompt.ids], device=device)
    prefix = model(input_ids=ids[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
    heads = outputs[0].heads
    every: list[Head] = [(layer, head) for layer in range(len(outputs)) for head in range(heads)]
    effects = torch.zeros(len(outputs), heads, dtype=torch.float64)
    # The pass continues a copy: it writes into what it continues. Equal batches, so that their memory is reused.
    size = math.ceil(len(every) / math.ceil(len(every) / _BATCH))
    for start in range(0, len(every), size):
        batch = every[start : start + size]
        # Row 0 is left unpatched: the probability to compare with, from the same pass and its rounding.
        cache = copy.deepcopy(prefix)
        cache.batch_repeat_interleave(1 + len(batch))
        with ExitStack() as stack:
            for layer, output in enumerate(outputs):
                rows = {1 + row: output.columns(head) for row, (where, head) in enumerate(batch) if where == layer}
                if rows:
                    hook = _patch(means[layer].to(device), rows)
                    stack.callback(model.get_submodule(output.module).register_forward_pre_hook(hook).remove)
            last = ids[:, -1:].expand(1 + len(batch), 1)
            logits = model(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1]
        probability = logits.float().softmax(-1)[:, prompt.answer].double().cpu()
        for row, (layer, head) in enumerate(batch, start=1):
            effects[layer, head] = probability[row] - probability[0]
    return effects


def _patch(mean: Tensor, rows: Mapping[int, slice]) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A hook that writes the mean into each row's columns at the last token."""

    def hook(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = args[0].clone()
        for row, columns in rows.items():
            values[row, -1, columns] = mean[columns].to(values.dtype)
        return (values, *args[1:])

    return hook
