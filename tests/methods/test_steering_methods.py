"""AlphaSteer and BabelSteering on a tiny model: their published formulas, and what they do to the anchors."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from plain_anchors import WORDS, plain_anchors

from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import ConfigError, DataError
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.steering.alpha_steer import AlphaSteer
from lingualign.methods.steering.babel_steering import BabelSteering
from lingualign.models.chat import encode_chats
from lingualign.steering import Steering

BLOCK = Site("model.layers.2", "input")


def states(tiny_model: Any, prompts: list[Prompt], site: Site = BLOCK) -> torch.Tensor:
    """Activations of the last prompt token, in columns."""
    chats = encode_chats(tiny_model[1], [prompt.text for prompt in prompts])
    return collect_rows(tiny_model[0], chats, [site], Positions(template_tokens=1))[site][:, 0].double().T


def groups(anchors: Anchors) -> dict[str, list[Prompt]]:
    harmless = [prompt for prompt in anchors.keep if prompt.kind != "harmful"]
    return {
        "harmful": [*anchors.reference_harmful, *(low for _, low in anchors.pairs)],
        "benign": harmless,
        "reference harmful": list(anchors.reference_harmful),
        "reference harmless": [prompt for prompt in harmless if prompt.language == "en"],
    }


@pytest.mark.parametrize("site", ["residual", "mlp"])
def test_alpha_steer_is_the_published_formula(tiny_model: Any, site: Any) -> None:
    anchors, alpha, strength = plain_anchors(("it", "sw")), 2.0, 0.3
    steering = AlphaSteer(layers=[2], nullspace_ratio=0.4, alpha=alpha, strength=strength, site=site, tokens="all").fit(
        *tiny_model, anchors
    )
    where = BLOCK if site == "residual" else Site("model.layers.2.mlp.down_proj", "output")
    of = {name: states(tiny_model, prompts, where) for name, prompts in groups(anchors).items()}
    H_m, H_b = of["harmful"], of["benign"]
    U = torch.linalg.svd(H_b @ H_b.T)[0][:, -round(0.4 * 64) :]
    P = U @ U.T
    r = of["reference harmful"].mean(1) - of["reference harmless"].mean(1)
    R = r[:, None].expand(-1, H_m.shape[1])
    Delta = R @ H_m.T @ P.T @ torch.linalg.pinv(P @ H_m @ H_m.T @ P.T + alpha * P @ P.T, rtol=1e-10) @ P
    term = steering.terms[where]
    found = (term.out_factor @ term.in_factor.T).double()
    assert (found - strength * Delta).norm() < 1e-3 * (strength * Delta).norm()
    assert not term.offset.any()
    assert (steering.tokens, term.out_factor.shape) == ("all", (64, 1))


def test_benign_activations_stay_and_harmful_ones_get_the_direction(tiny_model: Any) -> None:
    anchors = plain_anchors(count=4)
    # 16 benign rows in 64 dimensions: 48 directions are null.
    steering = AlphaSteer(layers=[2], nullspace_ratio=48 / 64, alpha=1e-4, strength=1.0).fit(*tiny_model, anchors)
    of = {name: states(tiny_model, prompts) for name, prompts in groups(anchors).items()}
    r = of["reference harmful"].mean(1) - of["reference harmless"].mean(1)
    term = steering.terms[BLOCK]
    assert term(of["benign"].T).norm(dim=1).max() < 1e-2 * r.norm()
    for moved in term(of["harmful"].T).double():
        torch.testing.assert_close(moved, r, rtol=0, atol=0.02 * float(r.norm()))
    about = steering.manifest["diagnostics"][0]
    assert about["harmful_gate"] == pytest.approx(1.0, abs=0.02)
    assert about["benign_gate"] < 1e-2
    assert about["direction_norm"] == pytest.approx(float(r.norm()), rel=1e-4)


def test_babel_steering_adds_the_reference_direction(tiny_model: Any) -> None:
    anchors = plain_anchors(("it", "sw"))
    steering = BabelSteering(layers=[1, 2], coefficient=0.7).fit(*tiny_model, anchors)
    of = {name: states(tiny_model, prompts) for name, prompts in groups(anchors).items()}
    r = of["reference harmful"].mean(1) - of["reference harmless"].mean(1)
    assert list(steering.terms) == [Site("model.layers.1", "input"), BLOCK]
    for row in torch.randn(3, 64):
        torch.testing.assert_close(steering.terms[BLOCK](row), (0.7 * r).float(), rtol=1e-4, atol=1e-5)
    assert steering.tokens == "all"


@pytest.mark.parametrize("method", [AlphaSteer(layer_count=2), BabelSteering(site="mlp")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_model_is_left_as_it_was_and_the_steering_survives_the_disk(
    tiny_model: Any, tmp_path: Any, method: Any, dtype: torch.dtype
) -> None:
    model, tokenizer = tiny_model[0].to(dtype), tiny_model[1]
    before = copy.deepcopy(model.state_dict())
    steering = method.fit(model, tokenizer, plain_anchors(count=4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = Steering.load(steering.save(tmp_path / "steering.safetensors"))
    assert again.manifest == json.loads(json.dumps(steering.manifest))
    assert {"method", "citation", "faithfulness", "settings", "layer_silhouettes"} <= set(again.manifest)
    ids = torch.tensor([encode_chats(tokenizer, ["tea and bread"])[0].ids])
    with torch.no_grad():
        plain = model(ids).logits
        with again.applied(model):
            assert not torch.equal(model(ids).logits, plain)
        assert torch.equal(model(ids).logits, plain)


def test_alpha_steer_on_the_mlp_output_becomes_an_edit(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    steering = AlphaSteer(layers=[1, 2], site="mlp", tokens="all").fit(model, tokenizer, plain_anchors(count=4))
    ids = torch.tensor([encode_chats(tokenizer, ["tea and bread"])[0].ids])
    with torch.no_grad():
        with steering.applied(model):
            steered = model(ids).logits
        with steering.to_edit(model).applied(model):
            torch.testing.assert_close(model(ids).logits, steered, rtol=1e-4, atol=1e-4)


def test_settings_and_data_that_cannot_work_are_named(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="it is a share"):
        AlphaSteer(nullspace_ratio=0.0)
    with pytest.raises(ConfigError, match="must be positive"):
        AlphaSteer(alpha=0.0)
    with pytest.raises(ConfigError, match="it has blocks 0 to 3"):
        BabelSteering(layers=[4]).fit(*tiny_model, plain_anchors())
    kinds = {"en": ["harmful"], "it": ["harmful", "harmless"]}
    prompts = [
        Prompt(word, language, kind, f"{kind} {language} {word}")  # type: ignore[arg-type]  # names of kinds
        for language, names in kinds.items()
        for kind in names
        for word in WORDS
    ]
    with pytest.raises(DataError, match="harmless prompts in the reference language en"):
        BabelSteering(layers=[1]).fit(*tiny_model, build_anchors(PromptSet(prompts), "en", ["it"]))
