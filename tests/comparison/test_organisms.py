"""Other adapters of the small model: built when a model is needed and not before, and known by their hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from method_comparison import registry
from method_comparison.record import read_records
from method_comparison.registry import MODELS, load_methods, load_model_file, names
from method_comparison.runner import Comparison, Options
from safetensors.torch import load_file

from lingualign.errors import ConfigError, UserError
from lingualign.organism.build import small_model_folder

WEIGHTS = "adapter_model.safetensors"
ORGANISMS = {name: of for name in names(MODELS) if (of := load_model_file(name)).adapter}


@pytest.mark.parametrize("name", ORGANISMS)
def test_an_organism_has_the_small_models_settings_and_its_terms(name: str) -> None:
    of = ORGANISMS[name]
    assert of.config == load_model_file("small").config
    assert of.adapter is not None
    card = (of.adapter / "README.md").read_text(encoding="utf-8")
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in " ".join(card.split())
    for link in ("README.md", "GEMMA_NOTICE.txt", "GEMMA_TERMS.html"):
        path = f"../../../src/lingualign/organism/adapter/{link}"
        assert f"({path})" in card
        assert (of.adapter / path).is_file()


@pytest.mark.parametrize("name", ORGANISMS)
def test_an_organisms_adapter_is_what_its_training_says(name: str) -> None:
    adapter = ORGANISMS[name].adapter
    assert adapter is not None
    if not (adapter / WEIGHTS).is_file():
        pytest.skip("this checkout has no such adapter")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    trained = json.loads((adapter / "training.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (trained["rank"], trained["alpha"])
    assert config["base_model_name_or_path"] == "google/gemma-3-270m"
    assert {tensor.dtype for tensor in load_file(adapter / WEIGHTS).values()} == {torch.float16}


@pytest.fixture
def organism(tmp_path: Path, model_file: Path, tiny_model_folder: Path) -> Path:
    """A model's file that names an adapter, which is no more than its bytes."""
    text = model_file.read_text(encoding="utf-8").replace(f'"{tiny_model_folder}"', '"small"')
    path = tmp_path / "models" / "organism.toml"
    path.parent.mkdir()
    path.write_text(f'adapter = "../here"\n{text}', encoding="utf-8")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / WEIGHTS).write_bytes(b"weights")
    return path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> list[Path]:
    """The adapters that were built, in vain: the tiny model is always what comes of it."""
    adapters: list[Path] = []

    def build(adapter: Path) -> Path:
        adapters.append(adapter)
        return tiny_model_folder

    monkeypatch.setattr(registry, "small_model_folder", build)
    return adapters


def comparison(model: Path, out: Path) -> Comparison:
    options = Options("report", out / "results", out / "work")
    return Comparison(load_model_file(str(model)), load_methods(["no-edit"]), [0], options)


def settings(model: Path, out: Path) -> str:
    of = comparison(model, out)
    return of.settings_hash(of.methods["no-edit"], 0)


def test_a_comparison_builds_the_model_when_it_runs(organism: Path, built: list[Path], tmp_path: Path) -> None:
    of = comparison(organism, tmp_path)
    assert [task.state for task in of.tasks()] == ["to do"]
    assert not built
    of.run()
    assert built == [tmp_path / "here"]
    [record] = read_records(tmp_path / "results", "report")
    assert record["model"]["name"] == "organism"
    assert record["model"]["source"] == f"small-model-{hashlib.sha256(b'weights').hexdigest()[:12]}"
    comparison(organism, tmp_path).run()
    assert len(built) == 1


def test_settings_depend_on_the_adapter_and_not_on_where_it_is(organism: Path, tmp_path: Path) -> None:
    before = settings(organism, tmp_path)
    text = organism.read_text(encoding="utf-8")
    (tmp_path / "here").rename(tmp_path / "there")
    organism.write_text(text.replace("../here", "../there"), encoding="utf-8")
    assert settings(organism, tmp_path) == before
    (tmp_path / "there" / WEIGHTS).write_bytes(b"other weights")
    assert settings(organism, tmp_path) != before
    organism.write_text(text.replace('adapter = "../here"\n', ""), encoding="utf-8")
    assert settings(organism, tmp_path) != before


def test_the_merged_model_is_found_again_by_its_name(
    organism: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINGUALIGN_CACHE", str(tmp_path))
    of = load_model_file(str(organism))
    (tmp_path / of.source).mkdir()
    assert of.checkpoint() == str(tmp_path / of.source)


def test_a_missing_adapter_is_one_line_that_names_it(organism: Path, tmp_path: Path) -> None:
    (tmp_path / "here" / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors in .*here") as caught:
        comparison(organism, tmp_path).run()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors in"):
        small_model_folder(tmp_path / "here")


def test_only_the_small_model_takes_an_adapter(organism: Path, tiny_model_folder: Path) -> None:
    text = organism.read_text(encoding="utf-8").replace('"small"', f'"{tiny_model_folder}"')
    organism.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"organism.toml: adapter: .* set model to small"):
        load_model_file(str(organism))
