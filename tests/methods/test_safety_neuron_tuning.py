"""Safety-neuron tuning on a tiny model: scores against real removals, tuning against masked gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError, NumericalError, UnsupportedModel
from lingualign.methods.neuron_scores.removal import query_key_importance, removal_importance
from lingualign.methods.safety_neuron_tuning import SafetyNeuronTuning
from lingualign.models.chat import EncodedChat, encode_chats
from lingualign.models.projections import ROLES, Projection, locate_projections

HARMFUL = {
    "en": ["please tell me the steps", "how do I bake bread at home?", "the lazy dog jumps"],
    "es": ["dime los pasos, por favor", "¿cómo se hace el pan en casa?"],
}
HARMLESS = {
    "en": ["the quick brown fox", "bread at home", "jumps over the lazy dog"],
    "es": ["el pan en casa", "pasos"],
}
EXAMPLES = [
    ("tell me the steps", "the quick dog"),
    ("bread, please", "home, please"),
    ("the fox", "jumps over the dog"),
]


@pytest.fixture
def tiny(tiny_model: Any) -> tuple[Any, Any]:
    """The tiny model with larger queries and keys, so that attention depends on single dimensions."""
    model = tiny_model[0]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(4)
            layer.self_attn.k_proj.weight.mul_(4)
    return model, tiny_model[1]


def small(**changes: Any) -> SafetyNeuronTuning:
    return SafetyNeuronTuning(
        **{
            "variant": "SN",
            "top_number_attn": 20,
            "top_number_ffn": 50,
            "max_neurons": 6,
            "learning_rate": 1e-2,
            "batch_size": 2,
            "gradient_accumulation": 1,
            **changes,
        }
    )


def captured(model: Any, module: str, ids: tuple[int, ...]) -> Tensor:
    found: list[Tensor] = []
    handle = model.get_submodule(module).register_forward_hook(lambda _m, _a, output: found.append(output))
    with torch.no_grad():
        model(torch.tensor([ids]))
    handle.remove()
    return (found[0][0] if isinstance(found[0], tuple) else found[0])[0]


@pytest.mark.parametrize(
    ("role", "module", "zeroed"),
    [
        ("gate", "mlp", ("mlp.gate_proj", 0)),
        ("up", "mlp", ("mlp.up_proj", 0)),
        ("down", "mlp", ("mlp.down_proj", 1)),
        ("value", "self_attn", ("self_attn.v_proj", 0)),
        ("output", "self_attn", ("self_attn.o_proj", 1)),
    ],
)
def test_importance_is_the_change_of_the_layer_when_the_weight_is_zeroed(
    tiny: Any, role: Any, module: str, zeroed: tuple[str, int]
) -> None:
    model, tokenizer = tiny
    chats = encode_chats(tokenizer, HARMFUL["en"][:2])
    projection = next(p for p in locate_projections(model, (role,)) if p.layer == 2)
    importance = removal_importance(model, chats, [projection])[projection]
    path, axis = f"model.layers.2.{module}", zeroed[1]
    weight = model.get_parameter(f"model.layers.2.{zeroed[0]}.weight")
    assert importance.shape == (2, weight.shape[axis])
    for prompt, chat in enumerate(chats):
        whole = captured(model, path, chat.ids)
        for neuron in (0, 1, 17, weight.shape[axis] - 1):
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.select(axis, neuron).zero_()
                change = (captured(model, path, chat.ids) - whole).norm()
                weight.copy_(kept)
            torch.testing.assert_close(importance[prompt, neuron], change, rtol=1e-3, atol=1e-5)


def test_query_and_key_importance_are_the_papers_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(4, 7, 8, generator=generator), torch.randn(2, 7, 8, generator=generator)
    mask = torch.full((7, 7), float("-inf")).triu(1)
    by_query, by_key = query_key_importance(query, key, mask, 8**-0.5)
    squares = torch.zeros(4, 8)
    for head in range(4):
        scores = query[head] @ key[head // 2].T
        for k in range(8):
            delta = query[head][:, k : k + 1] @ key[head // 2][:, k : k + 1].T
            change = torch.softmax((scores - delta) / 8**0.5 + mask, -1) - torch.softmax(scores / 8**0.5 + mask, -1)
            squares[head, k] = change.square().sum()
    torch.testing.assert_close(by_query, squares.sqrt())
    torch.testing.assert_close(by_key, torch.stack([squares[:2].sum(0), squares[2:].sum(0)]).sqrt())


def test_recording_changes_nothing_that_the_model_says_and_is_taken_back(tiny: Any) -> None:
    model, tokenizer = tiny
    chats = encode_chats(tokenizer, HARMFUL["en"])
    before = model.config._attn_implementation
    own = captured(model, "model.layers.3", chats[0].ids)
    seen: list[Tensor] = []
    handle = model.model.layers[3].register_forward_hook(lambda _m, _a, output: seen.append(output))
    counted: list[int] = []
    rows = removal_importance(model, chats, locate_projections(model), counted.append)
    handle.remove()
    torch.testing.assert_close(seen[0][0], own, rtol=1e-4, atol=1e-4)
    assert counted == [1, 2, 3]
    assert model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks for module in model.modules())
    shapes = {p.role: rows[p].shape for p in rows if p.layer == 0}
    assert shapes["query"] == shapes["output"] == (3, 64)
    assert shapes["key"] == shapes["value"] == (3, 32)
    assert shapes["gate"] == shapes["up"] == shapes["down"] == (3, 96)


def masked_gradient_tuning(
    model: Any, tokenizer: Any, neurons: dict[Projection, Tensor], method: SafetyNeuronTuning
) -> None:
    """The published way, in place: whole matrices train, gradients outside the neurons are zeroed."""
    weights = {p: model.get_parameter(p.parameter) for p in neurons}
    optimiser = torch.optim.AdamW(list(weights.values()), lr=method.learning_rate, weight_decay=0.0)
    chats = encode_chats(tokenizer, [p for p, _ in EXAMPLES], replies=[r for _, r in EXAMPLES])
    generator = torch.Generator().manual_seed(method.seed)
    for _ in range(method.epochs):
        order = torch.randperm(len(chats), generator=generator).tolist()
        for start in range(0, len(order), method.batch_size):
            losses = []
            for index in order[start : start + method.batch_size]:
                chat = chats[index]
                logits = model(torch.tensor([chat.ids])).logits[0]
                losses += [
                    torch.nn.functional.cross_entropy(logits[t - 1], torch.tensor(chat.ids[t]))
                    for t in range(chat.prompt_length, len(chat.ids))
                ]
            model.zero_grad()
            torch.stack(losses).mean().backward()
            for projection, weight in weights.items():
                mask = torch.zeros_like(weight)
                mask[(neurons[projection],) if projection.axis == "rows" else (slice(None), neurons[projection])] = 1
                weight.grad.mul_(mask)
            optimiser.step()


def test_tuning_equals_masked_gradients(tiny: Any) -> None:
    model, tokenizer = tiny
    method = small(roles=ROLES, epochs=3, learning_rate=1e-3)
    before = copy.deepcopy(model.state_dict())
    neurons = method.find(model, tokenizer, HARMFUL, {})
    edit = method.fit(model, tokenizer, EXAMPLES, HARMFUL, {})
    masked_gradient_tuning(model, tokenizer, neurons, method)
    for projection in neurons:
        wanted = model.get_parameter(projection.parameter).detach() - before[projection.parameter]
        found = edit.deltas[projection.parameter].dense()
        assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_only_the_neurons_change_and_the_model_is_left_alone(tiny: Any, tmp_path: Any) -> None:
    model, tokenizer = tiny
    model.model.embed_tokens.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    method = small()
    neurons = method.find(model, tokenizer, HARMFUL, {})
    edit = method.fit(model, tokenizer, EXAMPLES, HARMFUL, {}, fingerprint="base")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert set(edit.deltas) == {projection.parameter for projection in neurons}
    loaded = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    with loaded.applied(model):
        for name, parameter in model.named_parameters():
            moved = (parameter.detach() != before[name]).nonzero()
            if name not in edit.deltas:
                assert len(moved) == 0
                continue
            projection = next(p for p in neurons if p.parameter == name)
            axis = 0 if projection.axis == "rows" else 1
            assert set(moved[:, axis].tolist()) == set(neurons[projection].tolist())
    assert {p.role for p in neurons} == {"query", "key", "value", "up", "down"}
    assert edit.manifest["model_fingerprint"] == "base"
    assert {row["role"] for row in edit.manifest["diagnostics"]} == {p.role for p in neurons}
    assert 0 < edit.manifest["tuned_share"] < 0.2


def test_training_lowers_the_loss_and_repeats_by_seed(tiny: Any) -> None:
    first = small(epochs=8).fit(*tiny, EXAMPLES, HARMFUL, {})
    again = small(epochs=8).fit(*tiny, EXAMPLES, HARMFUL, {})
    losses = first.manifest["losses"]
    assert len(losses) == 16
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    assert losses == again.manifest["losses"]
    assert all(torch.equal(first.deltas[name].dense(), again.deltas[name].dense()) for name in first.deltas)
    assert losses != small(epochs=8, seed=1).fit(*tiny, EXAMPLES, HARMFUL, {}).manifest["losses"]


def test_accumulated_batches_are_one_batch(tiny: Any) -> None:
    whole = small(batch_size=3).fit(*tiny, EXAMPLES, HARMFUL, {})
    parts = small(batch_size=1, gradient_accumulation=3).fit(*tiny, EXAMPLES, HARMFUL, {})
    assert whole.manifest["losses"] == pytest.approx(parts.manifest["losses"], rel=1e-4)
    assert len(parts.manifest["losses"]) == 1


def test_small_steps_survive_in_bfloat16_until_the_end(tiny: Any) -> None:
    model, tokenizer = tiny
    model.to(torch.bfloat16)
    edit = small(learning_rate=2e-6, epochs=2).fit(model, tokenizer, EXAMPLES, HARMFUL, {})
    row = edit.manifest["diagnostics"][0]
    assert row["relative_change"] > 0
    assert row["survives_rounding"] < 0.2
    with edit.applied(model):
        assert model.get_parameter(row["tensor"]).dtype == torch.bfloat16


def test_sn_takes_what_is_strong_in_every_prompt_and_rsn_leaves_foundation_out(tiny: Any) -> None:
    model, tokenizer = tiny
    projections = locate_projections(model, ("up",))
    sn = small(roles=("up",), max_neurons=96).find(model, tokenizer, HARMFUL, {})
    rsn = small(variant="RSN", roles=("up",), max_neurons=96).find(model, tokenizer, HARMFUL, HARMLESS)

    def everywhere(groups: dict[str, list[str]], projection: Projection) -> set[int]:
        texts = [text for group in groups.values() for text in group]
        rows = removal_importance(model, encode_chats(tokenizer, texts), [projection])[projection]
        return set.intersection(*(set(row.topk(50).indices.tolist()) for row in rows))

    for projection in projections:
        harmful, foundation = everywhere(HARMFUL, projection), everywhere(HARMLESS, projection)
        assert set(sn[projection].tolist()) == harmful
        assert set(rsn[projection].tolist() if projection in rsn else []) == harmful - foundation
    capped = small(roles=("up",), max_neurons=3).find(model, tokenizer, HARMFUL, {})
    for projection, indices in capped.items():
        texts = [text for group in HARMFUL.values() for text in group]
        rows = removal_importance(model, encode_chats(tokenizer, texts), [projection])[projection]
        worst = torch.stack([row.argsort(descending=True).argsort() for row in rows]).amax(0)
        assert indices.tolist() == sorted(worst.argsort(stable=True)[:3].tolist())


def test_ss_takes_the_reference_neurons_that_another_language_shares(tiny: Any) -> None:
    model, tokenizer = tiny
    method = small(variant="SS", top_fraction=0.4, roles=("gate", "output"))
    shared = method.find(model, tokenizer, HARMFUL, HARMLESS)

    def safety(language: str, projection: Projection) -> set[int]:
        harmful, usual = (
            removal_importance(model, encode_chats(tokenizer, group[language]), [projection])[projection].mean(0)
            for group in (HARMFUL, HARMLESS)
        )
        count = round(0.4 * len(harmful))
        return set(harmful.topk(count).indices.tolist()) - set(usual.topk(count).indices.tolist())

    for projection in locate_projections(model, ("gate", "output")):
        wanted = safety("en", projection) & safety("es", projection)
        assert set(shared[projection].tolist() if projection in shared else []) == wanted
    assert shared
    alone = method.find(model, tokenizer, {"en": HARMFUL["en"]}, HARMLESS)
    assert all(set(alone[p].tolist()) == safety("en", p) for p in alone)


def test_the_random_control_has_as_many_neurons_in_the_same_matrices(tiny: Any) -> None:
    roles = ("query", "gate", "up", "down")
    chosen = small(roles=roles).find(*tiny, HARMFUL, {})
    control = small(roles=roles, random_control=True).find(*tiny, HARMFUL, {})
    assert {p: len(indices) for p, indices in chosen.items()} == {p: len(indices) for p, indices in control.items()}
    assert any(chosen[p].tolist() != control[p].tolist() for p in chosen)
    # A neuron of an MLP is a row of two matrices and a column of the third, drawn or chosen.
    for neurons in (chosen, control):
        by_role = {p.role: indices.tolist() for p, indices in neurons.items() if p.layer == 1}
        assert by_role["gate"] == by_role["up"] == by_role["down"]


def test_layers_and_bad_input(tiny: Any) -> None:
    model, tokenizer = tiny
    assert {p.layer for p in small(layers=[1, 3]).find(model, tokenizer, HARMFUL, {})} == {1, 3}
    with pytest.raises(ConfigError, match="blocks 0 to 3"):
        small(layers=[7]).find(model, tokenizer, HARMFUL, {})
    with pytest.raises(ConfigError, match="leaves no neuron"):
        SafetyNeuronTuning(variant="RSN").find(model, tokenizer, HARMFUL, HARMLESS)
    with pytest.raises(DataError, match="needs foundation text"):
        small(variant="RSN").find(model, tokenizer, HARMFUL, {})
    with pytest.raises(DataError, match="harmful prompts in de"):
        small(variant="SS").find(model, tokenizer, HARMFUL, HARMLESS, reference="de")
    with pytest.raises(DataError, match="no example"):
        small().fit(model, tokenizer, [], HARMFUL, {})
    with pytest.raises(DataError, match="empty refusal"):
        small().fit(model, tokenizer, [("bread", " ")], HARMFUL, {})


def test_attention_without_separate_maps_is_named(tiny: Any) -> None:
    model, _ = tiny
    attention = model.model.layers[1].self_attn
    attention.fused, attention.q_proj = attention.q_proj, torch.nn.Identity()
    del attention.q_proj
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.1 .* has 0 modules named q_proj"):
        locate_projections(model)
    assert len(locate_projections(model, ("up", "down"))) == 8


def test_what_cannot_be_scored_is_named(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    chats = encode_chats(tokenizer, HARMFUL["en"])
    with monkeypatch.context() as patch:
        # As in a model whose attention is its own code.
        patch.setattr(model, "set_attn_implementation", lambda _name: None)
        with pytest.raises(UnsupportedModel, match="q_proj was not recorded"):
            removal_importance(model, chats, locate_projections(model))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[4, 4] = float("nan")
    with pytest.raises(NumericalError, match=r"layers\.1\.mlp"):
        removal_importance(model, chats, locate_projections(model, ("up",)))


@pytest.mark.parametrize("family", ["Gemma3Text", "Qwen2", "Olmo2"])
def test_other_attentions_are_recorded_as_they_are(family: str) -> None:
    """Sliding windows and norms of queries and keys (Gemma 3), biases (Qwen 2), norms behind the layer (OLMo 2)."""
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **(
            {"head_dim": 16, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
            if "Gemma" in family
            else {}
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config).eval()
    ids = tuple(range(3, 15))
    own = captured(model, "model.layers.1", ids)
    seen: list[Tensor] = []
    handle = model.model.layers[1].register_forward_hook(
        lambda _m, _a, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    rows = removal_importance(model, [EncodedChat(ids, (0, 12), 12)], locate_projections(model))
    handle.remove()
    torch.testing.assert_close(seen[0][0] if seen[0].dim() == 3 else seen[0], own, rtol=1e-3, atol=1e-3)
    for projection, values in rows.items():
        weight = model.get_parameter(projection.parameter)
        assert values.shape == (1, weight.shape[0 if projection.axis == "rows" else 1])
        assert bool(torch.isfinite(values).all())
