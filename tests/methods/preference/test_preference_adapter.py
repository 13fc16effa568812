"""From a trained copy to an edit: exact, and the user's model untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lingualign.errors import ConfigError, UnsupportedModel
from lingualign.methods.preference.adapter import Trainee, factors, linear_weights, shared_copy

IDS = torch.tensor([[5, 9, 30, 41, 7]])


def _disturb(trainee: Trainee) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainee.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def _trainee(model: Any, tuning: Any) -> Trainee:
    trainee = Trainee.of(model, tuning, rank=4, alpha=12)
    trainee.add_adapter()
    return trainee


@torch.no_grad()
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_edit_gives_the_trained_copys_logits(tiny_model: Any, tuning: Any) -> None:
    model = tiny_model[0]
    before = copy.deepcopy(model.state_dict())
    trainee = _trainee(model, tuning)
    assert torch.equal(trainee.network(IDS).logits, model(IDS).logits)
    assert not trainee.edit(None).deltas
    _disturb(trainee)
    trained = trainee.network(IDS).logits
    assert (trained - model(IDS).logits).abs().max() > 0.1
    edit = trainee.edit(None)
    with edit.applied(model):
        assert torch.allclose(model(IDS).logits, trained, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(edit.deltas) == 28
    assert {entry["residual"] for entry in edit.manifest["diagnostics"]} == {0.0}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_copy_shares_what_is_not_trained_and_nothing_else(tiny_model: Any, tuning: Any) -> None:
    model = tiny_model[0]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    trainee = _trainee(model, tuning)
    trainee.network.config.pad_token_id = 77
    assert model.config.pad_token_id != 77
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert trainee.network.model.embed_tokens.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    layer = trainee.network.model.layers[0].mlp.up_proj
    frozen = layer.base_layer if tuning == "lora" else layer
    assert (frozen.weight.data_ptr() == model.model.layers[0].mlp.up_proj.weight.data_ptr()) == (tuning == "lora")
    # Linear layers of the blocks and nothing else: no norm, embedding or output head.
    expected = {"full": linear_weights(model) - model.lm_head.weight.numel(), "lora": sum(4 * n for n in _sizes(model))}
    assert sum(parameter.numel() for parameter in trainee.parameters()) == expected[tuning]


def _sizes(model: Any) -> list[int]:
    linear = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    return [module.in_features + module.out_features for module in linear]


def test_full_fine_tuning_of_bfloat16_keeps_steps_that_bfloat16_would_round_away(tiny_model: Any) -> None:
    model = tiny_model[0].to(torch.bfloat16)
    trainee = _trainee(model, "full")
    with torch.no_grad(), trainee.arithmetic():
        assert trainee.network(IDS).logits.dtype == torch.bfloat16
        assert torch.equal(trainee.network(IDS).logits, model(IDS).logits)
        for parameter in trainee.parameters():
            parameter.add_(1e-7)
    edit = trainee.edit(None)
    assert len(edit.deltas) == 28
    assert all(delta.dense().mean().item() == pytest.approx(1e-7, rel=0.05) for delta in edit.deltas.values())
    # The change is in the edit, and the manifest tells that little of it reaches the weights.
    assert all(entry["realised"] != pytest.approx(1.0, rel=0.1) for entry in edit.manifest["diagnostics"])


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_factors_are_exact_or_the_best_of_their_rank(shape: tuple[int, int]) -> None:
    difference = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out_factor, in_factor, residual = factors(difference, None)
    assert torch.equal(out_factor @ in_factor.T, difference)
    assert residual == 0.0
    out_factor, in_factor, residual = factors(difference, 2)
    assert out_factor.shape == (shape[0], 2)
    left_out = difference - out_factor @ in_factor.T
    assert residual == pytest.approx(float(left_out.norm() / difference.norm()), rel=1e-4)
    sigma = torch.linalg.svdvals(difference)
    assert float(left_out.norm()) == pytest.approx(float(sigma[2:].norm()), rel=1e-4)


def test_what_cannot_be_trained_is_refused(tiny_model: Any) -> None:
    model = tiny_model[0]
    with pytest.raises(ConfigError, match="float16"):
        _trainee(shared_copy(model).to(torch.float16), "full")
    bare = shared_copy(model)
    bare.model.layers = torch.nn.ModuleList()
    with pytest.raises(UnsupportedModel, match="no linear layers"):
        _trainee(bare, "lora")
