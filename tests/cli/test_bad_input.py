"""Every bad input gives exit code 2, one line on standard error that names the fix, and leaves nothing behind."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lingualign.plan
from cli.conftest import Command, write_prompts, write_settings
from lingualign.edit import CONFIG_MARK


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., str]:
    """Calls a command that must be refused, and gives its one line."""
    out = tmp_path / "out"

    def call(*arguments: object, out: Path = out) -> str:
        outcome = command(*arguments, "--out", out, "--quiet")
        assert outcome.code == 2, outcome.stderr
        assert outcome.stdout == ""
        (line,) = outcome.error_lines
        assert line.startswith("error: ")
        assert not out.exists()
        return line.removeprefix("error: ")

    return call


Refused = Callable[..., str]


def _rewrite(path: Path, change: Callable[[list[list[str]]], None]) -> Path:
    write_prompts(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def _copy_model(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def test_missing_model(refused: Refused, tmp_path: Path, settings_file: Path) -> None:
    line = refused("run", tmp_path / "absent", "--config", settings_file)
    assert line.startswith(f"there is no folder {tmp_path / 'absent'}; give")


def test_folder_without_a_model(refused: Refused, tmp_path: Path, settings_file: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "cannot load" in refused("audit", tmp_path / "empty", "--config", settings_file)


def test_no_model_at_all(refused: Refused) -> None:
    assert refused("run") == "settings: model is missing; set it"


def test_missing_prompt_file(refused: Refused, tiny_model_folder: Path, tmp_path: Path) -> None:
    assert "absent.csv" in refused("audit", tiny_model_folder, "--prompts", tmp_path / "absent.csv")


def test_missing_language_column(refused: Refused, tiny_model_folder: Path, prompts_file: Path) -> None:
    assert "sw" in refused("audit", tiny_model_folder, "--prompts", prompts_file, "--languages", "th,sw")


def test_unknown_language(refused: Refused, tiny_model_folder: Path) -> None:
    assert "unknown language 'xx'" in refused("run", tiny_model_folder, "--languages", "en,xx")


def test_empty_prompt(refused: Refused, tiny_model_folder: Path, tmp_path: Path) -> None:
    file = _rewrite(tmp_path / "empty.csv", lambda rows: rows[3].__setitem__(4, " "))
    assert "empty.csv" in refused("audit", tiny_model_folder, "--prompts", file)


def test_duplicate_prompts(refused: Refused, tiny_model_folder: Path, tmp_path: Path) -> None:
    file = _rewrite(tmp_path / "twice.csv", lambda rows: rows[3].__setitem__(3, rows[2][3]))
    assert "twice.csv" in refused("audit", tiny_model_folder, "--prompts", file)


def test_unpaired_rows(refused: Refused, tiny_model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "unpaired.jsonl"
    rows = [
        {
            "seed_id": f"{kind}{seed}",
            "kind": kind,
            "split": split,
            "language": language,
            "text": f"{kind} {seed} {language}",
        }
        for kind in ("harmful", "harmless")
        for split in ("fit", "report")
        for seed in (f"{split}1", f"{split}2")
        for language in ("en", "th")
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows[:-12] + rows[-11:]))
    line = refused("run", tiny_model_folder, "--prompts", file)
    assert "partner" in line or "unpaired" in line


def test_unknown_setting(refused: Refused, tiny_model_folder: Path, tmp_path: Path, prompts_file: Path) -> None:
    file = write_settings(tmp_path / "c.toml", prompts_file, extra="rnak = 3")
    expected = f"{file}: unknown setting edit.rnak; did you mean edit.rank?"
    assert refused("run", tiny_model_folder, "--config", file) == expected


def test_unreadable_gate(refused: Refused, tiny_model_folder: Path, settings_file: Path) -> None:
    line = refused("run", tiny_model_folder, "--config", settings_file, "--require", "wurst_asr<=0.1")
    assert "worst_asr" in line


def test_unknown_device(refused: Refused, tiny_model_folder: Path, settings_file: Path) -> None:
    line = refused("run", tiny_model_folder, "--config", settings_file, "--device", "warp")
    assert line == "there is no device 'warp' here; leave --device out, or give cpu"


def test_unsupported_architecture(
    refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    folder = _copy_model(tiny_model_folder, tmp_path / "mixtral")
    (folder / "model.safetensors").unlink()
    config = MixtralConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    line = refused("run", folder, "--config", settings_file)
    assert "model.layers.0.mlp" in line
    assert "routed experts" in line


def test_no_chat_template(refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path) -> None:
    folder = _copy_model(tiny_model_folder, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refused("audit", folder, "--config", settings_file)


@pytest.mark.parametrize("resource", ["memory", "disk"])
@pytest.mark.parametrize("name", ["plan", "audit", "run"])
def test_too_little_memory_or_disk(
    refused: Refused,
    tiny_model_folder: Path,
    settings_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    resource: str,
    name: str,
) -> None:
    monkeypatch.setattr(lingualign.plan, f"free_{resource}", lambda _where: 1000)
    assert f"GiB of {resource}" in refused(name, tiny_model_folder, "--config", settings_file)


def test_model_already_edited(refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path) -> None:
    folder = _copy_model(tiny_model_folder, tmp_path / "edited")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, CONFIG_MARK: {"method": "sparse-weight-edit"}}))
    for name in ("run", "edit"):
        out = tmp_path / "edited.safetensors" if name == "edit" else tmp_path / "edited-run"
        assert "already edited" in refused(name, folder, "--config", settings_file, out=out)


def test_edit_of_another_model(
    command: Command, tmp_path: Path, tiny_model_folder: Path, settings_file: Path, edit_file: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = _copy_model(tiny_model_folder, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    outcome = command("verify", folder, edit_file, "--config", settings_file, "--out", out, "--quiet")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "is not the weight this edit was made for" in line
    # The audit, which comes first and costs most, was not done.
    assert not (out / "before.jsonl").exists()


@pytest.mark.parametrize("name", ["run", "audit", "edit"])
def test_truncated_weights(
    refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path, name: str
) -> None:
    folder = _copy_model(tiny_model_folder, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    out = tmp_path / "out.safetensors" if name == "edit" else tmp_path / "out"
    assert "truncated or damaged" in refused(name, folder, "--config", settings_file, out=out)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, None])
def test_truncated_edit(
    refused: Refused,
    tmp_path: Path,
    tiny_model_folder: Path,
    settings_file: Path,
    edit_file: Path,
    content: bytes | None,
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(edit_file.read_bytes()[:-100] if content is None else content)
    assert "truncated" in refused("verify", tiny_model_folder, cut, "--config", settings_file)


def test_missing_edit(refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path) -> None:
    line = refused("verify", tiny_model_folder, tmp_path / "absent.safetensors", "--config", settings_file)
    assert "no edit or steering file" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite(
    refused: Refused, tmp_path: Path, tiny_model_folder: Path, settings_file: Path, value: float
) -> None:
    from safetensors.torch import load_file, save_file

    folder = _copy_model(tiny_model_folder, tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.full_like(weights["model.layers.0.mlp.up_proj.weight"], value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    line = refused("edit", folder, "--config", settings_file, out=tmp_path / "nan.safetensors")
    assert "NaN or infinite" in line


def test_matrix_that_is_not_positive_definite(
    refused: Refused, tmp_path: Path, tiny_model_folder: Path, prompts_file: Path
) -> None:
    settings = write_settings(tmp_path / "c.toml", prompts_file, extra='keep_weight = 0.0\nsolver = "primal"')
    settings.write_text(settings.read_text().replace("ridge = 0.1", "ridge = 0.0"))
    line = refused("edit", tiny_model_folder, "--config", settings, out=tmp_path / "singular.safetensors")
    assert "positive definite" in line


def test_edit_needs_a_safetensors_name(refused: Refused, tiny_model_folder: Path, tmp_path: Path) -> None:
    assert ".safetensors" in refused("edit", tiny_model_folder, out=tmp_path / "edit.bin")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--max-new-tokens", 7), "audit setting max_new_tokens (6, now 7)"),
        (("--languages", "th"), "audited prompts"),
    ],
)
def test_changed_settings_are_refused_by_name(
    command: Command,
    finished_run: Path,
    tiny_model_folder: Path,
    settings_file: Path,
    change: tuple[object, ...],
    named: str,
) -> None:
    shared = ("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    outcome = command(*shared, *change)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert f"made with another {named}" in line
    assert "use another --out folder, or delete this one" in line


def test_changed_edit_settings_are_refused_by_name(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(settings_file.read_text().replace("ridge = 0.1", "ridge = 0.2"))
    outcome = command("run", tiny_model_folder, "--config", changed, "--out", finished_run, "--quiet")
    assert outcome.code == 2
    assert "made with another edit setting ridge (0.1, now 0.2)" in outcome.stderr


def test_changed_weights_are_refused_by_name(
    command: Command, finished_run: Path, tmp_path: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    from safetensors.torch import load_file, save_file

    # The folder keeps its name, so that only the weights differ.
    hidden = tiny_model_folder.rename(tmp_path / "hidden")
    try:
        _copy_model(hidden, tiny_model_folder)
        weights = load_file(tiny_model_folder / "model.safetensors")
        save_file(
            {name: tensor + 1 for name, tensor in weights.items()},
            tiny_model_folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    finally:
        shutil.rmtree(tiny_model_folder)
        hidden.rename(tiny_model_folder)
    assert outcome.code == 2
    assert "made with another model weights" in outcome.stderr


def test_report_of_an_unfinished_run(command: Command, finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "result.json").unlink()
    outcome = command("report", finished_run)
    assert (outcome.code, outcome.error_lines) == (
        2,
        [f"error: {finished_run} is an unfinished run; give its command again"],
    )
    outcome = command("report", tmp_path / "absent")
    assert (outcome.code, outcome.error_lines) == (2, [f"error: {tmp_path / 'absent'} is no run folder"])


def test_edit_file_that_is_not_the_run_s_own(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    from lingualign.edit import Edit

    Edit.load(finished_run / "edit.safetensors").scaled(0.5).save(finished_run / "edit.safetensors")
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    assert outcome.code == 2
    assert "made with another edit " in outcome.stderr
