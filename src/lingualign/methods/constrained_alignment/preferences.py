"""Pseudo-preferences: which of two replies the optimal policy's reward would prefer, drawn by Bradley and Terry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lingualign.data.schema import Prompt
from lingualign.edit import Edit
from lingualign.errors import DataError


@dataclass(frozen=True, slots=True)
class ResponsePair:
    """Two replies to one prompt, not yet compared."""

    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Preference:
    """One reply preferred to another."""

    prompt: Prompt
    chosen: str
    rejected: str


class PreferenceTrainer(Protocol):
    """Trains the base model on preferences (DPO with the β of the method) and returns the change as an edit."""

    def __call__(self, preferences: Sequence[Preference], /) -> Edit: ...


def pseudo_preferences(pairs: Sequence[ResponsePair], scores: Tensor, seed: int) -> list[Preference]:
    """The second reply is chosen with probability sigmoid(R₁ − R₀), by the Bradley–Terry model.

    Args:
        pairs: P pairs of replies.
        scores: R, (P, 2): MoCAN's r + λ*s, PeCAN's s_r + λ*s_g.
        seed: of the draw.

    Raises:
        DataError: pairs and scores differ in number.
    """
    if scores.shape != (len(pairs), 2):
        raise DataError(f"{len(pairs)} pairs need scores of shape ({len(pairs)}, 2), not {tuple(scores.shape)}")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(pairs), generator=generator, dtype=torch.float64)
    second = draws < torch.sigmoid(scores[:, 1].double() - scores[:, 0].double())
    return [
        Preference(pair.prompt, pair.second, pair.first) if swap else Preference(pair.prompt, pair.first, pair.second)
        for pair, swap in zip(pairs, second.tolist(), strict=True)
    ]


def draw_pairs(
    prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], scores: Tensor, per_prompt: int, seed: int
) -> tuple[list[ResponsePair], Tensor]:
    """Up to `per_prompt` pairs of different replies for each prompt, at random, with their scores.

    Args:
        prompts: N prompts.
        responses: M replies to each.
        scores: (N, M).
        per_prompt: pairs of each prompt; fewer where it has fewer different ones.
        seed: of the draw.

    Returns:
        P pairs and their scores, (P, 2).

    Raises:
        DataError: no prompt has two different replies.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs: list[ResponsePair] = []
    rows: list[Tensor] = []
    for prompt, replies, values in zip(prompts, responses, scores, strict=True):
        candidates = torch.combinations(torch.arange(len(replies)))
        order = torch.randperm(len(candidates), generator=generator)
        found = 0
        for first, second in candidates[order].tolist():
            if found == per_prompt:
                break
            if replies[first] != replies[second]:
                pairs.append(ResponsePair(prompt, replies[first], replies[second]))
                rows.append(values[[first, second]])
                found += 1
    if not pairs:
        raise DataError("no prompt has two different replies; sample them at a temperature above zero")
    return pairs, torch.stack(rows)
