"""The edit artefact: exactly reversible, writes only what it declares, refuses foreign models, survives the disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import lingualign.edit
from lingualign.edit import CONFIG_MARK, Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, FingerprintMismatch, UnsupportedModel, UserError
from lingualign.tensor_file import read_tensors

DOWN, GATE, UP = (f"model.layers.1.mlp.{part}_proj.weight" for part in ("down", "gate", "up"))


def random_delta(
    shape: tuple[int, int],
    rank: int = 3,
    rows: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    seed: int = 0,
) -> LowRankDelta:
    generator = torch.Generator().manual_seed(seed)
    height, width = (size if index is None else len(index) for size, index in zip(shape, (rows, columns), strict=True))
    return LowRankDelta(
        torch.randn(height, rank, generator=generator),
        torch.randn(width, rank, generator=generator),
        shape,
        rows,
        columns,
    )


def make_edit(model: nn.Module) -> Edit:
    """Some columns of an output matrix; the same rows, one index tensor, of gate and up."""
    parameters = dict(model.named_parameters())
    columns, rows = torch.tensor([1, 4, 95]), torch.tensor([0, 50])
    deltas = {
        DOWN: random_delta(tuple(parameters[DOWN].shape), columns=columns, seed=1),
        GATE: random_delta(tuple(parameters[GATE].shape), rows=rows, seed=2),
        UP: random_delta(tuple(parameters[UP].shape), rows=rows, seed=3),
    }
    return Edit(deltas, {name: tensor_fingerprint(parameters[name]) for name in deltas}, {"method": "test"})


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# One matrix


@settings(max_examples=50, deadline=None)
@given(
    data=st.data(),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    rank=st.integers(0, 4),
    seed=st.integers(0, 99),
    transposed=st.booleans(),
)
def test_only_declared_rows_and_columns_change_by_the_dense_delta(
    data: st.DataObject, height: int, width: int, rank: int, seed: int, transposed: bool
) -> None:
    def index(size: int) -> torch.Tensor | None:
        chosen = data.draw(st.none() | st.sets(st.integers(0, size - 1)))
        return None if chosen is None else torch.tensor(sorted(chosen), dtype=torch.long)

    rows, columns = index(height), index(width)
    delta = replace(random_delta((height, width), rank, rows, columns, seed), transposed=transposed)
    weight = torch.randn(height, width, generator=torch.Generator().manual_seed(seed + 1))
    before = weight.clone()
    stored = weight.T.contiguous() if transposed else weight
    assert delta.stored_shape == tuple(stored.shape)
    delta.add_to(stored)
    weight = stored.T if transposed else stored
    torch.testing.assert_close(weight, before + delta.dense(), rtol=1e-5, atol=1e-5)
    free = torch.ones(height, width, dtype=torch.bool)
    grid_rows = torch.arange(height) if rows is None else rows
    grid_columns = torch.arange(width) if columns is None else columns
    free[grid_rows[:, None], grid_columns[None, :]] = False
    assert torch.equal(weight[free], before[free])
    assert delta.dense()[free].abs().sum() == 0
    assert delta.rank == rank


@pytest.mark.parametrize("rows", [None, torch.tensor([0, 2])])
def test_the_sum_is_taken_in_float32_and_rounded_once(rows: torch.Tensor | None) -> None:
    # Between 1 and 2 bfloat16 steps are 2⁻⁷. The change is a little under half a step by itself, and rounds to half
    # a step in bfloat16; added to an odd multiple of the step, that tie would go up to the even neighbour.
    step = 2.0**-7
    weight = torch.full((3, 2), 1 + step, dtype=torch.bfloat16)
    delta = LowRankDelta(
        torch.full((3 if rows is None else 2, 1), step / 2 * (1 - 2.0**-10)), torch.ones(2, 1), (3, 2), rows
    )
    rounded_twice = weight + delta.dense().to(torch.bfloat16)
    before = weight.clone()
    delta.add_to(weight)
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, before)
    assert not torch.equal(rounded_twice, before)


# Apply and undo


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fails", [False, True])
def test_undo_is_bit_exact(tiny_model: tuple[Any, Any], dtype: torch.dtype, fails: bool) -> None:
    model = tiny_model[0]
    edit = make_edit(model)
    model.to(dtype)
    before = snapshot(model)

    def use() -> None:
        with edit.applied(model) as edited:
            assert edited is model
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, before[name]) == (name not in edit.deltas), name
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            use()
    else:
        use()
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, before[name]), name
        assert parameter.requires_grad


def test_failure_while_applying_restores_what_was_written(
    tiny_model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model[0]
    edit = make_edit(model)
    before = snapshot(model)
    real, calls = LowRankDelta.add_to, []

    def second_fails(self: LowRankDelta, weight: torch.Tensor) -> None:
        calls.append(weight)
        if len(calls) == 2:
            raise MemoryError
        real(self, weight)

    monkeypatch.setattr(LowRankDelta, "add_to", second_fails)
    with pytest.raises(MemoryError), edit.applied(model):
        pass
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_applying_inside_applying_is_refused_and_permanent_marks(tiny_model: tuple[Any, Any]) -> None:
    model = tiny_model[0]
    edit = make_edit(model)
    with edit.applied(model), pytest.raises(FingerprintMismatch, match="fingerprint differs"), edit.applied(model):
        pass
    with edit.applied(model):
        expected = snapshot(model)
    edit.apply_permanently(model)
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())
    assert getattr(model.config, CONFIG_MARK) == {"method": "test", "tensors": sorted(edit.deltas)}
    with pytest.raises(FingerprintMismatch, match="already edited"):
        edit.apply_permanently(model)


def test_the_same_checkpoint_matches_in_both_precisions_and_another_does_not() -> None:
    stored = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert tensor_fingerprint(stored) == tensor_fingerprint(stored.float())
    assert tensor_fingerprint(stored.T) != tensor_fingerprint(stored)
    changed = stored.clone()
    changed[4, 6] *= 1.01
    assert tensor_fingerprint(changed) != tensor_fingerprint(stored)


def test_models_it_was_not_made_for_are_refused_untouched(tiny_model: tuple[Any, Any]) -> None:
    model = tiny_model[0]
    edit = make_edit(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        parameters[UP][3, 3] += 1.0
    before = snapshot(model)
    with pytest.raises(FingerprintMismatch, match="fingerprint differs"), edit.applied(model):
        pass
    absent = Edit({"model.layers.9.mlp.down_proj.weight": edit.deltas[DOWN]}, {})
    with pytest.raises(UnsupportedModel, match=r"layers\.9.*LlamaForCausalLM does not have"), absent.applied(model):
        pass
    other_shape = Edit({DOWN: random_delta((2, 2))}, edit.base)
    with pytest.raises(UnsupportedModel, match=r"shape \(2, 2\), the model has \(64, 96\)"), other_shape.applied(model):
        pass
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


# Arithmetic


def test_scale_invert_and_add(tiny_model: tuple[Any, Any]) -> None:
    model = tiny_model[0]
    edit = make_edit(model)
    for name, delta in edit.deltas.items():
        for scaled, factor in ((0.5 * edit, 0.5), (edit * 3, 3.0), (-edit, -1.0), (edit.scaled(2).scaled(0.25), 0.5)):
            torch.testing.assert_close(scaled.deltas[name].dense(), factor * delta.dense())
            assert scaled.manifest["scale"] == factor
    assert "scale" not in edit.manifest
    other = Edit({DOWN: random_delta((64, 96), seed=9)}, {DOWN: edit.base[DOWN]}, {"method": "other"})
    total = edit + other
    torch.testing.assert_close(total.deltas[DOWN].dense(), edit.deltas[DOWN].dense() + other.deltas[DOWN].dense())
    assert torch.equal(total.deltas[GATE].dense(), edit.deltas[GATE].dense())
    assert total.deltas[DOWN].rank == 6
    assert total.base == edit.base
    assert [part["method"] for part in total.manifest["sum_of"]] == ["test", "other"]
    assert float((edit + edit.inverted()).deltas[GATE].dense().abs().max()) < 1e-5
    with total.applied(model):
        pass
    with pytest.raises(FingerprintMismatch, match="different base weights"):
        edit + Edit(other.deltas, {DOWN: "another"})


# Files


def test_save_and_load(tiny_model: tuple[Any, Any], tmp_path: Path) -> None:
    edit = make_edit(tiny_model[0])
    edit = Edit(
        edit.deltas, edit.base, {"method": "test", "languages": ["th", "עברית"], "nested": {"rank": 3, "none": None}}
    )
    path = edit.save(tmp_path / "new" / "edit.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["edit.safetensors"]
    loaded = Edit.load(path)
    assert loaded.base == edit.base
    assert loaded.manifest == edit.manifest
    assert list(loaded.deltas) == list(edit.deltas)
    for name, delta in edit.deltas.items():
        other = loaded.deltas[name]
        assert other.shape == delta.shape
        assert torch.equal(other.out_factor, delta.out_factor)
        assert torch.equal(other.in_factor, delta.in_factor)
        for mine, theirs in ((delta.rows, other.rows), (delta.columns, other.columns)):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs)
    total = edit + edit
    assert torch.equal(Edit.load(total.save(path)).deltas[DOWN].dense(), total.deltas[DOWN].dense())


def test_transposed_weights_survive_files_and_sums(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_parameter("conv", nn.Parameter(torch.zeros(5, 4)))
    delta = replace(random_delta((4, 5), seed=1), transposed=True)
    edit = Edit({"conv": delta}, {"conv": tensor_fingerprint(model.get_parameter("conv"))})
    loaded = Edit.load((edit + edit.scaled(0.5)).save(tmp_path / "edit.safetensors"))
    with loaded.applied(model):
        torch.testing.assert_close(model.get_parameter("conv").detach(), 1.5 * delta.dense().T)
    assert edit.fingerprint != replace(edit, deltas={"conv": replace(delta, transposed=False)}).fingerprint


def test_files_from_before_transposed_weights_are_read(tiny_model: tuple[Any, Any], tmp_path: Path) -> None:
    edit = make_edit(tiny_model[0])
    tensors, metadata = read_tensors(edit.save(tmp_path / "edit.safetensors"), remedy="")
    del metadata["transposed"]
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    assert Edit.load(tmp_path / "old.safetensors").fingerprint == edit.fingerprint


def test_damaged_missing_and_foreign_files_are_refused_in_one_line(tiny_model: tuple[Any, Any], tmp_path: Path) -> None:
    path = make_edit(tiny_model[0]).save(tmp_path / "edit.safetensors")
    data = path.read_bytes()
    for length in (0, 5, 300, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="truncated") as caught:
            Edit.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no edit file"):
        Edit.load(tmp_path / "absent.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="not a lingualign edit"):
        Edit.load(tmp_path / "foreign.safetensors")
    with pytest.raises(ConfigError, match=r"edit\.safetensors"):
        make_edit(tiny_model[0]).save(tmp_path / "edit.pt")


def test_an_interrupted_save_keeps_the_previous_file(
    tiny_model: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = make_edit(tiny_model[0])
    path = edit.save(tmp_path / "edit.safetensors")
    before = path.read_bytes()

    def killed(_tensors: object, file: Path, metadata: object = None) -> None:
        Path(file).write_bytes(b"half" + json.dumps(metadata).encode()[:4])
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        edit.scaled(2.0).save(path)
    assert path.read_bytes() == before


# Fingerprint


def test_the_fingerprint_is_of_all_numbers_and_of_nothing_else(tiny_model: Any, tmp_path: Path) -> None:
    edit = make_edit(tiny_model[0])
    same = Edit(dict(reversed(edit.deltas.items())), edit.base, {"method": "other"})
    assert same.fingerprint == edit.fingerprint == Edit.load(edit.save(tmp_path / "e.safetensors")).fingerprint
    down, gate = edit.deltas[DOWN], edit.deltas[GATE]
    changed = [
        (DOWN, replace(down, out_factor=down.out_factor * (1 + 1e-6))),
        (DOWN, replace(down, in_factor=down.in_factor * (1 + 1e-6))),
        (DOWN, replace(down, columns=torch.tensor([1, 4, 94]))),
        (GATE, replace(gate, rows=torch.tensor([0, 51]))),
    ]
    others = [Edit({**edit.deltas, name: delta}, edit.base).fingerprint for name, delta in changed]
    others.append(Edit(edit.deltas, {**edit.base, UP: "another"}).fingerprint)
    assert len({edit.fingerprint, *others}) == 6


@pytest.mark.parametrize("rows", [None, torch.tensor([0, 7, 40, 41, 9])])
@pytest.mark.parametrize("columns", [None, torch.tensor([3, 1, 30])])
def test_a_large_change_is_added_in_parts(rows, columns, monkeypatch: pytest.MonkeyPatch) -> None:
    delta = random_delta((49, 32), rows=rows, columns=columns)
    weight = torch.randn(49, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = (weight.float() + delta.dense()).bfloat16()
    # Two rows in a part, and one in the last.
    monkeypatch.setattr(lingualign.edit, "_VALUES_AT_ONCE", 2 * delta.shape[1])
    changed = weight.clone()
    delta.add_to(changed)
    torch.testing.assert_close(changed, expected, rtol=2**-7, atol=1e-6)
    untouched = delta.dense() == 0
    assert torch.equal(changed[untouched], weight[untouched])
