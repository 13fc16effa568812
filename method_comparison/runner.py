"""Runs methods on a model: base audit, fit, audit, utility, and one small JSON file for each method and seed.

What is done is not done again: replies and edits are in the work folder, figures among the results. A fit that was
killed begins anew, so that its cost is that of a whole fit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lingualign.data.schema import PromptSet
from lingualign.edit import Edit
from lingualign.errors import ConfigError, UserError
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.judges.card import JudgeCard, judge_card
from lingualign.evaluate.judges.registry import make_judge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.separation import refusal_opening, refusal_scores
from lingualign.evaluate.store import ReplyStore
from lingualign.evaluate.utility.harness import check_tasks
from lingualign.evaluate.utility.measure import Utility, UtilityComparison, compare_utility, measure_utility
from lingualign.evaluate.verdict import compare
from lingualign.events import Progress, silent
from lingualign.hardware import hardware_line, versions
from lingualign.measures import corrected_figures
from lingualign.models.load import LoadedModel, load_model
from lingualign.pipeline import audit_engine
from lingualign.plan import make_plan
from lingualign.prompts import RunPrompts, prompts_hash, resolve_prompts
from lingualign.runs import RunFolder, content_hash, write_json
from lingualign.treatments import load_treatment
from method_comparison.cost import Cost, metered
from method_comparison.record import (
    SCHEMA,
    code_version,
    comparison_figures,
    corrected_summary,
    counts,
    outcome_figures,
    read_record,
    result_path,
    score_figures,
    write_record,
)
from method_comparison.registry import RegisteredMethod, RegisteredModel
from method_comparison.treatment import Context, Treatment

Split = Literal["select", "report"]
State = Literal["done", "to do", "of other settings", "of another commit"]


@dataclass(frozen=True)
class Options:
    """How a comparison is run.

    Attributes:
        split: whose prompts are audited; `report` is for the final table and chooses nothing.
        results: folder of the figures.
        work: folder of replies and edits.
        overwrite: whether results of other settings or of another commit are replaced.
    """

    split: Split
    results: Path
    work: Path
    overwrite: bool = False


@dataclass(frozen=True)
class Task:
    """One run that is asked for: a method with one seed, and where it stands."""

    method: RegisteredMethod
    seed: int
    path: Path
    state: State


@dataclass(frozen=True)
class Fitted:
    """A treatment, what making it cost, and on what machine."""

    treatment: Treatment
    cost: Cost
    hardware: str


class Comparison:
    """The methods on one model. Nothing heavy is loaded before `run`.

    Args:
        model: the model.
        methods: by name, each after the one it is made from.
        seeds: of the methods that depend on one.
        options: split and folders.
        progress: called as work goes on.

    Raises:
        DataError: the prompts cannot be read, or the split is empty.
    """

    def __init__(
        self,
        model: RegisteredModel,
        methods: dict[str, RegisteredMethod],
        seeds: Sequence[int],
        options: Options,
        progress: Progress = silent,
    ) -> None:
        self.model = model
        self.methods = methods
        self.seeds = seeds
        self.options = options
        self.progress = progress
        self.prompts: RunPrompts = resolve_prompts(model.config)
        self.audited = getattr(self.prompts, options.split)
        if not self.audited:
            raise ConfigError(
                f"model {model.name} has no prompts in the {options.split} split; give it a source with some"
            )
        self.judge = make_judge(model.config.judge.first, device=model.config.device)
        errors = model.config.judge.errors
        self.card: JudgeCard = judge_card(self.judge.name, Path(errors) if errors else None)
        self.code = code_version()

    @cached_property
    def _fit_settings(self) -> dict[str, Any]:
        """What every fit on the model depends on, wherever its files are; batch size and device change time and memory
        only."""
        elsewhere: Any = {
            **dict.fromkeys(("model", "device", "endpoint"), True),
            **{"prompts": {"sources"}, "audit": {"batch_size"}, "judge": {"errors"}, "utility": {"data", "batch_size"}},
        }
        return {
            "model": self.model.source,
            "config": self.model.config.model_dump(mode="json", exclude=elsewhere),
            "prompts": [prompts_hash(part) for part in (self.prompts.fit, self.prompts.select)],
            "judge": [self.judge.name, self.card.as_table()],
        }

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What every result of the model depends on."""
        fit = self._fit_settings
        return {**fit, "split": self.options.split, "prompts": [*fit["prompts"], prompts_hash(self.audited)]}

    def settings_hash(self, method: RegisteredMethod, seed: int) -> str:
        """Identifies what a result depends on, the code apart."""
        return self._hash(self._settings, method, seed)

    def fit_hash(self, method: RegisteredMethod, seed: int) -> str:
        """Identifies what a fit depends on, the code apart: the same for both splits."""
        return self._hash(self._fit_settings, method, seed)

    def _hash(self, settings: dict[str, Any], method: RegisteredMethod, seed: int) -> str:
        chain = [method]
        while base := chain[-1].file.base:
            chain.append(self.methods[base])
        # A description is no setting.
        files = [{"fit": link.file.fit, "parameters": link.file.parameters} for link in chain]
        return content_hash({**settings, "methods": files, "seed": seed})

    def tasks(self) -> list[Task]:
        """Every run that is asked for, in order, and where it stands."""
        found = []
        for method in self.methods.values():
            for seed in method.seeds(self.seeds):
                path = result_path(self.options.results, self.options.split, self.model.name, method.name, seed)
                found.append(Task(method, seed, path, self._state(method, seed, path)))
        return found

    def _state(self, method: RegisteredMethod, seed: int, path: Path) -> State:
        if not path.is_file():
            return "to do"
        record = read_record(path)
        if record["settings"] != self.settings_hash(method, seed):
            return "of other settings"
        return "done" if record["code"]["commit"] == self.code["commit"] else "of another commit"

    def waiting(self, tasks: Sequence[Task]) -> list[Task]:
        """The runs to be done among these. A result of another commit is taken as it is unless it is to be replaced."""
        return [task for task in tasks if task.state == "to do" or (self.options.overwrite and task.state != "done")]

    def estimates(self, tasks: Sequence[Task]) -> tuple[float, dict[tuple[str, int], tuple[float | None, float]]]:
        """Seconds of the unedited model's audit; by method and seed those of the fit, None where unknown, and the rest.

        A fit that was measured before, with any seed and on either split, is taken to last as long again.
        """
        prompts = replace(self.prompts, report=self.audited)
        config = self.model.config
        # Another adapter has the small model's sizes, and building it would take a minute here.
        if self.model.packaged is not None:
            config = config.model_copy(update={"model": self.model.checkpoint()})
        plan = make_plan(config, prompts, self.options.work, "run")
        found: dict[tuple[str, int], tuple[float | None, float]] = {}
        for task in tasks:
            earlier = sorted(self.options.results.glob(f"*/{self.model.name}/{task.method.name}/seed-*.json"))
            fit = read_record(earlier[0])["cost"]["seconds"] if earlier else task.method.method.estimate(plan)
            rest = plan.seconds["audit after"] + plan.seconds.get("utility after", 0.0)
            after = 0.0 if task.method.name == "no-edit" else rest
            found[task.method.name, task.seed] = (fit, after)
        return plan.seconds["audit before"], found

    def run(self, on_result: Callable[[Task, dict[str, Any]], None] | None = None, *, fit_only: bool = False) -> None:
        """Does what is open.

        Args:
            on_result: called with each finished run and its figures.
            fit_only: whether to stop after the fits, which another machine may audit.

        Raises:
            UserError: a result of other settings is in the way, or the model or a setting is wrong.
        """
        tasks = self.tasks()
        for task in tasks:
            if task.state == "of other settings" and not self.options.overwrite:
                raise UserError(
                    f"{task.path} was made with other settings or prompts; give --overwrite to replace it, "
                    "or --results another folder"
                )
        waiting = self.waiting(tasks)
        if not waiting:
            return
        config = self.model.config
        check_tasks(config.utility)
        loaded = load_model(self.model.checkpoint(), precision=config.precision, device=config.device)
        session = _Session(self, loaded)
        if fit_only:
            for task in waiting:
                session.fitted(task.method, task.seed)
            return
        with session.opened(self.options.split, "base", content_hash(self._settings)) as base:
            before = session.audit(base, "before.jsonl", "audit before", None)
            utility = session.utility(base, None)
            opening = refusal_opening(before, loaded.tokenizer, self.prompts.reference)
            scores = session.refusal_scores(base, opening)
            for task in waiting:
                record = session.record(task, before, utility, opening, scores)
                write_record(task.path, record)
                if on_result:
                    on_result(task, record)


class _Session:
    """A loaded model and the work folders of its runs."""

    def __init__(self, comparison: Comparison, loaded: LoadedModel) -> None:
        self.comparison = comparison
        self.loaded = loaded
        self.config = comparison.model.config
        self.device = str(next(loaded.model.parameters()).device)
        self.hardware = hardware_line(self.device)

    @contextmanager
    def opened(self, part: str, name: str, settings: str) -> Iterator[RunFolder]:
        """A work folder, of this code and these settings alone."""
        of = self.comparison
        key = content_hash([settings, of.code["commit"]])
        path = of.options.work / part / of.model.name / f"{name}-{key}"
        with RunFolder.open(
            path, {"model weights": self.loaded.fingerprint, "precision": self.loaded.precision}
        ) as folder:
            yield folder

    def record(
        self,
        task: Task,
        before: Sequence[Reply],
        base_utility: Utility,
        opening: str | None,
        base_scores: Sequence[float],
    ) -> dict[str, Any]:
        """Fits, audits and compares one method with one seed."""
        of = self.comparison
        fitted = self.fitted(task.method, task.seed)
        treatment = fitted.treatment
        settings = of.settings_hash(task.method, task.seed)
        with self.opened(of.options.split, f"{task.method.name}-{task.seed}", settings) as folder:
            after, scores = list(before), list(base_scores)
            if not treatment.is_nothing:
                with treatment.change.applied(self.loaded.model):
                    after = self.audit(folder, "after.jsonl", "audit after", treatment.system)
                    scores = [] if treatment.system else self.refusal_scores(folder, opening)
            utility = self.compared_utility(folder, treatment, base_utility, before, after)
        anchors = of.prompts.anchor_languages
        reference = of.prompts.reference
        file = task.method.file
        manifest = treatment.change.manifest
        return {
            "schema": SCHEMA,
            "model": {
                "name": of.model.name,
                "source": of.model.source,
                "fingerprint": self.loaded.fingerprint,
                "parameters": sum(parameter.numel() for parameter in self.loaded.model.parameters()),
                "dtype": self.loaded.precision,
            },
            "method": {
                "name": task.method.name,
                "fit": file.fit,
                "parameters": file.parameters,
                "base": file.base,
                "control": file.control,
                "seeded": file.seeded,
                "layers": manifest.get("layers"),
                "treatment": treatment.change.fingerprint,
            },
            "seed": task.seed,
            "split": of.options.split,
            "settings": settings,
            "code": of.code,
            "reference": reference,
            "anchor_languages": anchors,
            "languages": of.audited.languages,
            "prompts": {"fit": prompts_hash(of.prompts.fit), "audited": prompts_hash(of.audited)},
            "judge": of.judge.name,
            "outcomes": outcome_figures(before, after),
            "refusal_scores": score_figures(opening, of.audited, before, base_scores, scores)
            if opening and scores
            else None,
            "counts": counts(after),
            "comparison": comparison_figures(compare(before, after, reference=reference, anchor_languages=anchors)),
            "corrected": corrected_summary(corrected_figures(before, after, of.card.errors, reference)),
            "utility": utility,
            "cost": asdict(fitted.cost),
            "seconds": dict(folder.timings),
            "hardware": self.hardware
            if fitted.hardware == self.hardware
            else f"{self.hardware}, fitted on {fitted.hardware}",
            "versions": versions(),
        }

    def fitted(self, method: RegisteredMethod, seed: int) -> Fitted:
        """Fits a method, or reads what it made for either split, perhaps on another machine; the cost is that of the
        fit that made it."""
        of = self.comparison
        with self.opened("fits", f"{method.name}-{seed}", of.fit_hash(method, seed)) as folder:
            file, facts = folder.path / "treatment.safetensors", folder.path / "fit.json"
            if facts.is_file():
                kept = json.loads(facts.read_text(encoding="utf-8"))
                cost = Cost(**kept["cost"])
                return Fitted(
                    Treatment(load_treatment(file), kept["system"]),
                    cost if kept["hardware"] == self.hardware else cost.elsewhere,
                    kept["hardware"],
                )
            base, base_cost = self.base_edit(method, seed) or (None, None)
            scratch = folder.path / "features"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            prompts = replace(of.prompts, report=PromptSet([]))
            context = Context(self.config, self.loaded, prompts, of.judge, seed, scratch, base, of.progress)
            with metered(self.device) as meter:
                treatment = method.method.fit(context)
            treatment.change.save(file)
            cost = base_cost + meter.cost if base_cost and method.method.adds_to_base else meter.cost
            write_json(facts, {"system": treatment.system, "cost": asdict(cost), "hardware": self.hardware})
            shutil.rmtree(scratch)
            return Fitted(treatment, cost, self.hardware)

    def base_edit(self, method: RegisteredMethod, seed: int) -> tuple[Edit, Cost] | None:
        """The edit of the method that this one is made from, with the same seed where that has any, and its cost."""
        if method.file.base is None:
            return None
        base = self.comparison.methods[method.file.base]
        seed = seed if base.file.seeded else 0
        fitted = self.fitted(base, seed)
        change = fitted.treatment.change
        if not isinstance(change, Edit):
            raise ConfigError(f"{method.name} is made from {base.name}, which is no edit of weights; correct `base`")
        return change, fitted.cost

    def audit(self, folder: RunFolder, file: str, stage: str, system: str | None) -> list[Reply]:
        engine = audit_engine(self.loaded, self.config.audit, system=system)
        of = self.comparison
        with folder.timed(stage):
            return run_audit(
                engine, of.judge, of.audited, ReplyStore(folder.path / file), progress=of.progress, stage=stage
            )

    def refusal_scores(self, folder: RunFolder, opening: str | None) -> list[float]:
        """Of every audited prompt, with what is applied to the model now; none without an opening."""
        if opening is None:
            return []
        file = folder.path / "refusal-scores.json"
        if not file.is_file():
            with folder.timed("refusal scores"):
                prompts = list(self.comparison.audited)
                write_json(file, refusal_scores(self.loaded.model, self.loaded.tokenizer, prompts, opening))
        found: list[float] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def utility(self, folder: RunFolder, treatment: Treatment | None) -> Utility:
        of = self.comparison
        with folder.timed("utility"):
            return measure_utility(
                self.loaded,
                self.config.utility,
                of.audited,
                folder.path / "utility.json",
                treatment=treatment.change if treatment else None,
                progress=of.progress,
            )

    def compared_utility(
        self,
        folder: RunFolder,
        treatment: Treatment,
        base: Utility,
        before: Sequence[Reply],
        after: Sequence[Reply],
    ) -> UtilityComparison | None:
        """None where nothing was done to the model: a system line is not in the texts that utility is measured on."""
        if treatment.system is not None or treatment.is_nothing:
            return None
        return compare_utility(base, self.utility(folder, treatment), before, after, self.loaded.tokenizer)
