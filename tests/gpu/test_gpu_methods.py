"""Every method of the comparison fits on a GPU and leaves the model there as it was; closed forms as the processor
does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import ByPrompt, write_model_file
from method_comparison.registry import METHODS, load_model_file
from method_comparison.registry import load_methods as registered
from method_comparison.rivals import SafetyNeurons, SoteriaProxy
from method_comparison.trained import (
    ModelConstrained,
    PreferenceConstrained,
    Preferences,
    Stacked,
    harmful_pairs,
)
from method_comparison.treatment import Context, Method, Treatment

from lingualign.edit import Edit
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.models.load import LoadedModel, model_fingerprint
from lingualign.prompts import resolve_prompts

Load = Callable[[str], LoadedModel]
LORA = {"tuning": "lora", "learning_rate": 1e-2, "lora_rank": 2, "num_train_epochs": 1}
FULL = {"tuning": "full", "learning_rate": 1e-3, "num_train_epochs": 1}
PREFERENCE = "lingualign.methods.preference"
#: Those that solve for their change; the others go down a gradient, where rounding grows.
CLOSED = (
    "sparse-weight-edit",
    "random-neurons",
    "selected-neurons",
    "paper-family",
    "alpha-edit",
    "alpha-edit-relative",
    "memit",
    "alpha-steer",
    "sham",
)


class Unsure(ByPrompt):
    """Gives replies scores that differ, without which nothing is to be traded."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        return [
            replace(judgement, score=0.1 + 0.1 * (len(item.reply) % 8))
            for judgement, item in zip(super().judge(exchanges), exchanges, strict=True)
        ]


def trained(kind: str, settings: dict[str, Any] = LORA) -> Preferences:
    return Preferences(f"{PREFERENCE}.{kind}", settings, reply_tokens=5)


def neurons(variant: str) -> SafetyNeurons:
    return SafetyNeurons(
        variant=variant,
        learning_rate=1e-2,
        gradient_accumulation=1,
        top_number_attn=32,
        top_number_ffn=60,
        top_fraction=0.5,
        batch_size=2,
        find_seeds=2,
        train_seeds=1,
    )


METHODS_OF_A_TINY_MODEL: dict[str, Method] = {
    "mpo": trained("mpo:MPO"),
    "mpo, full": trained("mpo:MPO", FULL),
    "dpo": trained("dpo:DPO"),
    "sft": trained("sft:SFT"),
    "sn-tune": neurons("SN"),
    "shared-safety-neurons": neurons("SS"),
    "mocan": ModelConstrained(margin=0.001, training=LORA, seeds=2, replies=4, reply_tokens=6),
    **{name: registered([name], METHODS)[name].method for name in (*CLOSED[:-1], "babel-steering", "safe-prompt")},
}


@pytest.fixture
def context(on: Load, tiny_model_folder: Path, tmp_path: Path) -> Callable[[str], Context]:
    """What a method is given, on a device: prompts of three kinds in three languages."""
    made = load_model_file(str(write_model_file(tmp_path, tiny_model_folder))).config

    def make(device: str) -> Context:
        folder = tmp_path / device
        folder.mkdir(exist_ok=True)
        config = made.model_copy(update={"device": device})
        return Context(config, on(device), resolve_prompts(config), Unsure(), 7, folder)

    return make


def fitted(method: Method, context: Context) -> Treatment:
    """The treatment, after a look that the model is where and as it was, and that the treatment can be applied."""
    device = next(context.model.parameters()).device
    treatment = method.fit(context)
    assert {parameter.device for parameter in context.model.parameters()} == {device}
    assert model_fingerprint(context.model) == context.loaded.fingerprint
    ids = torch.arange(5, 25, device=device)[None]
    with treatment.change.applied(context.model), torch.no_grad():
        assert torch.isfinite(context.model(ids).logits).all()
    return treatment


@pytest.mark.parametrize("name", METHODS_OF_A_TINY_MODEL)
def test_a_method_fits(name: str, gpu: str, context: Callable[[str], Context]) -> None:
    found = fitted(METHODS_OF_A_TINY_MODEL[name], context(gpu)).change
    if not isinstance(found, Edit):
        return
    assert found.deltas or name == "safe-prompt"
    if name in CLOSED:
        expected = fitted(METHODS_OF_A_TINY_MODEL[name], context("cpu")).change
        assert isinstance(expected, Edit)
        for parameter, delta in expected.deltas.items():
            assert torch.allclose(found.deltas[parameter].dense(), delta.dense(), atol=1e-2 * delta.dense().abs().max())


def test_methods_that_are_made_from_another(gpu: str, context: Callable[[str], Context]) -> None:
    of = context(gpu)
    edit = fitted(METHODS_OF_A_TINY_MODEL["sparse-weight-edit"], of).change
    assert isinstance(edit, Edit)
    for method in (registered(["sham"], METHODS)["sham"].method, Stacked(rank=4)):
        changed = fitted(method, replace(of, base=edit)).change
        assert isinstance(changed, Edit)
        assert changed.deltas


def test_soteria(gpu: str, context: Callable[[str], Context], on: Load, tmp_path: Path) -> None:
    other = on("cpu")
    with torch.no_grad():
        for layer in other.model.model.layers:
            layer.self_attn.o_proj.weight.add_(0.5)
    other.model.save_pretrained(tmp_path / "pretrained")
    other.tokenizer.save_pretrained(tmp_path / "pretrained")
    of = context(gpu)
    known = {of.config.model: str(tmp_path / "pretrained")}
    assert fitted(SoteriaProxy(pretrained=known, shots=1, prompts=1, share=0.25), of).change.deltas


def test_constrained_alignment_of_preferences(
    gpu: str, context: Callable[[str], Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model ends none of its replies.
    of = context(gpu)
    monkeypatch.setattr("method_comparison.trained.harmless_pairs", lambda *_: harmful_pairs(of, 4))
    method = PreferenceConstrained(margin=0.01, training=LORA, seeds=2, replies=4, reply_tokens=6)
    assert fitted(method, of).change.deltas
