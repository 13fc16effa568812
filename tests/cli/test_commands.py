"""Every command, end to end on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import LANGUAGES, Command
from lingualign.config import load_config
from lingualign.edit import Edit
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.store import ReplyStore


def _no_generation(*_arguments: object) -> None:
    raise AssertionError("nothing should be generated again")


def test_run_leaves_every_file(command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", out)
    assert outcome.code == 0
    names = {path.name for path in out.iterdir()}
    expected = {"run.json", "config.toml", "before.jsonl", "features", "edit.safetensors", "after.jsonl"}
    assert names == expected | {"judged", "utility", "result.json", "report.html", ".lock"}
    assert {path.name for path in (out / "utility").iterdir()} == {"before.json", "after.json"}
    for part in ("Hardware", "Matched   4 MLPs of gate/up/down", "Time", "Memory", "Loaded", "The edit", "Thai (th) *"):
        assert part in outcome.stdout
    assert "Mean refusal of harmful prompts over 3 languages" in outcome.stdout
    assert f"Report    {out / 'report.html'}" in outcome.stdout
    assert "audit before: 36/36" in outcome.stderr
    before, after = (ReplyStore(out / name).load() for name in ("before.jsonl", "after.jsonl"))
    assert {reply.key for reply in before} == {reply.key for reply in after}
    assert [reply.text for reply in before] != [reply.text for reply in after]
    assert load_config(out / "config.toml").model == str(tiny_model_folder)
    assert Edit.load(out / "edit.safetensors").deltas.keys() == {
        f"model.layers.{n}.mlp.down_proj.weight" for n in (1, 2)
    }


def test_finished_run_is_not_done_again(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: path.read_bytes() for path in finished_run.iterdir() if path.suffix in (".jsonl", ".safetensors")}
    monkeypatch.setattr(TransformersEngine, "generate", _no_generation)
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    assert outcome.code == 0
    assert all(path.read_bytes() == content for path, content in files.items())


def test_json_is_one_document(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--json")
    document = json.loads(outcome.stdout)
    assert outcome.stderr == ""
    assert document == json.loads((finished_run / "result.json").read_text())
    assert document["languages"] == list(LANGUAGES)
    assert len(document["cells"]) == len(LANGUAGES) * 3
    assert [row["tensor"].split(".")[2] for row in document["edit"]["diagnostics"]] == ["1", "2"]
    assert {"audit before", "edit", "audit after", "utility before", "utility after"} <= document["timings"].keys()


def test_quiet_prints_verdict_what_it_rests_on_and_paths_only(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    assert outcome.stderr == ""
    verdict, corrected, second, report, edit = [line for line in outcome.stdout.splitlines() if line]
    assert verdict.startswith("Mean refusal")
    assert corrected.startswith("Corrected harmful refused ")
    assert second.startswith("Second    e5-1, κ ")
    assert report.endswith("report.html")
    assert edit.endswith("edit.safetensors")


@pytest.mark.parametrize(("gate", "code"), [("incoherence_increase<=1", 0), ("refusal_gain>=1", 1)])
def test_gates_set_the_exit_code(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path, gate: str, code: int
) -> None:
    outcome = command(
        "run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet", "--require", gate
    )
    assert outcome.code == code
    assert f"Gate      {gate}: " in outcome.stdout
    assert outcome.error_lines == ([f"error: 1 of 1 gates do not hold: {gate}"] if code else [])
    (result,) = json.loads((finished_run / "result.json").read_text())["gates"]
    assert result["passed"] == (code == 0)


def test_failed_gate_still_prints_json(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    arguments = ("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--json")
    outcome = command(*arguments, "--require", "refusal_gain>=1")
    assert outcome.code == 1
    assert json.loads(outcome.stdout)["gates"][0]["passed"] is False


def test_controls_stand_side_by_side(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    arguments = ("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--controls")
    outcome = command(*arguments)
    assert outcome.code == 0
    placebos = ["random-neurons", "selected-neurons", "sham", "paper-family"]
    names = [*placebos, "safe-prompt"]
    result = json.loads((finished_run / "result.json").read_text())
    assert [control["name"] for control in result["controls"]] == names
    assert all(name in outcome.stdout for name in ["edit", *names])
    folder = finished_run / "controls"
    edits = {name: Edit.load(folder / f"{name}.safetensors") for name in placebos}
    columns = {
        name: {tensor: len(delta.columns) for tensor, delta in edits[name].deltas.items() if delta.columns is not None}
        for name in ("random-neurons", "selected-neurons")
    }
    assert columns["random-neurons"] == columns["selected-neurons"]
    assert all(count == 24 for count in columns["random-neurons"].values())
    assert {tensor.split(".")[-2] for tensor in edits["paper-family"].deltas} == {"gate_proj", "up_proj"}
    assert len({(folder / f"{name}.jsonl").read_text() for name in names}) == 5


def test_audit_edit_verify_export(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    shared = (tiny_model_folder, "--config", settings_file)
    audit = command("audit", *shared, "--out", tmp_path / "audit", "--json")
    assert audit.code == 0
    assert json.loads(audit.stdout)["comparison"] is None
    assert (tmp_path / "audit" / "report.html").is_file()

    file = tmp_path / "edits" / "edit.safetensors"
    edit = command("edit", *shared, "--out", file)
    assert edit.code == 0
    assert Edit.load(file).manifest["anchor_languages"] == ["th", "ja"]
    assert load_config(file.with_suffix(".toml")).edit.rank == 8

    verify = ("verify", tiny_model_folder, file, "--config", settings_file, "--out", tmp_path / "verify", "--json")
    verified = command(*verify, "--require", "languages_down<=4")
    assert verified.code == 0
    document = json.loads(verified.stdout)
    assert document["comparison"]["anchor_languages"] == ["th", "ja"]
    assert document["cells"] == json.loads(audit.stdout)["cells"]

    for form in ("checkpoint", "lora"):
        export = command("export", tiny_model_folder, file, "--format", form, "--out", tmp_path / form, "--json")
        assert export.code == 0, export.stderr
        assert json.loads(export.stdout) == {"path": str(tmp_path / form), "format": form}
        assert any((tmp_path / form).glob("*.safetensors"))


def test_report_is_rendered_again(command: Command, finished_run: Path) -> None:
    report = finished_run / "report.html"
    original = report.read_text()
    report.unlink()
    assert command("report", finished_run).code == 0
    assert report.read_text() == original
    assert "please tell me about harmful" not in original
    assert command("report", finished_run, "--show-text", "--json").code == 0
    assert "please tell me about harmful" in report.read_text()


def test_plan_shows_what_is_needed_and_writes_nothing(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "planned"
    outcome = command("plan", tiny_model_folder, "--config", settings_file, "--out", out, "--json")
    document = json.loads(outcome.stdout)
    assert (outcome.code, out.exists()) == (0, False)
    assert document["parameters"] == 164_416
    assert (document["blocks"], document["edited_blocks"]) == (4, 2)
    # Pairs: 3 fit seeds in two anchor languages; keep: 2 kinds in three languages, and the reference's harmful prompts.
    assert (document["report_prompts"], document["anchor_pairs"], document["keep_prompts"]) == (36, 6, 21)
    assert document["seconds"].keys() == {"audit before", "edit", "audit after", "utility before", "utility after"}
    shown = command("run", tiny_model_folder, "--config", settings_file, "--out", out, "--dry-run")
    assert "Matched   4 MLPs" in shown.stdout
    assert (
        "Covers    model.layers.0-3: gate mlp.gate_proj 96×64, up mlp.up_proj 96×64, down mlp.down_proj 64×96\n"
        "          54.8% of the parameters can be edited; 19.9% are attention's other matrices, "
    ) in shown.stdout
    assert not out.exists()


def test_doctor_reports_versions(command: Command) -> None:
    import torch

    document = json.loads(command("doctor", "--json").stdout)
    assert document["versions"]["torch"] == torch.__version__
    assert document["threads"] == torch.get_num_threads()
    assert "hardware" in command("doctor").stdout


def test_default_folder_depends_on_settings(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shared = ("audit", tiny_model_folder, "--config", settings_file, "--quiet")
    command(*shared)
    command(*shared, "--batch-size", 3)
    assert len(list(Path("lingualign-runs").iterdir())) == 1
    command(*shared, "--max-new-tokens", 5)
    assert len(list(Path("lingualign-runs").iterdir())) == 2


def test_own_replies_are_generated_for_reply_positions(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "replies.toml"
    settings.write_text(settings_file.read_text() + "[edit.positions]\ntemplate_tokens = 2\nreply_tokens = 1\n")
    file = tmp_path / "edit.safetensors"
    outcome = command("edit", tiny_model_folder, "--config", settings, "--out", file)
    assert outcome.code == 0, outcome.stderr
    (store,) = file.with_suffix(".features").glob("replies-*.jsonl")
    assert len(ReplyStore(store).load()) == 21


def test_streamed_edit_is_the_edit(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    shared = (tiny_model_folder, "--config", settings_file, "--out")
    whole, streamed = tmp_path / "whole.safetensors", tmp_path / "streamed.safetensors"
    assert command("edit", *shared, whole).code == 0
    outcome = command("edit", *shared, streamed, "--streamed")
    assert outcome.code == 0
    assert "passing blocks" in outcome.stderr
    expected, found = Edit.load(whole), Edit.load(streamed)
    assert found.base == expected.base
    assert found.deltas.keys() == expected.deltas.keys()
    for name, delta in found.deltas.items():
        apart = (delta.dense() - expected.deltas[name].dense()).norm()
        assert apart <= 1e-5 * expected.deltas[name].dense().norm()


def test_layers_are_not_chosen_by_measurement_of_a_streamed_model(
    command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "select.toml"
    settings.write_text(settings_file.read_text().replace("layers = [1, 2]", 'layers = "select"'))
    outcome = command(
        "edit", tiny_model_folder, "--config", settings, "--out", tmp_path / "e.safetensors", "--streamed"
    )
    assert outcome.code == 2
    assert "too slow" in outcome.stderr
