"""Whatever a method makes, an edit in closed form, a trained one or a steering, is verified by the same command."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from cli.conftest import KINDS, Command
from lingualign.config import load_config
from lingualign.data.schema import Prompt, PromptSet
from lingualign.edit import Edit
from lingualign.errors import FingerprintMismatch
from lingualign.evaluate.engine import TransformersEngine
from lingualign.features.collect import Site
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.constrained_alignment import MoCAN
from lingualign.methods.preference.mpo import MPO
from lingualign.methods.preference.pairs import Preference, PreferencePair
from lingualign.methods.preference.training import Training
from lingualign.methods.safety_neuron_tuning import SafetyNeuronTuning
from lingualign.methods.soteria import HarmVector, Soteria, weights_of
from lingualign.methods.steering.alpha_steer import AlphaSteer
from lingualign.methods.steering.babel_steering import BabelSteering
from lingualign.models.load import model_fingerprint
from lingualign.pipeline import CONTROLS, controls_left_out, open_run
from lingualign.result_schema import result_schema
from lingualign.steering import Steering, SteeringTerm
from lingualign.treatments import Treatment

WORDS = ("tea", "bread", "river", "stone")


def anchors() -> Anchors:
    prompts = [
        Prompt(str(number), language, kind, f"{kind} {language} {word}")
        for language in ("en", "th")
        for kind in KINDS
        for number, word in enumerate(WORDS)
    ]
    return build_anchors(PromptSet(prompts), "en", ("th",))


def mpo(model: Any, tokenizer: Any) -> Edit:
    def side(language: str, word: str, order: int) -> Preference:
        replies = (f"no, not {word}", f"here is some {word}")[::order]
        return Preference(Prompt(word, language, "harmful", f"tell me {word} in {language}"), *replies)

    # Both orders, so that the random model prefers the chosen reply in some.
    pairs = [PreferencePair(side("th", word, order), side("en", word, order)) for word in WORDS for order in (1, -1)]
    training = Training(learning_rate=5e-3, num_train_epochs=1, per_device_train_batch_size=4, tuning="lora")
    return MPO(training=training).fit(model, tokenizer, pairs)


def mocan(model: Any, tokenizer: Any) -> Edit:
    prompts = [Prompt(word, language, "harmful", f"{word} {language}") for word in WORDS for language in ("en", "th")]
    safety = torch.rand(len(prompts), 3, generator=torch.Generator().manual_seed(0))
    return MoCAN(margin=0.05, resamples=5).fit(
        prompts,
        [["a", "b", "c"]] * len(prompts),
        torch.zeros_like(safety),
        safety,
        preference_trainer=lambda _preferences: mpo(model, tokenizer),
    )


def safety_neuron_tuning(model: Any, tokenizer: Any) -> Edit:
    method = SafetyNeuronTuning(
        variant="SN", top_number_attn=40, top_number_ffn=60, learning_rate=1e-2, batch_size=2, gradient_accumulation=1
    )
    harmful = {"en": [f"tell me {word}" for word in WORDS], "th": [f"โปรดบอก {word}" for word in WORDS]}
    return method.fit(model, tokenizer, [("tell me tea", "no tea"), ("tell me bread", "no bread")], harmful, {})


def soteria(model: Any, tokenizer: Any) -> Edit:
    harm = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in harm.parameters():
            parameter.mul_(1.1)
    effects = {"th": torch.rand(4, 4, generator=torch.Generator().manual_seed(0))}
    return Soteria(languages=["th"]).fit(model, tokenizer, HarmVector(weights_of(harm)), effects=effects)


def alpha_steer(model: Any, tokenizer: Any) -> Steering:
    return AlphaSteer(layers=[2], alpha=0.1, strength=1.0).fit(model, tokenizer, anchors())


def babel_steering(model: Any, tokenizer: Any) -> Steering:
    return BabelSteering(layers=[2], coefficient=5.0).fit(model, tokenizer, anchors())


FITS: tuple[Callable[[Any, Any], Treatment], ...] = (
    mpo,
    mocan,
    safety_neuron_tuning,
    soteria,
    alpha_steer,
    babel_steering,
)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_every_methods_result_is_verified(
    command: Command,
    tiny_model: tuple[Any, Any],
    tiny_model_folder: Path,
    settings_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fit: Callable[[Any, Any], Treatment],
) -> None:
    treatment = fit(*tiny_model)
    file = treatment.save(tmp_path / "treatment.safetensors")
    out = tmp_path / "run"
    few = ("--languages", "en,th,ja", "--seeds-per-kind", 2, "--max-new-tokens", 4)
    arguments = ("verify", tiny_model_folder, file, "--config", settings_file, *few, "--out", out, "--json")
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    Draft202012Validator(result_schema()).validate(result)
    assert result["edit"]["method"] == treatment.manifest["method"]
    assert json.loads((out / "run.json").read_text())["fingerprint"]["edit"] == treatment.fingerprint
    # Japanese is an anchor of the settings, but nothing was fitted on it.
    assert result["anchor_languages"] == ["th"]
    changed = (out / "before.jsonl").read_text() != (out / "after.jsonl").read_text()
    assert changed or result["utility"]["comparison"]["mean_divergence"]["kl"]["value"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    edit = page[page.index('<section id="edit">') :]
    edit = edit[: edit.index("</section>")]
    assert treatment.manifest["method"] in edit
    assert treatment.manifest["citation"] in edit
    assert "{&#39;" not in edit, "a list of mappings is shown as Python writes it"
    assert ("<table>" in edit) == ("diagnostics" in treatment.manifest)
    monkeypatch.setattr(TransformersEngine, "generate", None)
    assert json.loads(command(*arguments).stdout)["cells"] == result["cells"]


@pytest.fixture
def steering_file(tiny_model: tuple[Any, Any], tmp_path: Path) -> Path:
    term = SteeringTerm.constant(torch.ones(64))
    steering = Steering({Site("model.layers.2", "input"): term}, model_fingerprint(tiny_model[0]))
    return steering.save(tmp_path / "steering.safetensors")


@pytest.mark.parametrize("form", ["checkpoint", "lora"])
def test_a_steering_is_not_exported(
    command: Command, tiny_model_folder: Path, steering_file: Path, tmp_path: Path, form: str
) -> None:
    outcome = command("export", tiny_model_folder, steering_file, "--format", form, "--out", tmp_path / "out")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "is a steering" in line
    assert f"`lingualign verify {tiny_model_folder} {steering_file}`" in line
    assert not (tmp_path / "out").exists()


def test_a_steering_of_another_model_costs_no_audit(
    command: Command, tiny_model_folder: Path, settings_file: Path, steering_file: Path, tmp_path: Path
) -> None:
    replace(Steering.load(steering_file), base="another").save(steering_file)
    out = tmp_path / "run"
    outcome = command("verify", tiny_model_folder, steering_file, "--config", settings_file, "--out", out, "--quiet")
    assert outcome.code == 2
    assert "not the model the steering was made for" in outcome.error_lines[-1]
    assert not (out / "before.jsonl").exists()


def test_languages_of_an_edit_come_from_its_manifest_or_the_settings(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path, tmp_path: Path
) -> None:
    edit = Edit.load(finished_run / "edit.safetensors")
    few = ("--languages", "en,th,de", "--seeds-per-kind", 1, "--max-new-tokens", 2)

    def anchor_languages(name: str, edit: Edit) -> list[str]:
        file = edit.save(tmp_path / f"{name}.safetensors")
        shared = ("--config", settings_file, *few, "--out", tmp_path / name, "--json")
        found: list[str] = json.loads(command("verify", tiny_model_folder, file, *shared).stdout)["anchor_languages"]
        return found

    of_german = replace(edit, manifest={"anchor_languages": ["en", "de"]})
    assert anchor_languages("german", of_german) == ["de"]
    assert anchor_languages("sum", of_german + replace(edit, manifest={"languages": ["th"]})) == ["de", "th"]
    assert anchor_languages("unknown", replace(edit, manifest={"method": "mine"})) == ["th", "ja"]


@pytest.mark.parametrize("kind", ["edit", "steering"])
def test_controls_that_a_treatment_lacks_are_left_out(
    finished_run: Path, tiny_model: tuple[Any, Any], steering_file: Path, tmp_path: Path, kind: str
) -> None:
    treatment: Treatment = Steering.load(steering_file) if kind == "steering" else mpo(*tiny_model)
    config, out = load_config(finished_run / "config.toml"), tmp_path / "controls"
    with open_run(config, out) as run:
        names = [arm.name for arm in run.controls(treatment)]
    left_out = controls_left_out(treatment)
    assert left_out is not None
    if kind == "steering":
        assert names == ["safe-prompt"]
        assert left_out == ("no random-neurons, selected-neurons, sham, paper-family: a steering changes no weights")
    else:
        assert names == ["sham", "safe-prompt"]
        assert left_out == (
            "no random-neurons, selected-neurons, paper-family: variants of sparse-weight-edit, which did not make "
            "this edit"
        )
        sham = Edit.load(out / "controls" / "sham.safetensors")
        assert isinstance(treatment, Edit)
        assert sham.deltas.keys() == treatment.deltas.keys()
        for name, delta in sham.deltas.items():
            assert float(delta.dense().norm()) == pytest.approx(float(treatment.deltas[name].dense().norm()), rel=1e-4)


def test_controls_of_another_treatment_are_refused(finished_run: Path, steering_file: Path) -> None:
    with (
        open_run(load_config(finished_run / "config.toml"), finished_run) as run,
        pytest.raises(FingerprintMismatch, match="made with another edit"),
    ):
        run.controls(Steering.load(steering_file))


def test_the_packages_own_edit_has_every_control(edit_file: Path) -> None:
    assert controls_left_out(Edit.load(edit_file)) is None
    assert len(CONTROLS) == 5


@pytest.mark.parametrize("fit", [mpo, safety_neuron_tuning], ids=lambda fit: fit.__name__)
def test_run_says_which_controls_another_methods_edit_lacks(
    command: Command,
    tiny_model: tuple[Any, Any],
    tiny_model_folder: Path,
    settings_file: Path,
    tmp_path: Path,
    fit: Callable[[Any, Any], Edit],
) -> None:
    out = tmp_path / "run"
    few = ("--languages", "en,th", "--seeds-per-kind", 1, "--max-new-tokens", 2, "--out", out)
    assert command("audit", tiny_model_folder, "--config", settings_file, *few).code == 0
    edit = fit(*tiny_model)
    edit.save(out / "edit.safetensors")
    outcome = command("run", tiny_model_folder, "--config", settings_file, *few, "--controls")
    assert outcome.code == 0, outcome.stderr
    name, delta = next(iter(edit.deltas.items()))
    assert re.search(
        rf"{re.escape(name)} +{delta.rank} +{len(delta.out_factor)} x {len(delta.in_factor)} ", outcome.stdout
    )
    assert "Controls  no random-neurons, selected-neurons, paper-family: variants of" in outcome.stdout
    result = json.loads((out / "result.json").read_text())
    assert [control["name"] for control in result["controls"]] == ["sham", "safe-prompt"]


def test_an_old_run_folder_is_refused_in_one_line(
    command: Command, finished_run: Path, tiny_model_folder: Path, settings_file: Path
) -> None:
    path = finished_run / "run.json"
    record = json.loads(path.read_text())
    record["fingerprint"]["edit"] = "0123456789abcdef"
    path.write_text(json.dumps(record))
    outcome = command("run", tiny_model_folder, "--config", settings_file, "--out", finished_run, "--quiet")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "made with another edit (0123456789abcdef, now" in line
    assert "use another --out folder, or delete this one" in line
