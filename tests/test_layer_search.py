"""Layers chosen on the select split: which windows are tried, what a trial counts, and that the best one is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lingualign.config import build_config
from lingualign.errors import DataError
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.layer_search import Trial, candidate_windows, measured, search_layers
from lingualign.models.load import load_model
from lingualign.pipeline import fit_edit
from lingualign.prompts import resolve_prompts


def test_windows_overlap_by_half_and_reach_both_ends() -> None:
    assert candidate_windows(6, 18) == [tuple(range(start, start + 6)) for start in (0, 3, 6, 9, 12)]
    assert candidate_windows(4, 9) == [(0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7), (5, 6, 7, 8)]
    assert candidate_windows(1, 3) == [(0,), (1,), (2,)]
    assert candidate_windows(9, 4) == [(0, 1, 2, 3)]


def _replies(outcomes: dict[tuple[str, str], list[Outcome]]) -> list[Reply]:
    return [
        Reply(str(number), language, kind, "text", 1, True, outcome, 0.5, language)  # type: ignore[arg-type]
        for (language, kind), group in outcomes.items()
        for number, outcome in enumerate(group)
    ]


def test_a_trial_counts_gain_and_costs() -> None:
    before = _replies(
        {
            ("en", "harmful"): ["refused", "refused"],
            ("en", "harmless"): ["answered", "answered"],
            ("th", "harmful"): ["answered", "answered"],
            ("th", "harmless"): ["answered", "answered"],
        }
    )
    after = _replies(
        {
            ("en", "harmful"): ["refused", "answered"],
            ("en", "harmless"): ["answered", "answered"],
            ("th", "harmful"): ["refused", "refused"],
            ("th", "harmless"): ["incoherent", "refused"],
        }
    )
    trial = measured([3, 4], before, after, "en")
    assert trial == Trial(
        (3, 4), gain=1.0, reference=-0.5, over_refusal=0.25, look_alike=0.0, incoherence=pytest.approx(0.125)
    )
    assert trial.score == pytest.approx(1.0 - 0.5 - 0.25 - 0.125)


def test_what_improves_besides_is_no_credit() -> None:
    assert Trial((0,), 0.2, reference=0.1, over_refusal=-0.1, look_alike=0.0, incoherence=-0.3).score == 0.2


def test_the_best_window_wins_and_every_trial_is_told() -> None:
    gains = {(0, 1): 0.1, (1, 2): 0.4, (2, 3): 0.4}
    best, trials = search_layers(list(gains), lambda window: Trial(window, gains[window], 0.0, 0.0, 0.0, 0.0))
    assert best == (2, 3)
    assert [trial["score"] for trial in trials] == [0.1, 0.4, 0.4]


def _config(folder: Path, prompts: Path) -> Any:
    return build_config(
        {
            "model": str(folder),
            "precision": "float32",
            "device": "cpu",
            "prompts": {"sources": [str(prompts)], "anchor_languages": ["th"]},
            "audit": {"max_new_tokens": 4, "batch_size": 8},
            "edit": {"layers": "select", "layer_count": 2, "rank": 4, "ridge": 0.1},
        }
    )


def _prompt_file(path: Path, splits: tuple[str, ...]) -> Path:
    rows = ["seed_id,kind,split,en,th"]
    for split in splits:
        for kind in ("harmful", "harmless"):
            rows += [
                f"{kind}-{split}-{n},{kind},{split},tell me {kind} {split} {n},บอก {kind} {split} {n}" for n in range(3)
            ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_fit_tries_every_window_on_the_select_split(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = _config(tiny_model_folder, _prompt_file(tmp_path / "prompts.csv", ("fit", "select", "report")))
    loaded = load_model(config.model, precision="float32", device="cpu")
    prompts = resolve_prompts(config)
    edit = fit_edit(loaded, prompts, config.edit, features=tmp_path / "features", audit=config.audit)
    trials = edit.manifest["layer_trials"]
    assert [tuple(trial["layers"]) for trial in trials] == [(0, 1), (1, 2), (2, 3)]
    best = max(trial["score"] for trial in trials)
    assert best == next(trial["score"] for trial in trials if list(trial["layers"]) == edit.manifest["layers"])
    # Nothing but select prompts was asked.
    asked = {
        line.split('"seed_id": "')[1].split('"')[0]
        for file in (tmp_path / "features").glob("select-*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    assert asked == {prompt.seed_id for prompt in prompts.select}
    # A second fit has all of it on the disk and gives the same edit.
    again = fit_edit(loaded, prompts, config.edit, features=tmp_path / "features", audit=config.audit)
    assert all((again.deltas[name].out_factor == delta.out_factor).all() for name, delta in edit.deltas.items())


def test_an_empty_select_split_is_an_error_before_anything_is_done(tmp_path: Path, tiny_model_folder: Path) -> None:
    config = _config(tiny_model_folder, _prompt_file(tmp_path / "prompts.csv", ("fit", "report")))
    loaded = load_model(config.model, precision="float32", device="cpu")
    with pytest.raises(DataError, match="select split"):
        fit_edit(loaded, resolve_prompts(config), config.edit, features=tmp_path / "features", audit=config.audit)
    assert not (tmp_path / "features").exists()
