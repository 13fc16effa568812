"""What stages take, against sizes that are known: files that a run left, and tensors that are made."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lingualign.evaluate.utility.perplexity import LOGITS_PER_BATCH
from lingualign.features.moments import Moments
from lingualign.footprint import FitSizes, ModelSizes, diverging, scoring

#: The shape of the small model.
GEMMA = SimpleNamespace(
    vocab_size=262_144,
    hidden_size=640,
    num_hidden_layers=18,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=256,
)
SIZES = ModelSizes(GEMMA, 268_098_176, 640, 2048, 2, 2)
DEMO = FitSizes(
    blocks=7,
    widths=((2048, 640),),
    positions=9,
    pairs=812,
    references=406,
    keep=1498,
    kinds=3,
    tokens=103_044,
    dual=False,
    rank=128,
)


def test_files_are_those_that_the_demo_left() -> None:
    # What one block left, in bytes: reference, two shards of inputs and of outputs, moments of three kinds.
    block = 9_354_240 + 37_748_736 + 22_118_400 + 11_796_480 + 6_912_000 + 3 * (8 * 2048**2 + 8 * 2048 + 8)
    assert DEMO.feature_files == 7 * block
    assert DEMO.edit_file == 7 * 4 * 128 * (2048 + 640)


def test_moments_are_as_large_as_they_are() -> None:
    fit = FitSizes(1, ((96, 64),), 5, 0, 0, 20, 2, 0, dual=False, rank=None)
    moments = Moments.empty(96)
    assert fit.feature_files == 2 * (moments.outer.nbytes + moments.total.nbytes + torch.tensor(0).nbytes)


def test_a_narrow_fit_keeps_rows_in_place_of_moments() -> None:
    fit = FitSizes(3, 2 * ((96, 64),), 5, 6, 3, 20, 2, 0, dual=True, rank=8)
    rows = [torch.empty(6, 5, 96), torch.empty(6, 5, 64), torch.empty(3, 5, 64), torch.empty(20, 5, 96)]
    assert fit.feature_files == 3 * 2 * sum(tensor.nbytes for tensor in rows)
    assert fit.edit_file == 3 * 2 * sum(tensor.nbytes for tensor in (torch.empty(96, 8), torch.empty(64, 8)))


def test_an_unconstrained_edit_has_factors_of_full_rank() -> None:
    assert FitSizes(1, ((96, 64),), 1, 1, 1, 1, 1, 0, dual=False, rank=None).edit_file == 4 * 64 * (96 + 64)


def test_solving_takes_more_than_what_is_solved_from() -> None:
    system = torch.empty(2048, 2048, dtype=torch.float64).nbytes
    rows = torch.empty(7308, 2048 + 640, dtype=torch.float64).nbytes
    assert rows + 5 * system < DEMO.in_main_memory < 2 * (rows + 5 * system)


def test_weights_and_states() -> None:
    assert SIZES.weights == 536_196_352
    assert SIZES.converted == 0
    assert ModelSizes(GEMMA, 268_098_176, 640, 2048, 4, 2).converted == 536_196_352
    assert DEMO.carried(SIZES) == torch.empty(103_044, 640, dtype=torch.bfloat16).nbytes


def test_answering_holds_keys_and_values_of_every_block() -> None:
    keys = torch.empty(64, 1, 60, 256, dtype=torch.bfloat16)
    logits = torch.empty(64, GEMMA.vocab_size, dtype=torch.float32)
    assert SIZES.answering(64, 60) > 2 * 18 * keys.nbytes + logits.nbytes
    assert SIZES.answering(64, 60) == 64 * SIZES.answering(1, 60)


@pytest.mark.parametrize(("tokens", "rows", "single"), [(40, 40, 40), (100_000, 512, 64)])
def test_scoring_holds_the_logits_of_a_batch(tokens: int, rows: int, single: int) -> None:
    expected = rows * 262_144 * 2 + 2 * single * 262_144 * 4
    assert scoring(SIZES, tokens, LOGITS_PER_BATCH, 64) == expected


def test_divergence_holds_the_base_models_logits() -> None:
    # Fifteen prompts of 34 tokens: ten fit a batch of 512 tokens with their replies.
    row = 262_144 * 2
    expected = 15 * 16 * row + 3 * 10 * 16 * row + 5 * 16 * 262_144 * 4
    assert diverging(SIZES, [34] * 15, 16, LOGITS_PER_BATCH, 2**29) == expected
    # A small limit holds one batch all the same.
    assert diverging(SIZES, [34] * 15, 16, LOGITS_PER_BATCH, 1) == expected - 5 * 16 * row
