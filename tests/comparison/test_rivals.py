"""The rivals on the tiny model: where blocks, examples and harm vector come from, and that what they make loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from method_comparison.adapters import Anchored
from method_comparison.registry import load_method, load_model_file
from method_comparison.rivals import SafetyNeurons, SoteriaProxy, refusal_examples
from method_comparison.treatment import Context, Method

from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.models.load import load_model, model_fingerprint
from lingualign.prompts import resolve_prompts
from lingualign.treatments import Treatment, load_treatment


class RefusedJudge:
    """Calls every reply to a prompt with one of the given words a refusal."""

    name = "made-up"

    def __init__(self, *words: str) -> None:
        self.words = words

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        return [
            Judgement("refused" if any(word in exchange.prompt for word in self.words) else "answered", 0.5, "en")
            for exchange in exchanges
        ]


@pytest.fixture
def context(model_file: Path, tmp_path: Path) -> Context:
    config = load_model_file(str(model_file)).config
    loaded = load_model(config.model, precision="float32", device="cpu")
    return Context(config, loaded, resolve_prompts(config), RefusedJudge("harmful"), 7, tmp_path)


def fitted(method: Method, context: Context) -> Treatment:
    """What the method makes, read back from its file; the model is as it was."""
    change = method.fit(context).change
    assert model_fingerprint(context.model) == context.loaded.fingerprint
    path = context.folder / f"{change.manifest['method']}.safetensors"
    change.save(path)
    read = load_treatment(path)
    with read.applied(context.model):
        pass
    return read


@pytest.mark.parametrize("name", ["alpha-edit", "alpha-edit-relative", "memit", "alpha-steer"])
def test_a_closed_form_is_in_the_blocks_of_the_models_file(name: str, context: Context) -> None:
    assert fitted(load_method(name).method, context).manifest["layers"] == [1, 2]


def test_where_the_models_file_names_no_blocks_a_method_has_its_own_rule(context: Context) -> None:
    automatic = context.config.model_copy(update={"edit": context.config.edit.model_copy(update={"layers": "auto"})})
    found = fitted(load_method("alpha-steer").method, replace(context, config=automatic))
    assert found.manifest["layer_scores"] is not None


def test_a_method_with_blocks_of_its_own_keeps_them(context: Context) -> None:
    path = "lingualign.methods.steering.babel_steering:BabelSteering"
    assert fitted(Anchored(path, layers=[3]), context).manifest["layers"] == [3]


def neurons(variant: str, **parameters: Any) -> SafetyNeurons:
    given = {"top_number_attn": 32, "top_number_ffn": 60, "top_fraction": 0.5, "batch_size": 2, **parameters}
    return SafetyNeurons(variant=variant, learning_rate=1e-2, gradient_accumulation=1, **given)


@pytest.mark.parametrize("variant", ["SN", "SS"])
def test_neurons_are_found_and_trained_in_the_anchors_languages(variant: str, context: Context) -> None:
    edit = fitted(neurons(variant, find_seeds=2, train_seeds=1), context)
    assert isinstance(edit, Edit)
    assert edit.deltas
    # One seed in English and Thai; Japanese is audited and no anchor.
    assert edit.manifest["examples"] == 2
    assert edit.manifest["languages"] == ["en", "th"]
    assert edit.manifest["settings"]["seed"] == 7


def test_every_language_learns_the_refusal_of_the_reference(context: Context) -> None:
    prompts = context.prompts.fit
    examples = refusal_examples(context, prompts)
    harmful = prompts.where(kinds=["harmful"])
    assert [prompt for prompt, _ in examples] == [prompt.text for prompt in harmful]
    replies = context.judged_replies(harmful.where(languages=["en"]), context.config.audit.max_new_tokens)
    own = {reply.seed_id: reply.text for reply in replies}
    assert [reply for _, reply in examples] == [own[prompt.seed_id] for prompt in harmful]


def test_what_the_model_answers_is_no_example(context: Context, tmp_path: Path) -> None:
    first = context.prompts.fit.seeds("harmful")[0]
    text = next(prompt.text for prompt in context.prompts.fit if (prompt.seed_id, prompt.language) == (first, "en"))
    only = refusal_examples(replace(context, judge=RefusedJudge(text)), context.prompts.fit)
    assert len(only) == len(context.prompts.fit.languages)
    with pytest.raises(DataError, match="refuses none of 4 harmful prompts in en"):
        refusal_examples(replace(context, judge=RefusedJudge(), folder=tmp_path / "none"), context.prompts.fit)


def test_soteria_subtracts_pretrained_minus_chat(context: Context, tmp_path: Path) -> None:
    with torch.no_grad():
        pretrained = load_model(context.config.model, precision="float32", device="cpu")
        for layer in pretrained.model.model.layers:
            layer.self_attn.o_proj.weight.add_(0.5)
    pretrained.model.save_pretrained(tmp_path / "pretrained")
    pretrained.tokenizer.save_pretrained(tmp_path / "pretrained")
    known = {context.config.model: str(tmp_path / "pretrained")}
    edit = fitted(SoteriaProxy(pretrained=known, shots=1, prompts=1, share=0.25), context)
    assert isinstance(edit, Edit)
    assert edit.manifest["harm_vector"] == "proxy"
    assert edit.manifest["settings"]["languages"] == ["th"]
    for delta in edit.deltas.values():
        change = delta.dense()
        assert torch.allclose(change[change != 0], torch.tensor(-0.5), atol=1e-6)
    control = SoteriaProxy(pretrained=known, share=0.25, heads="random").fit(replace(context, base=edit))
    assert control.change.manifest["indirect_effects"] == edit.manifest["indirect_effects"]
    assert len(control.change.manifest["heads"]) == len(edit.manifest["heads"])
    assert control.change.manifest["seconds"]["heads"] < 0.1


def test_soteria_needs_a_pretrained_checkpoint(context: Context) -> None:
    with pytest.raises(ConfigError, match="add it to `pretrained`"):
        SoteriaProxy(pretrained={}).fit(context)


def test_parameters_are_checked_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="other parameters"):
        SafetyNeurons(variants="SN")
    with pytest.raises(ConfigError, match="share must be"):
        SoteriaProxy(pretrained={}, share=2.0)
