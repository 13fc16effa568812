"""Soteria: heads by a plain loop of the equation, the mask's columns, the harm vector, undoing."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from lingualign.data.builtin import BUILTIN_LANGUAGES
from lingualign.errors import ConfigError, DataError, UnsupportedModel
from lingualign.methods.soteria import (
    HarmVector,
    Soteria,
    Task,
    builtin_tasks,
    group_heads,
    indirect_effects,
    top_heads,
    weights_of,
)
from lingualign.methods.soteria.tasks import few_shot_prompts
from lingualign.models.heads import locate_attention_outputs

SHORT = {"shots": 3, "prompts": 2}


def _gemma() -> Any:
    """Grouped queries, heads of 96 that are not hidden size / heads, attention that slides over 8 tokens."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gemma3ForCausalLM(
            Gemma3TextConfig(
                vocab_size=320,
                hidden_size=48,
                intermediate_size=80,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=96,
                sliding_window=8,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                initializer_range=0.15,
            )
        ).eval()


@pytest.fixture(params=["llama", "gemma"])
def model_and_tokenizer(request: pytest.FixtureRequest, tiny_model: Any) -> tuple[Any, Any]:
    model, tokenizer = tiny_model
    return (model, tokenizer) if request.param == "llama" else (_gemma(), tokenizer)


def _other(model: Any, seed: int = 1) -> Any:
    """A model of the same kind whose attention outputs differ."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for output in locate_attention_outputs(other):
            weight = other.get_submodule(output.module).weight
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return other


@torch.no_grad()
def _plain_effects(model: Any, tokenizer: Any, task: Task) -> torch.Tensor:
    """IE by one whole forward pass per head, from the equation."""
    generator = np.random.default_rng([0, 0])
    options: Any = {"shots": 3, "count": 2, "generator": generator}
    clean = few_shot_prompts(tokenizer, task, shuffled=False, **options)
    shuffled = few_shot_prompts(tokenizer, task, shuffled=True, **options)
    layers = [model.get_submodule(f"model.layers.{index}.self_attn.o_proj") for index in range(len(model.model.layers))]
    heads = model.config.num_attention_heads
    size = model.config.head_dim
    means = []
    for layer in layers:
        seen: list[torch.Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0][0, -1]))
        for prompt in clean:
            model(torch.tensor([prompt.ids]))
        handle.remove()
        means.append(torch.stack(seen).mean(0))

    def probability(prompt: Any) -> float:
        return float(model(torch.tensor([prompt.ids])).logits[0, -1].softmax(-1)[prompt.answer])

    effects = torch.zeros(len(layers), heads, dtype=torch.float64)
    for prompt in shuffled:
        unpatched = probability(prompt)
        for index, layer in enumerate(layers):
            for head in range(heads):

                def patch(_module: Any, args: Any, index: int = index, head: int = head) -> Any:
                    values = args[0].clone()
                    values[0, -1, head * size : (head + 1) * size] = means[index][head * size : (head + 1) * size]
                    return (values,)

                handle = layer.register_forward_pre_hook(patch)
                effects[index, head] += (probability(prompt) - unpatched) / len(shuffled)
                handle.remove()
    return effects


def test_effects_are_those_of_a_plain_loop(model_and_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = model_and_tokenizer
    before = copy.deepcopy(model.state_dict())
    task = builtin_tasks("it")[1]
    wanted = _plain_effects(model, tokenizer, task)
    assert float(wanted.abs().max()) > 1e-4
    # Batches that end within a layer.
    monkeypatch.setattr("lingualign.methods.soteria.heads._BATCH", 5)
    found = indirect_effects(model, tokenizer, [task], **SHORT)
    assert torch.allclose(found, wanted, atol=1e-6, rtol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_effects_are_means_over_tasks(tiny_model: Any) -> None:
    tasks = builtin_tasks("sw")[:2]
    first = indirect_effects(*tiny_model, tasks[:1], **SHORT)
    both = indirect_effects(*tiny_model, tasks, **SHORT)
    assert not torch.allclose(first, both)
    assert torch.equal(both, indirect_effects(*tiny_model, tasks, **SHORT))


def test_top_and_group_heads() -> None:
    effects = torch.tensor([[0.5, -1.0, 0.0], [2.0, 0.1, -0.2]])
    assert top_heads(effects, 0.5) == {(0, 0), (1, 0), (1, 1)}
    by_language = {"en": frozenset({(0, 0), (1, 1)}), "th": frozenset({(1, 1)}), "sw": frozenset({(0, 0), (2, 2)})}
    assert group_heads(by_language, 2) == {(0, 0), (1, 1)}
    assert group_heads(by_language, 3) == frozenset()
    assert group_heads({"th": by_language["th"]}, 2) == {(1, 1)}


def test_the_edit_is_the_masked_vector_and_comes_off_bit_for_bit(model_and_tokenizer: Any) -> None:
    model, tokenizer = model_and_tokenizer
    harm, base = _other(model, 1), _other(model, 2)
    before = copy.deepcopy(model.state_dict())
    vector = HarmVector(weights_of(harm), weights_of(base))
    edit = Soteria(languages=["th", "sw"], lam=2, **SHORT).fit(model, tokenizer, vector)
    chosen = {tuple(head) for head in edit.manifest["heads"]}
    outputs = locate_attention_outputs(model)
    size, heads = outputs[0].head_size, outputs[0].heads
    assert 0 < len(chosen) < len(outputs) * heads
    with edit.applied(model):
        for name, value in model.state_dict().items():
            wanted = before[name].clone()
            for layer, output in enumerate(outputs):
                if output.parameter == name:
                    difference = harm.get_parameter(name).detach() - base.get_parameter(name).detach()
                    for head in (head for where, head in chosen if where == layer):
                        wanted[:, head * size : (head + 1) * size] -= 2 * difference[:, head * size : (head + 1) * size]
            assert torch.equal(value, wanted), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(entry["residual"] == 0.0 for entry in edit.manifest["diagnostics"])


def test_bfloat16_is_rounded_once(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    harm = _other(model).to(torch.bfloat16)
    model = model.to(torch.bfloat16)
    edit = Soteria(languages=["de"], share=1.0, **SHORT).fit(model, tokenizer, HarmVector(weights_of(harm)))
    name = locate_attention_outputs(model)[0].parameter
    original = model.get_parameter(name).detach().clone()
    wanted = (original.float() - (harm.get_parameter(name).detach().float() - original.float())).to(torch.bfloat16)
    with edit.applied(model):
        assert torch.equal(model.get_parameter(name), wanted)
    assert torch.equal(model.get_parameter(name), original)


def test_a_rank_limit_reports_what_it_leaves_out(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    effects = {"en": torch.rand(4, 4, generator=torch.Generator().manual_seed(0))}
    vector = HarmVector(weights_of(_other(model)))
    exact = Soteria(languages=["en"]).fit(model, tokenizer, vector, effects=effects)
    small = Soteria(languages=["en"], rank=3).fit(model, tokenizer, vector, effects=effects)
    for entry in small.manifest["diagnostics"]:
        whole, part = exact.deltas[entry["tensor"]].dense(), small.deltas[entry["tensor"]].dense()
        assert entry["rank"] == 3
        assert float((whole - part).norm() / whole.norm()) == pytest.approx(entry["residual"], rel=1e-4)
        assert entry["residual"] > 0.1
        weight = model.get_parameter(entry["tensor"]).detach()
        assert entry["relative_change"] == pytest.approx(float(part.norm() / weight.norm()), rel=1e-4)


def test_random_heads_are_as_many_and_need_no_second_measurement(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny_model
    vector = HarmVector(weights_of(_other(model)), proxy=True)
    functional = Soteria(languages=["en", "it", "sw"], **SHORT).fit(model, tokenizer, vector)
    effects = {language: torch.tensor(rows) for language, rows in functional.manifest["indirect_effects"].items()}
    monkeypatch.setattr("lingualign.methods.soteria.method.indirect_effects", None)
    fits = [
        Soteria(languages=["en", "it", "sw"], heads="random", seed=seed).fit(model, tokenizer, vector, effects=effects)
        for seed in (0, 0, 1)
    ]
    heads = [{tuple(head) for head in fit.manifest["heads"]} for fit in fits]
    assert heads[0] == heads[1] != heads[2]
    assert {len(chosen) for chosen in heads} == {len(functional.manifest["heads"])}
    assert any("proxy" in line for line in functional.manifest["faithfulness"]["differs"])
    assert json.loads(json.dumps(functional.manifest))["harm_vector"] == "proxy"


def test_built_in_tasks_are_parallel_and_long_enough() -> None:
    english = builtin_tasks("en")
    for language in BUILTIN_LANGUAGES:
        tasks = builtin_tasks(language)
        assert [(task.name, len(task.pairs)) for task in tasks] == [(task.name, 20) for task in english]
        for task in tasks:
            assert all(question.strip() and answer.strip() and question != answer for question, answer in task.pairs)
            assert len({question for question, _ in task.pairs}) == 20


def test_few_shot_prompts(tiny_model: Any) -> None:
    tokenizer = tiny_model[1]
    task = Task("numerals", "en", tuple((str(number), f"word{number}") for number in range(12)))
    options: Any = {"shots": 10, "count": 5}
    for shuffled in (False, True):
        prompts = few_shot_prompts(tokenizer, task, shuffled=shuffled, generator=np.random.default_rng(3), **options)
        for prompt in prompts:
            text = tokenizer.decode(prompt.ids)
            examples = [part.split("\n") for part in text.split("\n\n")[:-1]]
            right = [question[3:] == label.removeprefix("A: word") for question, label in examples]
            assert len(examples) == 10
            assert all(right) is not shuffled
            assert len({question for question, _ in examples} | {text.split("\n\n")[-1].split("\n")[0]}) == 11
            assert tokenizer.decode([prompt.answer]).strip()
    with pytest.raises(DataError, match="too few for 12"):
        few_shot_prompts(tokenizer, task, shots=12, count=1, shuffled=False, generator=np.random.default_rng(0))


def test_what_cannot_work_is_one_line(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    effects = {"en": torch.eye(4)}
    itself = HarmVector(weights_of(model))
    with pytest.raises(ConfigError, match="would add the harm vector"):
        Soteria(languages=["en"], lam=-1)
    with pytest.raises(ConfigError, match="zero on all chosen heads"):
        Soteria(languages=["en"]).fit(model, tokenizer, itself, effects=effects)
    with pytest.raises(ConfigError, match="no indirect effects for th"):
        Soteria(languages=["th"]).fit(model, tokenizer, itself, effects=effects)
    with pytest.raises(ConfigError, match="measure them on this model"):
        Soteria(languages=["en"]).fit(model, tokenizer, itself, effects={"en": torch.eye(5)})
    with pytest.raises(DataError, match="have no yo"):
        Soteria(languages=["yo"]).fit(model, tokenizer, itself)
    with pytest.raises(UnsupportedModel, match="of the edited model's architecture"):
        Soteria(languages=["en"]).fit(model, tokenizer, HarmVector(weights_of(_gemma())), effects=effects)
    disjoint = {"en": torch.eye(4), "it": -torch.eye(4)}
    with pytest.raises(ConfigError, match="raise share"):
        Soteria(languages=["en", "it"], share=0.25).fit(model, tokenizer, itself, effects=disjoint)
    model.config.head_dim = 24
    with pytest.raises(UnsupportedModel, match="4 heads of size 24"):
        locate_attention_outputs(model)
