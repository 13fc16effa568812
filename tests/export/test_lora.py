"""The LoRA adapter: PEFT loads it and computes what the applied edit computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, NotEnoughMemory, UnsupportedModel
from lingualign.export.lora import export_lora
from small_disks import fill

peft = pytest.importorskip("peft")


def random_edit(model: Any, parts: dict[str, tuple[int, list[int] | None, list[int] | None]]) -> Edit:
    """Random changes by parameter name: (rank, rows, columns)."""
    generator = torch.Generator().manual_seed(11)
    parameters = dict(model.named_parameters())
    deltas = {}
    for name, (rank, rows, columns) in parts.items():
        shape = tuple(parameters[name].shape)
        deltas[name] = LowRankDelta(
            torch.randn(len(rows) if rows else shape[0], rank, generator=generator) * 0.1,
            torch.randn(len(columns) if columns else shape[1], rank, generator=generator) * 0.1,
            (shape[0], shape[1]),
            torch.tensor(rows) if rows else None,
            torch.tensor(columns) if columns else None,
        )
    return Edit(deltas, {name: tensor_fingerprint(parameters[name]) for name in deltas}, {"method": "test"})


EDITS: dict[str, dict[str, tuple[int, list[int] | None, list[int] | None]]] = {
    "output": {
        "model.layers.1.mlp.down_proj.weight": (6, None, None),
        "model.layers.2.mlp.down_proj.weight": (3, None, [1, 5, 90]),
    },
    "paper": {
        "model.layers.0.mlp.gate_proj.weight": (2, [0, 13, 95], None),
        "model.layers.0.mlp.up_proj.weight": (4, [2, 13, 40, 41], None),
        "model.layers.3.mlp.gate_proj.weight": (2, [7, 8], None),
    },
    # More matrices than PEFT keeps as a plain list.
    "every matrix, ranks by layer": {
        f"model.layers.{layer}.{matrix}.weight": (layer + 1, None, None)
        for layer in range(4)
        for matrix in (
            *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
            *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        )
    },
}


@pytest.mark.parametrize("kind", EDITS)
def test_peft_gives_the_logits_of_the_applied_edit(
    kind: str, tiny_model: tuple[Any, Any], tiny_model_folder: Path, tmp_path: Path
) -> None:
    model, _ = tiny_model
    edit = random_edit(model, EDITS[kind])
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        before = model(ids).logits
        with edit.applied(model):
            expected = model(ids).logits
    out = export_lora(edit, tmp_path / "adapter", str(tiny_model_folder))
    adapted = peft.PeftModel.from_pretrained(model, str(out))
    with torch.no_grad():
        logits = adapted(ids).logits
    assert float((expected - before).abs().max()) > 1e-2
    assert float((logits - expected).abs().max()) < 1e-4
    assert len({name for name, _ in adapted.named_parameters() if "lora_A" in name}) == len(edit.deltas)


def test_peft_reads_weights_that_are_stored_transposed(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_inner=24, bos_token_id=1, eos_token_id=2)
    ).eval()
    name = "transformer.h.1.mlp.c_proj.weight"
    generator = torch.Generator().manual_seed(3)
    delta = LowRankDelta(
        torch.randn(16, 2, generator=generator), torch.randn(24, 2, generator=generator), (16, 24), transposed=True
    )
    edit = Edit({name: delta}, {name: tensor_fingerprint(model.get_parameter(name))}, {"method": "test"})
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        before = model(ids).logits
        with edit.applied(model):
            expected = model(ids).logits
        adapted = peft.PeftModel.from_pretrained(model, str(export_lora(edit, tmp_path / "adapter", "base")))
        assert float((expected - before).abs().max()) > 1e-3
        torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_files(tiny_model: tuple[Any, Any], tmp_path: Path) -> None:
    edit = random_edit(tiny_model[0], EDITS["output"])
    out = export_lora(edit, tmp_path / "adapter", 'someone/"odd" name')
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == 'someone/"odd" name'
    assert config["r"] == config["lora_alpha"] == 6
    assert config["rank_pattern"] == config["alpha_pattern"] == {"model.layers.2.mlp.down_proj": 3}
    tensors = load_file(out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    right = tensors["base_model.model.model.layers.2.mlp.down_proj.lora_A.weight"]
    assert right.shape == (3, 96)
    assert sorted(right.abs().sum(0).nonzero().flatten().tolist()) == [1, 5, 90]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nbase_model: ")
    assert "Edited with lingualign" in card


def test_refusals_leave_nothing(tiny_model: tuple[Any, Any], tmp_path: Path) -> None:
    edit = random_edit(tiny_model[0], EDITS["output"])
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        export_lora(edit, tmp_path / "taken", "base")
    with pytest.raises(UnsupportedModel, match="changes nothing"):
        export_lora(Edit({}, {}), tmp_path / "empty", "base")
    stray = Edit({"model.layers.0.bias": next(iter(edit.deltas.values()))}, {"model.layers.0.bias": ""})
    with pytest.raises(UnsupportedModel, match="not the weight of a linear layer"):
        export_lora(stray, tmp_path / "stray", "base")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_full_disk(tiny_model: tuple[Any, Any], small_disk: Path) -> None:
    edit = random_edit(tiny_model[0], EDITS["output"])
    for left in (0, 4096):
        filler = fill(small_disk, left)
        with pytest.raises(NotEnoughMemory, match=r"is full; free some of it and give the same command again$"):
            export_lora(edit, small_disk / "adapter", "base")
        assert list(small_disk.iterdir()) == [filler]
        filler.unlink()
    assert export_lora(edit, small_disk / "adapter", "base").is_dir()
