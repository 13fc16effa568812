"""Steering: adds what it says to the tokens it says, in batches and with a cache, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lingualign.edit import Edit
from lingualign.errors import ConfigError, FingerprintMismatch, UnsupportedModel, UserError
from lingualign.features.collect import Site, pad
from lingualign.models.chat import encode_chats
from lingualign.models.load import model_fingerprint
from lingualign.steering import SteeredTokens, Steering, SteeringTerm
from lingualign.treatments import load_treatment

BLOCK, DOWN = Site("model.layers.1", "input"), Site("model.layers.1.mlp.down_proj", "output")
TEXTS = ["tea", "how do I bake bread at home? tell me the steps, please"]


def term(rank: int = 2, seed: int = 0, offset: bool = True) -> SteeringTerm:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.3  # noqa: E731
    return SteeringTerm(draw(64) * float(offset), draw(64, rank), draw(64, rank))


def make(model: nn.Module, site: Site = BLOCK, tokens: SteeredTokens = "all", **options: Any) -> Steering:
    return Steering({site: term(**options)}, model_fingerprint(model), tokens, {"method": "test"})


def batch(tokenizer: Any, side: Any = "left") -> tuple[dict[str, torch.Tensor], list[int]]:
    ids, mask, offsets = pad(encode_chats(tokenizer, TEXTS), tokenizer.pad_token_id, side)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}, offsets


def read(model: nn.Module, site: Site, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """What the rest of the model sees at a site, and the model's output."""
    seen = []
    module = model.get_submodule(site.module)
    handle = (
        module.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        if site.side == "input"
        else module.register_forward_hook(lambda _m, _a, output: seen.append(output))
    )
    with torch.no_grad():
        output = model(**inputs)
    handle.remove()
    return seen[0], output


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("site", [BLOCK, DOWN], ids=["residual", "mlp"])
def test_every_token_gets_offset_and_map(tiny_model: Any, site: Site) -> None:
    model, tokenizer = tiny_model
    steering = make(model, site)
    inputs, _ = batch(tokenizer)
    plain, before = read(model, site, inputs)
    with steering.applied(model):
        found, after = read(model, site, inputs)
    part = steering.terms[site]
    expected = plain + part.offset + torch.einsum("btd,dr,er->bte", plain, part.in_factor, part.out_factor)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (after.logits - before.logits).abs().max() > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tokens", ["all", "prompt", "prompt-last", "generated"])
def test_which_tokens_of_a_prompt_are_steered(tiny_model: Any, tokens: SteeredTokens, side: Any) -> None:
    model, tokenizer = tiny_model
    steering = make(model, tokens=tokens)
    inputs, _ = batch(tokenizer, side)
    plain, _ = read(model, BLOCK, inputs)
    with steering.applied(model):
        found, _ = read(model, BLOCK, inputs)
    part = steering.terms[BLOCK]
    for row, mask in enumerate(inputs["attention_mask"]):
        real = mask.nonzero().flatten().tolist()
        for place in real:
            added = {
                "all": part(plain[row, place]),
                "prompt": part(plain[row, real[-1]]),
                "prompt-last": part(plain[row, place]) * float(place == real[-1]),
                "generated": torch.zeros(64),
            }[tokens]
            torch.testing.assert_close(found[row, place], plain[row, place] + added, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", ["all", "prompt", "prompt-last", "generated"])
def test_which_steps_of_a_reply_are_steered(tiny_model: Any, tokens: SteeredTokens) -> None:
    model, tokenizer = tiny_model
    inputs, _ = batch(tokenizer)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
    step = {"input_ids": torch.tensor([[7], [9]]), "attention_mask": mask}
    steering = make(model, tokens=tokens)
    changed = []
    for treatment in (steering.scaled(0.0), steering):
        with torch.no_grad():
            cache = model(**inputs, use_cache=True).past_key_values
        with treatment.applied(model):
            changed.append(read(model, BLOCK, {**step, "past_key_values": cache})[0])
    assert torch.equal(*changed) == (tokens in ("prompt", "prompt-last"))


@pytest.mark.parametrize("tokens", ["all", "prompt", "prompt-last", "generated"])
def test_generation_in_a_padded_batch_is_that_of_each_alone(tiny_model: Any, tokens: SteeredTokens) -> None:
    model, tokenizer = tiny_model
    options: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}

    def generated(chats: Any, **more: Any) -> torch.Tensor:
        ids, mask, _ = pad(chats, tokenizer.pad_token_id, "left")
        found: torch.Tensor = model.generate(ids, attention_mask=mask, **options, **more)
        return found[:, ids.shape[1] :]

    chats = encode_chats(tokenizer, TEXTS)
    plain = generated(chats)
    with make(model, tokens=tokens).applied(model):
        together = generated(chats)
        alone = torch.cat([generated([chat]) for chat in chats])
        if tokens == "all":
            assert torch.equal(generated(chats, use_cache=False), together)
    assert torch.equal(together, alone)
    assert not torch.equal(together, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zero_strength_changes_no_bit(tiny_model: Any, dtype: torch.dtype) -> None:
    model, tokenizer = tiny_model[0].to(dtype), tiny_model[1]
    inputs, _ = batch(tokenizer)
    with torch.no_grad():
        before = model(**inputs).logits
        with make(model).scaled(0.0).applied(model):
            inside = model(**inputs).logits
        with make(model).applied(model):
            steered = model(**inputs).logits
        after = model(**inputs).logits
    for logits in (inside, after):
        assert torch.equal(logits.contiguous().view(torch.uint8), before.contiguous().view(torch.uint8))
    assert steered.dtype == dtype
    assert not torch.equal(steered, before)


def test_zero_strength_keeps_negative_zeros(tiny_model: Any) -> None:
    model = tiny_model[0]
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(-0.0)
    site = Site("model.layers.0", "input")
    with make(model, site).scaled(0.0).applied(model):
        assert read(model, site, {"input_ids": torch.tensor([[5, 6]])})[0].signbit().all()


def test_strength_is_linear_and_recorded(tiny_model: Any) -> None:
    steering = make(tiny_model[0])
    states = torch.randn(3, 64)
    torch.testing.assert_close(steering.scaled(0.5).terms[BLOCK](states), 0.5 * steering.terms[BLOCK](states))
    assert steering.scaled(0.5).scaled(0.5).manifest["scale"] == 0.25


def test_hooks_go_whatever_happens(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    count = hooks(model)
    with make(model).applied(model):
        assert hooks(model) > count
    assert hooks(model) == count
    with pytest.raises(KeyError), make(model).applied(model):
        raise KeyError
    assert hooks(model) == count
    narrow = Steering({BLOCK: SteeringTerm.constant(torch.ones(63))}, model_fingerprint(model))
    with pytest.raises(RuntimeError), narrow.applied(model):
        model(**batch(tokenizer)[0])
    assert hooks(model) == count


def test_another_model_is_refused(tiny_model: Any) -> None:
    model = tiny_model[0]
    steering = make(model)
    lost = Steering({Site("model.layers.9", "input"): term()}, model_fingerprint(model))
    with pytest.raises(UnsupportedModel, match="no module"), lost.applied(model):
        pass
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight").mul_(2)
    with pytest.raises(FingerprintMismatch, match="not the model"), steering.applied(model):
        pass


def test_the_same_steering_fits_either_precision(tiny_model: Any) -> None:
    steering = make(tiny_model[0])
    with steering.applied(tiny_model[0].to(torch.bfloat16)):
        pass


# Files


def test_steering_survives_the_disk(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model[0]
    steering = Steering(
        {BLOCK: term(), DOWN: SteeringTerm.constant(torch.ones(64))}, model_fingerprint(model), "prompt", {"a": ["ü"]}
    )
    again = load_treatment(steering.save(tmp_path / "steering.safetensors"))
    assert isinstance(again, Steering)
    assert (again.fingerprint, again.base, again.tokens) == (steering.fingerprint, steering.base, "prompt")
    assert again.manifest == steering.manifest
    assert list(again.terms) == [BLOCK, DOWN]
    assert all(torch.equal(again.terms[BLOCK](row), steering.terms[BLOCK](row)) for row in torch.randn(2, 64))
    assert steering.scaled(2.0).fingerprint != steering.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["steering.safetensors"]


def test_files_that_are_no_steering_are_named(tiny_model: Any, tmp_path: Path) -> None:
    edit = Edit({}, {}, {"method": "none"})
    other = edit.save(tmp_path / "edit.safetensors")
    assert isinstance(load_treatment(other), Edit)
    with pytest.raises(UserError, match="not a lingualign steering"):
        Steering.load(other)
    whole = make(tiny_model[0]).save(tmp_path / "whole.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:200])
    for reader in (Steering.load, load_treatment):
        with pytest.raises(UserError, match="truncated"):
            reader(cut)
        with pytest.raises(UserError, match=r"no .*file at"):
            reader(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match=r"saved as \.safetensors"):
        make(tiny_model[0]).save(tmp_path / "steering.bin")
    with pytest.raises(ConfigError, match="give one of all, prompt"):
        Steering({}, "", "some")  # type: ignore[arg-type]  # the wrong value is what is tested


# Weights


def _gemma(tokenizer: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.15,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_linear_map_of_the_mlp_output_folds_into_its_weight(tiny_model: Any, family: str) -> None:
    tokenizer = tiny_model[1]
    # Gemma 2 has a norm between down_proj and the residual stream: the fold is before it.
    model = tiny_model[0] if family == "llama" else _gemma(tokenizer)
    sites = [DOWN, Site("model.layers.2.mlp.down_proj", "output")]
    steering = Steering(
        {site: term(seed=seed, offset=False) for seed, site in enumerate(sites)}, model_fingerprint(model), "all"
    )
    edit = steering.to_edit(model)
    inputs, _ = batch(tokenizer)
    logits = {}
    for name, treatment in (("steering", steering), ("edit", edit), ("none", steering.scaled(0.0))):
        with treatment.applied(model), torch.no_grad():
            logits[name] = model(**inputs).logits[inputs["attention_mask"].bool()]
    scale = (logits["steering"] - logits["none"]).abs().max()
    assert scale > 1e-2
    assert (logits["steering"] - logits["edit"]).abs().max() < 1e-4 * scale
    assert edit.manifest["folded"] is True


def test_what_no_weight_does_is_not_folded(tiny_model: Any) -> None:
    model = tiny_model[0]
    with pytest.raises(ConfigError, match="tokens='all'"):
        make(model, DOWN, "prompt", offset=False).to_edit(model)
    with pytest.raises(ConfigError, match="site='mlp'"):
        make(model, BLOCK, offset=False).to_edit(model)
    with pytest.raises(ConfigError, match="no weight does"):
        make(model, DOWN).to_edit(model)
    with pytest.raises(UnsupportedModel, match="without bias"):
        make(model, Site("model.layers.1", "output"), offset=False).to_edit(model)
