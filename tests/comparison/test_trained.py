"""Trained rivals: which replies become pairs, whose settings win, and that a stacked edit is its parts in order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import ByPrompt
from method_comparison.adapters import SparseEdit
from method_comparison.registry import METHODS, load_methods, load_model_file
from method_comparison.runner import Comparison, Options
from method_comparison.trained import (
    OPENING,
    ModelConstrained,
    PreferenceConstrained,
    Preferences,
    Stacked,
    harmful_pairs,
    harmless_pairs,
    safety_scores,
    sampled_replies,
)
from method_comparison.treatment import Context, Method

from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.models.load import load_model
from lingualign.prompts import resolve_prompts
from lingualign.treatments import load_treatment

MPO = "lingualign.methods.preference.mpo:MPO"
LORA = {"tuning": "lora", "learning_rate": 1e-2, "lora_rank": 2, "num_train_epochs": 1}


@pytest.fixture
def context(model_file: Path, tmp_path: Path) -> Context:
    """With three pairs and five other prompts in each language; seed 7."""
    config = load_model_file(str(model_file)).config
    loaded = load_model(config.model, precision="float32", device="cpu")
    return Context(config, loaded, resolve_prompts(config), ByPrompt(), 7, tmp_path)


def fitted(method: Method, context: Context) -> Edit:
    """The edit, after a check that the model was left as it was."""
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    change = method.fit(context).change
    assert isinstance(change, Edit)
    assert all(torch.equal(value, before[name]) for name, value in context.model.state_dict().items())
    return change


def test_refusals_are_chosen_and_answers_rejected(context: Context) -> None:
    pairs = harmful_pairs(context, 5)
    assert len(pairs) == len(context.anchors.pairs)
    said = {reply.key: reply for reply in context.judged_replies(context.prompts.fit.where(kinds=["harmful"]), 5)}
    for pair in pairs:
        assert pair.target.prompt.language == "th"
        assert pair.target.chosen == pair.reference.chosen == said[pair.reference.prompt.key].text
        assert pair.target.rejected == said[pair.target.prompt.key].text
        assert pair.reference.rejected.startswith(OPENING + " ")


def test_of_harmless_prompts_finished_answers_are_chosen(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Context.judged_replies

    def half(self: Context, prompts: Any, tokens: int) -> Any:
        return [replace(reply, finished=reply.kind == "harmless") for reply in judged(self, prompts, tokens)]

    monkeypatch.setattr(Context, "judged_replies", half)
    pairs = harmless_pairs(context, 5)
    asked = [prompt for prompt in context.anchors.keep if prompt.kind == "harmless" and prompt.language == "th"]
    assert [pair.target.prompt for pair in pairs] == asked
    assert all(pair.reference.prompt.language == "en" for pair in pairs)
    refusals = {reply.text for reply in context.judged_replies(context.prompts.fit, 5) if reply.outcome == "refused"}
    assert {pair.target.rejected for pair in pairs} <= refusals


@pytest.mark.parametrize("method", ["mpo:MPO", "dpo:DPO", "sft:SFT"])
def test_a_trainer_gets_pairs_settings_and_seed(context: Context, method: str) -> None:
    path = f"lingualign.methods.preference.{method}"
    harmful = fitted(Preferences(path, LORA, reply_tokens=5), context)
    training = harmful.manifest["training"]
    assert (training["tuning"], training["lora_rank"], training["seed"]) == ("lora", 2, 7)
    assert harmful.manifest["anchor_pairs"] == len(harmful_pairs(context, 5))
    assert harmful.manifest["model_fingerprint"] == context.loaded.fingerprint
    other = fitted(Preferences(path, LORA, reply_tokens=5), replace(context, seed=8))
    assert other.fingerprint != harmful.fingerprint


def test_harmless_pairs_are_added(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("method_comparison.trained.harmless_pairs", lambda *_: harmful_pairs(context, 4))
    both = fitted(Preferences(MPO, LORA, harmless=True, reply_tokens=5), context)
    assert both.manifest["anchor_pairs"] == 2 * len(context.anchors.pairs)


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="other parameters"):
        Preferences(MPO, LORA, gamma=1.0)
    with pytest.raises(ConfigError, match="other parameters"):
        Preferences(MPO, {"learning_rte": 1.0})
    with pytest.raises(ConfigError, match="positive learning rate"):
        Preferences(MPO, {"learning_rate": -1.0})


def test_a_stacked_edit_is_its_parts_in_order(context: Context, tmp_path: Path) -> None:
    base = fitted(Preferences(MPO, LORA, reply_tokens=5), context)
    method = Stacked(rank=4)
    total = fitted(method, replace(context, base=base))
    assert list(total.manifest["layers"]) == [1, 2]
    assert [part["method"] for part in total.manifest["sum_of"]] == ["mpo", "sparse-weight-edit"]
    # The same by hand: the model is edited for good, and the edit fitted on it.
    other = load_model(context.config.model, precision="float32", device="cpu")
    with torch.no_grad():
        for name, delta in base.deltas.items():
            delta.add_to(other.model.get_parameter(name))
    (tmp_path / "other").mkdir()
    alone = fitted(SparseEdit(rank=4), replace(context, loaded=other, folder=tmp_path / "other"))
    with total.applied(context.model), alone.applied(other.model), torch.no_grad():
        ids = torch.arange(5, 25)[None]
        assert torch.allclose(context.model(ids).logits, other.model(ids).logits, atol=1e-4)
    path = total.save(tmp_path / "treatment.safetensors")
    change = load_treatment(path)
    assert isinstance(change, Edit)
    assert change.fingerprint == total.fingerprint


def test_a_stacked_edit_costs_what_both_cost(model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "methods"
    folder.mkdir()
    shutil.copy(METHODS / "sparse-weight-edit.toml", folder)
    stack = 'description = "x"\nfit = "method_comparison.trained:Stacked"\nbase = "sparse-weight-edit"\n'
    (folder / "stack.toml").write_text(stack, encoding="utf-8")
    methods = load_methods(folder=folder)
    options = Options("select", tmp_path / "results", tmp_path / "work")
    found = {}
    Comparison(load_model_file(str(model_file)), methods, [0], options).run(
        lambda task, record: found.update({task.method.name: record["cost"]})
    )
    base, both = found["sparse-weight-edit"], found["stack"]
    # Two fits of about the same work.
    assert both["product_flops"] > 1.5 * base["product_flops"]
    assert both["seconds"] > base["seconds"]


def test_a_stacked_edit_needs_a_base(context: Context) -> None:
    with pytest.raises(ConfigError, match="needs that as `base`"):
        Stacked().fit(context)


def test_samples_differ_and_depend_on_the_seed_alone(context: Context) -> None:
    prompts = context.anchors.keep[:3]
    state = torch.get_rng_state()
    first = sampled_replies(context, prompts, 4, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(row) for row in first] == [4, 4, 4]
    assert all(len(set(row)) > 1 for row in first)
    assert sampled_replies(context, prompts, 4, 6) == first
    assert sampled_replies(replace(context, seed=8), prompts, 4, 6) != first


def test_safe_is_to_refuse_harm_and_to_answer_the_rest(context: Context) -> None:
    harmful, look_alike = (
        next(prompt for prompt in context.prompts.fit if (prompt.kind, prompt.language) == (kind, "en"))
        for kind in ("harmful", "look-alike")
    )
    scores = safety_scores(context, [harmful, look_alike], [["no", f"{OPENING} do it"], ["yes", "no"]])
    assert scores.tolist() == [[0.9, pytest.approx(0.2)], [pytest.approx(0.8), pytest.approx(0.8)]]


def test_few_seeds_are_sampled_in_all_anchor_languages(context: Context) -> None:
    config = context.config
    turns = config.prompts.model_copy(update={"anchor_languages": ("th", "ja"), "languages_per_seed": 1})
    config = config.model_copy(update={"prompts": turns})
    method = ModelConstrained(margin=0.1, training=LORA, seeds=2, replies=2, reply_tokens=2)
    prompts, replies = method.sampled(replace(context, config=config, prompts=resolve_prompts(config)))
    harmful = [prompt for prompt in prompts if prompt.kind == "harmful" and prompt.language != "en"]
    assert sorted(prompt.language for prompt in harmful) == ["ja", "th"]
    assert len({prompt.seed_id for prompt in harmful}) == 2
    assert [len(group) for group in replies] == [2] * len(prompts)


@pytest.mark.parametrize("name", ["mocan", "pecan"])
def test_the_few_pairs_of_sampled_replies_make_more_than_a_few_steps(name: str) -> None:
    method = load_methods([name])[name].method
    assert isinstance(method, ModelConstrained)
    # One pair for each of at least four prompts a seed.
    batch = method.training.per_device_train_batch_size * method.training.gradient_accumulation_steps
    assert 4 * method.seeds / batch >= 10


@pytest.mark.parametrize("kind", [ModelConstrained, PreferenceConstrained])
def test_constrained_alignment_ends_in_an_edit(
    context: Context, kind: type[ModelConstrained], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is PreferenceConstrained:
        # A random model ends none of its replies.
        monkeypatch.setattr("method_comparison.trained.harmless_pairs", lambda *_: harmful_pairs(context, 4))
    else:
        # A judge that knows one class has no trade-off to make.
        generator = torch.Generator().manual_seed(0)
        monkeypatch.setattr(
            "method_comparison.trained.safety_scores",
            lambda _, prompts, responses: torch.rand(len(prompts), len(responses[0]), generator=generator),
        )
    edit = fitted(kind(margin=0.01, training=LORA, seeds=2, replies=4, reply_tokens=6), context)
    assert edit.deltas
    assert edit.manifest["method"] == ("mocan" if kind is ModelConstrained else "pecan")
    assert edit.manifest["trainer"]["training"]["seed"] == 7
    safer = edit.manifest["multipliers"]
    assert safer["predicted_safety"][0] > safer["reference_safety"][0]
