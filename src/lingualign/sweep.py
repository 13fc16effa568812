"""A sweep of settings from prompts to files: features once, hundreds of settings scored, a few of them audited.

Its folder holds `sweep.json` (every setting with its scores), `sweep.svg`, `features/`, and of the settings that are
audited `setting-N.toml`, which `lingualign edit --config` takes. The report split plays no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from lingualign.config import RunConfig, dump_config
from lingualign.edit import Edit
from lingualign.errors import DataError
from lingualign.evaluate.judge import Judge
from lingualign.evaluate.judges.registry import make_judge
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.events import Progress, silent
from lingualign.features.store import FeatureSource
from lingualign.grid import collecting, configured
from lingualign.hardware import hardware_line, versions
from lingualign.methods.anchor_features import AnchorFeatures
from lingualign.methods.sweep import Score, Setting, Sweep, pareto_front, sweep
from lingualign.models.load import LoadedModel
from lingualign.pipeline import fit_edit, own_replies, refusal_lessons, select_replies
from lingualign.plan import refuse_edited
from lingualign.prompts import RunPrompts
from lingualign.report.data import Arm
from lingualign.runs import write_json, write_text
from lingualign.sweep_plot import front_chart

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Trial:
    """One setting audited on the select split.

    Attributes:
        name: `setting-1` and so on, by rising leakage.
        score: its proxies.
        edit: fitted on all anchors of the fit split.
        replies: the edited model's, judged.
    """

    name: str
    score: Score
    edit: Edit
    replies: tuple[Reply, ...]

    @property
    def arm(self) -> Arm:
        """For a table."""
        return Arm(self.name, f"explained {self.score.explained:.3f}, leakage {self.score.leakage:.3g}", self.replies)


def score_settings(
    loaded: LoadedModel,
    prompts: RunPrompts,
    config: RunConfig,
    settings: Sequence[Setting],
    *,
    features: Path,
    progress: Progress = silent,
) -> Sweep:
    """Collects features of the fit split's anchors, then solves and scores all settings.

    Args:
        loaded: the base model; left as it was found.
        prompts: their fit split is used.
        config: all that the settings do not change.
        settings: `grid.settings_of` makes them.
        features: folder of collected features; a killed sweep resumes from it, and another grid needs no more of them.
        progress: called as work goes on.

    Raises:
        DataError: there are too few prompts to hold some out in each language.
        UserError: as raised by the parts.
    """
    refuse_edited(loaded.model)
    collected = collecting(config, settings)
    anchors = prompts.anchors()
    replies = own_replies(
        loaded,
        anchors,
        collected.edit.positions.reply_tokens,
        features,
        batch_size=config.audit.batch_size,
        progress=progress,
    )
    lessons = {}
    if collected.edit.teacher == "own-language":
        lessons = refusal_lessons(loaded, anchors, config.audit, _judge(config, features), features, progress)
    source = FeatureSource(
        loaded.model,
        loaded.fingerprint,
        pad_id=loaded.tokenizer.pad_token_id or 0,
        cache=features,
        progress=progress,
    )
    method = collected.edit.method()
    read = AnchorFeatures(method, loaded.model, loaded.tokenizer, anchors, source, replies, lessons)
    return sweep(read, settings, progress)


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """`count` of the items at even distances, both ends included; one is the middle; all where they are fewer."""
    if count >= len(items):
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def require_select(prompts: RunPrompts) -> None:
    """Refuses to audit settings where there is nothing to audit them on.

    Raises:
        DataError: the select split has no harmful prompt.
    """
    if not any(prompt.kind == "harmful" for prompt in prompts.select):
        raise DataError(
            "--evaluate needs harmful prompts in the select split; mark some in the split column, or leave it out"
        )


def write_settings(config: RunConfig, chosen: Sequence[Score], out: Path) -> list[Path]:
    """Writes `setting-N.toml` for each, in the place of an earlier sweep's."""
    for path in out.glob("setting-[0-9]*.toml"):
        path.unlink()
    return [
        write_text(out / f"setting-{number}.toml", dump_config(configured(config, score.setting)))
        for number, score in enumerate(chosen, start=1)
    ]


def audit_settings(
    loaded: LoadedModel,
    prompts: RunPrompts,
    config: RunConfig,
    chosen: Sequence[Score],
    *,
    features: Path,
    progress: Progress = silent,
) -> tuple[list[Reply], list[Trial]]:
    """Fits an edit for each setting on all anchors and audits it on the select split; resumes like an audit.

    Args:
        loaded: the base model; left as it was found.
        prompts: fitted on their fit split, audited on their select split.
        config: all that the settings do not change.
        chosen: scores of the settings.
        features: the sweep's; no forward pass over the anchors is needed again. Replies are kept there too.
        progress: called as work goes on.

    Returns:
        The unedited model's replies, and one trial a setting.
    """
    judge = _judge(config, features)

    def replies(edit: Edit, stage: str) -> list[Reply]:
        return select_replies(loaded, edit, prompts, config.audit, judge, features, progress, stage)

    before = replies(Edit({}, {}), "no edit")
    trials = []
    for number, score in enumerate(chosen, start=1):
        name = f"setting-{number}"
        settings = configured(config, score.setting).edit
        edit = fit_edit(
            loaded, prompts, settings, features=features, audit=config.audit, judge=judge, progress=progress
        )
        trials.append(Trial(name, score, edit, tuple(replies(edit, name))))
    return before, trials


def write_sweep(
    loaded: LoadedModel,
    config: RunConfig,
    found: Sweep,
    out: Path,
    before: Sequence[Reply] = (),
    trials: Sequence[Trial] = (),
) -> dict[str, Any]:
    """Writes `sweep.json` and `sweep.svg`, and returns what the first holds."""
    front = pareto_front(found.scores)
    places = {id(score): place for place, score in enumerate(found.scores)}
    audited: dict[str, Any] | None = None
    if trials:
        audited = {"split": "select", "judge": config.judge.first, "no edit": [asdict(cell) for cell in cells(before)]}
        for trial in trials:
            audited[trial.name] = {
                "setting": places[id(trial.score)],
                "edit": trial.edit.fingerprint,
                "cells": [asdict(cell) for cell in cells(trial.replies)],
            }
    document: dict[str, Any] = {
        "model": loaded.name,
        "model_fingerprint": loaded.fingerprint,
        "precision": loaded.precision,
        "hardware": hardware_line(str(next(loaded.model.parameters()).device)),
        "versions": versions(),
        "config": config.model_dump(mode="json"),
        "layers": list(found.layers),
        "solves_per_matrix": found.solves,
        "solved_pairs": found.solved,
        "held_out": [{"kind": kind, "language": language, "n": n} for (kind, language), n in found.held_out.items()],
        "seconds": dict(found.seconds),
        "settings": [_plain(score) for score in found.scores],
        "front": [places[id(score)] for score in front],
        "audited": audited,
    }
    write_json(out / "sweep.json", document)
    write_text(out / "sweep.svg", front_chart(found.scores, front, {trial.name: trial.score for trial in trials}))
    return document


def _plain(score: Score) -> dict[str, Any]:
    changes: dict[str, dict[str, float]] = {}
    for (kind, language), value in score.change_by_group.items():
        changes.setdefault(kind, {})[language] = value
    return {
        **asdict(score.setting),
        "explained": score.explained,
        "worst_explained": score.worst_explained,
        "leakage": score.leakage,
        "worst_leakage": score.worst_leakage,
        "reference_change": score.reference_change,
        "explained_by_language": dict(score.explained_by_language),
        "change_by_kind_and_language": changes,
    }


def _judge(config: RunConfig, features: Path) -> Judge:
    return make_judge(config.judge.first, cache=features / "judge-outputs.jsonl", device=config.device)
