"""Two methods with two seeds on the tiny model, from start to page: what is done is not done again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from method_comparison import page, run
from method_comparison.record import read_records
from method_comparison.registry import METHODS, load_methods, load_model_file
from method_comparison.runner import Comparison, Options, Split

from lingualign.edit import Edit
from lingualign.errors import UserError
from lingualign.steering import Steering

SHAM = Path("results", "report", "tiny", "sham")


class Stages:
    """Counts what begins, and may stop the work like a kill."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.begun: Counter[str] = Counter()
        self.batches: Counter[str] = Counter()
        self.stop_at = stop_at

    def __call__(self, stage: str, done: int, _total: int) -> None:
        (self.batches if done else self.begun)[stage] += 1
        if (stage, self.batches[stage]) == self.stop_at:
            raise KeyboardInterrupt


def comparison(
    model: Path,
    out: Path,
    stages: Stages,
    methods: Sequence[str] = ("random-neurons", "sham"),
    folder: Path = METHODS,
    *,
    overwrite: bool = False,
    split: Split = "report",
) -> Comparison:
    options = Options(split, out / "results", out / "work", overwrite)
    return Comparison(load_model_file(str(model)), load_methods(methods, folder), [0, 1], options, stages)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Path:
    out = tmp_path_factory.mktemp("finished")
    interrupted = comparison(model_file, out, Stages(("audit after", 3)))
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert [task.state for task in interrupted.tasks()] == ["done", "done", "to do", "to do", "to do"]
    resumed = Stages()
    comparison(model_file, out, resumed).run()
    # The run that was stopped goes on where it was: its edit is fitted, its first replies are there.
    assert resumed.begun["audit before"] == 0
    assert resumed.begun["own replies"] == 0
    assert resumed.begun["audit after"] == 2
    return out


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """Folder with `results` and `work` of a comparison that was stopped once."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


def test_a_finished_comparison_does_nothing(finished: Path, model_file: Path) -> None:
    stages = Stages()
    again = comparison(model_file, finished, stages)
    again.run()
    assert not stages.begun
    assert {task.state for task in again.tasks()} == {"done"}


def test_a_fit_that_was_stopped_begins_anew(model_file: Path, tmp_path: Path) -> None:
    methods = ["sparse-weight-edit"]
    with pytest.raises(KeyboardInterrupt):
        comparison(model_file, tmp_path, Stages(("anchors", 2)), methods).run()
    stages = Stages()
    comparison(model_file, tmp_path, stages, methods).run()
    assert stages.begun["audit before"] == 0
    assert stages.begun["own replies"] == 1


def test_a_fit_serves_both_splits(finished: Path, model_file: Path) -> None:
    stages = Stages()
    comparison(model_file, finished, stages, ["sparse-weight-edit"], split="select").run()
    assert stages.begun["own replies"] == stages.begun["anchors"] == 0
    assert stages.begun["audit after"] == 1
    [report] = (finished / "results/report").glob("*/sparse-weight-edit/*.json")
    [select] = (finished / "results/select").glob("*/sparse-weight-edit/*.json")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (report, select)]
    assert records[0]["method"]["treatment"] == records[1]["method"]["treatment"]
    assert records[0]["cost"] == records[1]["cost"]
    assert records[0]["prompts"]["audited"] != records[1]["prompts"]["audited"]


def test_a_fit_may_be_made_on_another_machine(model_file: Path, tmp_path: Path) -> None:
    stages = Stages()
    comparison(model_file, tmp_path, stages, ["sparse-weight-edit"]).run(fit_only=True)
    assert stages.begun["audit before"] == 0
    assert not (tmp_path / "results").exists()
    [facts] = tmp_path.glob("work/fits/tiny/sparse-weight-edit-*/fit.json")
    made = json.loads(facts.read_text(encoding="utf-8"))
    facts.write_text(json.dumps({**made, "hardware": "another machine"}), encoding="utf-8")
    stages = Stages()
    comparison(model_file, tmp_path, stages, ["sparse-weight-edit"]).run()
    assert stages.begun["own replies"] == stages.begun["anchors"] == 0
    [record] = read_records(tmp_path / "results", "report")
    assert record["hardware"] == f"{made['hardware']}, fitted on another machine"
    assert record["cost"]["seconds"] is record["cost"]["peak_memory"] is record["cost"]["joules"] is None
    assert record["cost"]["product_flops"] == made["cost"]["product_flops"] > 0
    assert "another machine" in page.write_page(tmp_path / "results", tmp_path, "report").read_text(encoding="utf-8")


STEERING = """
import torch
from lingualign.features.collect import Site
from lingualign.models.load import model_fingerprint
from lingualign.steering import Steering, SteeringTerm
from method_comparison.treatment import Method, Treatment
class Steer(Method):
    def fit(self, context):
        assert not context.prompts.report
        harmful = context.prompts.fit.where(kinds=["harmful"])
        replies = context.judged_replies(harmful, 3)
        assert [reply.key for reply in replies] == [prompt.key for prompt in harmful]
        term = SteeringTerm.constant(torch.ones(64) * len(replies) / 10)
        return Treatment(Steering({Site("model.layers.1", "output"): term}, model_fingerprint(context.model)))
"""


def test_a_change_that_is_no_edit(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_steering.py").write_text(STEERING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "steer.toml").write_text('description = "x"\nfit = "made_up_steering:Steer"\n', encoding="utf-8")
    sham = (METHODS / "sham.toml").read_text(encoding="utf-8").replace("sparse-weight-edit", "steer")
    (folder / "sham.toml").write_text(sham, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        comparison(model_file, tmp_path, Stages(("audit after", 1)), ["steer"], folder).run()
    stages = Stages()
    comparison(model_file, tmp_path, stages, ["steer"], folder).run()
    assert stages.begun["judged replies"] == 1  # of the second seed
    record, _ = read_records(tmp_path / "results", "report")
    assert record["utility"]["mean_divergence"]["kl"]["value"] > 0
    [path] = tmp_path.glob("work/fits/tiny/steer-0-*/treatment.safetensors")
    assert record["method"]["treatment"] == Steering.load(path).fingerprint
    assert record["method"]["layers"] is None
    with pytest.raises(UserError, match="sham is made from steer, which is no edit of weights"):
        comparison(model_file, tmp_path, Stages(), ["sham"], folder).run()


def test_results_hold_figures_and_no_text(finished: Path) -> None:
    records = read_records(finished / "results", "report")
    assert [(record["method"]["name"], record["seed"]) for record in records] == [
        ("random-neurons", 0),
        ("random-neurons", 1),
        ("sham", 0),
        ("sham", 1),
        ("sparse-weight-edit", 0),
    ]
    for record in records:
        assert record["split"] == "report"
        lengths = {language: len(letters) for language, letters in record["outcomes"]["after"]["harmful"].items()}
        assert lengths == {"en": 2, "th": 2, "ja": 2}
        assert record["comparison"]["verdict"]
        assert record["utility"]["mean_divergence"]["n"] == 6
        assert record["cost"]["seconds"] > 0
        assert record["cost"]["peak_memory"] > 0
        assert record["cost"]["joules"] is None or record["cost"]["joules"] > 0
        assert "please tell me" not in json.dumps(record)
        # No path of this machine.
        assert "/" not in record["model"]["source"]
    random, other, sham, _, edit = records
    assert edit["cost"]["factorisation_flops"] > 0
    assert edit["cost"]["product_flops"] > 1000 * sham["cost"]["product_flops"]
    assert random["method"]["treatment"] != other["method"]["treatment"]


def test_replies_and_edits_are_in_the_work_folder(finished: Path) -> None:
    [path] = finished.glob("work/fits/tiny/sham-1-*/treatment.safetensors")
    [base] = finished.glob("work/fits/tiny/sparse-weight-edit-0-*/treatment.safetensors")
    sham = Edit.load(path)
    assert sham.deltas.keys() == Edit.load(base).deltas.keys()
    assert sham.manifest["seed"] == 1
    assert not list(finished.glob("work/fits/tiny/*/features"))


def test_other_settings_are_refused_until_they_may_replace(finished: Path, model_file: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(METHODS, tmp_path / "methods"))
    changed = (folder / "sham.toml").read_text(encoding="utf-8").replace("sparse-weight-edit", "random-neurons")
    (folder / "sham.toml").write_text(changed, encoding="utf-8")
    with pytest.raises(UserError, match="made with other settings") as caught:
        comparison(model_file, finished, Stages(), folder=folder).run()
    assert "\n" not in str(caught.value)
    stages = Stages()
    comparison(model_file, finished, stages, folder=folder, overwrite=True).run()
    assert stages.begun["audit after"] == 2


def test_a_result_of_another_commit_stays_until_it_may_be_replaced(finished: Path, model_file: Path) -> None:
    path = finished / SHAM / "seed-0.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["code"]["commit"] = "0" * 40
    path.write_text(json.dumps(record), encoding="utf-8")
    again = comparison(model_file, finished, Stages())
    again.run()
    assert json.loads(path.read_text(encoding="utf-8")) == record
    assert [task.state for task in again.tasks()].count("of another commit") == 1
    comparison(model_file, finished, Stages(), overwrite=True).run()
    assert json.loads(path.read_text(encoding="utf-8"))["code"] == again.code


def test_nothing_done_is_no_change_and_a_system_line_has_no_utility(finished: Path, model_file: Path) -> None:
    stages = Stages()
    comparison(model_file, finished, stages, ["no-edit", "safe-prompt"]).run()
    assert stages.begun["audit after"] == 1
    by_name = {row["method"]["name"]: row for row in read_records(finished / "results", "report")}
    nothing, line = by_name["no-edit"], by_name["safe-prompt"]
    assert nothing["outcomes"]["after"] == nothing["outcomes"]["before"] == line["outcomes"]["before"]
    assert nothing["utility"] is None
    assert line["utility"] is None
    assert nothing["cost"]["product_flops"] == 0


def test_the_page_shows_methods_and_every_control(finished: Path, tmp_path: Path) -> None:
    path = page.write_page(finished / "results", tmp_path, "report")
    text = path.read_text(encoding="utf-8")
    results = text[text.index("## Results: tiny") :]
    assert "| 1 | **sparse-weight-edit** | 1 |" in results
    assert "| *random-neurons* | 2 |" in results
    for name in ("no-edit", "safe-prompt", "selected-neurons"):
        assert f"| *{name}* | not run |" in results
    assert "paper-family" not in results
    assert "gain against over-refusal" in (tmp_path / "method-comparison" / "tiny.svg").read_text(encoding="utf-8")
    page.write_page(finished / "results", tmp_path, "report")
    assert path.read_text(encoding="utf-8") == text


def test_models_with_the_same_prompts_are_pooled(finished: Path, tmp_path: Path) -> None:
    folder = finished / "results" / "report"
    for path in list(folder.glob("tiny/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["model"] |= {"name": "other", "fingerprint": "another"}
        target = folder / "other" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record), encoding="utf-8")
    text = page.write_page(finished / "results", tmp_path, "report").read_text(encoding="utf-8")
    assert "| *sham* | other, tiny | 4 |" in text[text.index("## Over the models") :]


def test_one_name_for_two_models_is_refused(finished: Path, tmp_path: Path) -> None:
    path = finished / SHAM / "seed-0.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["model"]["fingerprint"] = "another"
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="different weights or prompts"):
        page.write_page(finished / "results", tmp_path, "report")


def test_the_dry_run_shows_what_is_open(finished: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / SHAM / "seed-1.json").unlink()
    places = ["--results", str(finished / "results"), "--work", str(finished / "work")]
    asked = ["--models", str(model_file), "--methods", "random-neurons,sham", "--seeds", "0,1", "--split", "report"]
    assert run.main([*asked, *places, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "sham                         seed 1  to do  fit 0.0 min" in shown
    assert "1 of 5 to be done, about" in shown
    assert not (finished / SHAM / "seed-1.json").exists()


def test_a_wrong_method_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text('description = "x"\nfit = "nowhere:Nothing"\n', encoding="utf-8")
    assert run.main(["--method-files", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "mine.toml: cannot import nowhere:Nothing" in printed.err
