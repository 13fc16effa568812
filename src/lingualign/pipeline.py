"""One run from prompts to report: what the commands and the Python API share.

A run folder holds `run.json` (what it depends on, seconds by stage), `config.toml`, `before.jsonl`, `features/`,
`edit.safetensors`, `after.jsonl`, `controls/NAME.jsonl` with their edits, `result.json` and `report.html`. A step that
is on the disk is not done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lingualign.audit_run import AuditRun, audit_fingerprint, memory_errors, open_served
from lingualign.audited import AuditedModel
from lingualign.config import AuditSettings, EditSettings, RunConfig, dump_config
from lingualign.data.schema import Prompt, PromptSet
from lingualign.edit import Edit
from lingualign.errors import DataError
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.gates import Gate
from lingualign.evaluate.judge import Judge, OfflineJudge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.evaluate.streamed_engine import StreamedEngine
from lingualign.evaluate.utility.harness import check_tasks
from lingualign.evaluate.utility.measure import Utility, measure_utility
from lingualign.events import Progress, silent
from lingualign.features.ranks import share, united
from lingualign.layer_search import Trial, candidate_windows, measured, search_layers
from lingualign.measures import UtilityFigures, utility_figures
from lingualign.methods.anchors import Anchors
from lingualign.methods.controls import sham_edit
from lingualign.methods.own_language import Lesson, instructed, lessons
from lingualign.methods.safe_prompt import THINK_IN_ENGLISH
from lingualign.methods.sparse_weight_edit import METHOD
from lingualign.models.load import LoadedModel, load_model
from lingualign.models.locate import locate_mlps
from lingualign.models.stages import streamed_weights
from lingualign.plan import refuse_edited, refuse_served
from lingualign.prompts import RunPrompts, prompts_hash, resolve_prompts
from lingualign.report.data import Arm
from lingualign.results import Result
from lingualign.runs import RunFolder, content_hash, write_text
from lingualign.treatments import Treatment

#: Share of the neurons in the sparse controls, where the edit itself is not sparse.
CONTROL_FRACTION = 0.25
#: The method as published. Its main table's rank is inferred from its rank ablation; its objective has no weights
#: besides γ, whose value it does not report; all features come from the unedited model.
PUBLISHED: dict[str, Any] = {
    "family": "paper",
    "selection": "paper",
    "fraction": None,
    "target": "pre",
    "rank": 32,
    "propagation": "none",
    "keep_weight": 1.0,
    "look_alike_weight": 1.0,
    "reference_weight": 1.0,
}


class Run(AuditRun):
    """A run on a model in this process. Made by `open_run`.

    Attributes:
        loaded: the model; left as it was found after every step.
    """

    def __init__(
        self, config: RunConfig, prompts: RunPrompts, loaded: LoadedModel, folder: RunFolder, progress: Progress
    ) -> None:
        super().__init__(config, prompts, AuditedModel.in_process(loaded), folder, progress)
        self.loaded = loaded

    @property
    def edit_path(self) -> Path:
        return self.folder.path / "edit.safetensors"

    def fit(self) -> Edit:
        """Fits the edit on the fit split, or reads it where it is on the disk."""
        self.folder.bind(_fit_fingerprint(self.config, self.prompts))
        return self._fit(self.config.edit, self.edit_path, "edit")

    def after(self, treatment: Treatment) -> list[Reply]:
        """Audits the treated model on the same prompts; the model is restored bit by bit."""
        self.folder.bind({"edit": treatment.fingerprint})
        with treatment.applied(self.loaded.model):
            return self._audit("after.jsonl", "audit after")

    def controls(self, treatment: Treatment) -> list[Arm]:
        """Fits and audits every control of `CONTROLS` that the treatment has; `controls_left_out` names the others."""
        self.folder.bind({"edit": treatment.fingerprint})
        arms = []
        for control in CONTROLS:
            if control.unfit_for(treatment):
                continue
            stage = f"control {control.name}"
            path = self.folder.path / "controls" / f"{control.name}.safetensors"
            placebo = control.make(self, treatment, path)
            with placebo.applied(self.loaded.model):
                replies = self._audit(f"controls/{control.name}.jsonl", stage, system=control.system)
            arms.append(Arm(control.name, control.description, tuple(replies)))
        return arms

    @staticmethod
    def all_arms(after: Sequence[Reply], controls: Sequence[Arm]) -> list[Arm]:
        """The edit and its controls as arms, for a table that has them side by side."""
        return [Arm("edit", "the edit itself", tuple(after)), *controls]

    def _utility(
        self, before: Sequence[Reply], after: Sequence[Reply] | None, treatment: Treatment | None
    ) -> UtilityFigures:
        settings = self.config.utility
        # Tasks are not among these: each is kept under its name, so that one can be added later.
        self.folder.bind(
            {
                f"utility setting {name}": str(getattr(settings, name))
                for name in ("limit", "chat_template", "kl_tokens")
            }
        )

        def measured(side: str, treatment: Treatment | None) -> Utility:
            path = self.folder.path / "utility" / f"{side}.json"
            with self.folder.timed(f"utility {side}"), memory_errors():
                return measure_utility(
                    self.loaded, settings, self.prompts.report, path, treatment=treatment, progress=self.progress
                )

        base = measured("before", None)
        edited = None if treatment is None else measured("after", treatment)
        return utility_figures(base, edited, before, after, self.loaded.tokenizer)

    def _engine(self, system: str | None) -> TransformersEngine:
        return audit_engine(self.loaded, self.config.audit, system=system)

    def _fit(self, settings: EditSettings, path: Path, stage: str) -> Edit:
        if path.is_file():
            return Edit.load(path)
        with self.folder.timed(stage), memory_errors():
            edit = fit_edit(
                self.loaded,
                self.prompts,
                settings,
                features=self.folder.path / "features",
                audit=self.config.audit,
                judge=self.judge,
                progress=self.progress,
            )
        edit.save(path)
        return edit


@contextlib.contextmanager
def open_run(config: RunConfig, out: Path, progress: Progress = silent) -> Iterator[Run]:
    """Loads prompts and model, and creates or resumes the run folder for the duration of a `with` block.

    Nothing is written before everything is loaded, so a wrong setting leaves nothing behind.

    Raises:
        ConfigError: the model is behind a server.
        DataError, UnsupportedModel, UserError: prompts or model cannot be loaded.
        FingerprintMismatch: the folder was made with another model, prompts or settings.
    """
    refuse_served(config)
    prompts = resolve_prompts(config)
    known = audit_fingerprint(config, prompts)
    RunFolder.check(out, known)
    check_tasks(config.utility)
    loaded = load_model(config.model, precision=config.precision, device=config.device)
    with RunFolder.open(out, {**known, "model weights": loaded.fingerprint, "precision": loaded.precision}) as folder:
        write_text(out / "config.toml", dump_config(config))
        yield Run(config, prompts, loaded, folder, progress)


def open_audit(
    config: RunConfig, out: Path, progress: Progress = silent
) -> contextlib.AbstractContextManager[AuditRun]:
    """`open_run`, or `open_served` where the model is behind a server."""
    if config.endpoint.url:
        return open_served(config, out, progress)
    return open_run(config, out, progress)


def audit_model(config: RunConfig, out: Path, progress: Progress = silent, *, show_text: bool = False) -> Result:
    """Audits a model, in this process or behind a server, and writes the report."""
    with open_audit(config, out, progress) as run:
        return run.finish(run.before(), show_text=show_text)


def verify_treatment(
    config: RunConfig,
    treatment: Treatment,
    out: Path,
    progress: Progress = silent,
    *,
    gates: Sequence[Gate] = (),
    show_text: bool = False,
) -> Result:
    """Audits a model without and with a treatment, and compares. It must be the one the folder was made with."""
    with open_run(config, out, progress) as run:
        # A treatment of another model must not cost an audit first.
        with treatment.applied(run.loaded.model):
            run.folder.bind({"edit": treatment.fingerprint})
        return run.finish(run.before(), run.after(treatment), treatment, gates=gates, show_text=show_text)


def run_all(
    config: RunConfig,
    out: Path,
    progress: Progress = silent,
    *,
    controls: bool = False,
    gates: Sequence[Gate] = (),
    show_text: bool = False,
) -> Result:
    """Audit, edit, audit again, controls if asked for, verdict, report."""
    with open_run(config, out, progress) as run:
        before = run.before()
        edit = run.fit()
        after = run.after(edit)
        arms = run.controls(edit) if controls else []
        return run.finish(before, after, edit, arms=arms, gates=gates, show_text=show_text)


def run_controls(config: RunConfig, out: Path, progress: Progress = silent) -> list[Arm]:
    """Fits and audits the controls of a run; audit and edit are taken from its folder where they are done."""
    with open_run(config, out, progress) as run:
        return run.controls(run.fit())


def audit_engine(loaded: LoadedModel, settings: AuditSettings, *, system: str | None = None) -> TransformersEngine:
    """What answers an audit's prompts; `system` takes the place of the settings' system line."""
    if streamed_weights(loaded.model) is not None:
        return StreamedEngine(
            loaded.model,
            loaded.tokenizer,
            max_new_tokens=settings.max_new_tokens,
            system=system or settings.system,
        )
    return TransformersEngine(
        loaded.model,
        loaded.tokenizer,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        system=system or settings.system,
    )


def fit_edit(
    loaded: LoadedModel,
    prompts: RunPrompts,
    settings: EditSettings,
    *,
    features: Path,
    audit: AuditSettings | None = None,
    judge: Judge | None = None,
    progress: Progress = silent,
) -> Edit:
    """Fits an edit on the fit split.

    Args:
        loaded: the base model; left as it was found.
        prompts: their fit split is used.
        settings: the method's parameters.
        features: folder of collected features; a killed fit resumes from it.
        audit: how replies are generated where the model's own are needed, or where layers are chosen by measurement.
        judge: judges the replies that choose layers.
        progress: called as work goes on.

    Raises:
        DataError: layers are to be chosen on the select split, and it is empty.
    """
    refuse_edited(loaded.model)
    audit = audit or AuditSettings()
    judge = judge or OfflineJudge()
    if settings.layers == "select":
        layers, trials = _search(loaded, prompts, settings, features, audit, judge, progress)
        found = settings.model_copy(update={"layers": layers})
        edit = fit_edit(loaded, prompts, found, features=features, audit=audit, judge=judge, progress=progress)
        return replace(edit, manifest={**edit.manifest, "layer_trials": trials})
    anchors = prompts.anchors()
    replies = own_replies(
        loaded, anchors, settings.positions.reply_tokens, features, batch_size=audit.batch_size, progress=progress
    )
    taught = {}
    if settings.teacher == "own-language":
        taught = refusal_lessons(loaded, anchors, audit, judge, features, progress)
    return settings.method().fit(
        loaded.model,
        loaded.tokenizer,
        anchors,
        cache=features,
        fingerprint=loaded.fingerprint,
        replies=replies,
        lessons=taught,
        progress=progress,
    )


def own_replies(
    loaded: LoadedModel,
    anchors: Anchors,
    reply_tokens: int,
    folder: Path,
    *,
    batch_size: int | Literal["auto"] = AuditSettings().batch_size,
    progress: Progress = silent,
) -> dict[tuple[str, str, str], str]:
    """Beginnings of the model's own replies to the reference's harmful prompts and to the keep set, by prompt key.

    Args:
        loaded: the base model.
        anchors: what an edit is fitted on.
        reply_tokens: `Positions.reply_tokens`; nothing is generated for 0.
        folder: where they are kept; a killed call goes on from there.
        batch_size: as of `TransformersEngine`.
        progress: called as work goes on.
    """
    if not reply_tokens:
        return {}
    asked = _own_share(list(dict.fromkeys((*anchors.reference_harmful, *anchors.keep))))
    # A token more than is read: some tokens merge when a reply is encoded again.
    limits = AuditSettings(max_new_tokens=reply_tokens + 1, batch_size=batch_size)
    replies = fit_replies(loaded, asked, limits, OfflineJudge(), folder, progress, "own replies")
    return united({reply.key: reply.text for reply in replies})


def refusal_lessons(
    loaded: LoadedModel,
    anchors: Anchors,
    audit: AuditSettings,
    judge: Judge,
    folder: Path,
    progress: Progress = silent,
) -> dict[tuple[str, str, str], Lesson]:
    """The anchors' prompts that the model refuses in their language when it is told to, by key."""
    asked = _own_share(instructed(low for _, low in anchors.pairs))
    return united(lessons(asked, fit_replies(loaded, asked, audit, judge, folder, progress, "lessons")))


def _own_share(prompts: Sequence[Prompt]) -> PromptSet:
    """Those that this rank asks."""
    return PromptSet(prompts[index] for index in share(prompts, lambda prompt: len(prompt.text)))


def fit_replies(
    loaded: LoadedModel,
    prompts: PromptSet,
    limits: AuditSettings,
    judge: Judge,
    folder: Path,
    progress: Progress,
    stage: str,
) -> list[Reply]:
    """The base model's judged replies to prompts that something is fitted on, kept in `folder`: a killed call goes on
    from there. Without a system line, as features have none either; of `limits` only the numbers count."""
    engine = audit_engine(loaded, limits.model_copy(update={"system": None}))
    name = content_hash([loaded.fingerprint, prompts_hash(prompts), limits.max_new_tokens, judge.name])
    store = ReplyStore(folder / f"replies-{name}.jsonl")
    return run_audit(engine, judge, prompts, store, progress=progress, stage=stage)


def select_replies(
    loaded: LoadedModel,
    edit: Edit,
    prompts: RunPrompts,
    audit: AuditSettings,
    judge: Judge,
    folder: Path,
    progress: Progress,
    stage: str,
) -> list[Reply]:
    """The edited model's judged replies to the select split, kept in `folder`: a killed call goes on from there."""
    asked = prompts.select
    limits = [audit.max_new_tokens, audit.system, judge.name]
    name = content_hash([loaded.fingerprint, edit.fingerprint, prompts_hash(asked), *limits])
    store = ReplyStore(folder / f"select-{name}.jsonl")
    with edit.applied(loaded.model):
        return run_audit(audit_engine(loaded, audit), judge, asked, store, progress=progress, stage=stage)


def _search(
    loaded: LoadedModel,
    prompts: RunPrompts,
    settings: EditSettings,
    features: Path,
    audit: AuditSettings,
    judge: Judge,
    progress: Progress,
) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """The window of blocks that does best on the select split, and all that were tried; resumes like an audit."""
    if not any(prompt.kind == "harmful" for prompt in prompts.select):
        raise DataError(
            'layers = "select" needs harmful prompts in the select split; mark some in the split column, '
            'or give layers = "auto"'
        )

    def replies(edit: Edit, stage: str) -> list[Reply]:
        return select_replies(loaded, edit, prompts, audit, judge, features, progress, stage)

    before = replies(Edit({}, {}), "choosing layers: no edit")

    def trial(window: tuple[int, ...]) -> Trial:
        tried = settings.model_copy(update={"layers": window})
        edit = fit_edit(loaded, prompts, tried, features=features, audit=audit, judge=judge, progress=progress)
        after = replies(edit, f"choosing layers: {window[0]} to {window[-1]}")
        return measured(window, before, after, prompts.reference)

    return search_layers(candidate_windows(settings.layer_count, len(locate_mlps(loaded.model))), trial)


@dataclass(frozen=True)
class Control:
    """A treatment that the run's own is compared with.

    Attributes:
        name: short, file name and table row.
        description: one sentence for the report.
        make: the control's edit, from the run, the run's own treatment and the path to keep it at.
        made_from: what `make` needs: any treatment, an edit of weights, or an edit by Sparse Weight Editing.
        system: system line for every prompt; the run's own when None.
    """

    name: str
    description: str
    make: Callable[[Run, Any, Path], Edit]
    made_from: Literal["anything", "edit", "sparse-edit"] = "anything"
    system: str | None = None

    def unfit_for(self, treatment: Treatment) -> str | None:
        """Why a treatment has no such control; None where it has."""
        if self.made_from != "anything" and not isinstance(treatment, Edit):
            return "a steering changes no weights"
        if self.made_from == "sparse-edit" and treatment.manifest.get("method") != METHOD:
            return f"variants of {METHOD}, which did not make this edit"
        return None


def controls_left_out(treatment: Treatment) -> str | None:
    """One line on the controls that a treatment does not have, and why; None where it has all."""
    reasons: dict[str, list[str]] = {}
    for control in CONTROLS:
        if reason := control.unfit_for(treatment):
            reasons.setdefault(reason, []).append(control.name)
    return "; ".join(f"no {', '.join(names)}: {reason}" for reason, names in reasons.items()) or None


def _variant(**changes: object) -> Callable[[Run, Edit, Path], Edit]:
    """The run's own method with some parameters changed, in the layers of the run's edit."""

    def make(run: Run, edit: Edit, path: Path) -> Edit:
        settings = run.config.edit
        fraction = settings.fraction or CONTROL_FRACTION
        same = {"layers": tuple(edit.manifest["layers"]), "fraction": fraction, "seed": run.config.seed}
        return run._fit(settings.model_copy(update={**same, **changes}), path, f"control {path.stem}")

    return make


def _sham(run: Run, edit: Edit, path: Path) -> Edit:
    if not path.is_file():
        sham_edit(edit, run.config.seed).save(path)
    return Edit.load(path)


def _no_edit(_run: Run, _treatment: Treatment, _path: Path) -> Edit:
    return Edit({}, {})


CONTROLS: tuple[Control, ...] = (
    Control(
        "random-neurons",
        "the same edit on randomly chosen neurons",
        _variant(selection="random"),
        made_from="sparse-edit",
    ),
    Control(
        "selected-neurons",
        "the same edit on as many neurons with the largest Cohen's d",
        _variant(selection="paper"),
        made_from="sparse-edit",
    ),
    Control("sham", "a random edit of the same tensors, rank and norm", _sham, made_from="edit"),
    Control(
        "paper-family",
        "Sparse Weight Editing as published: rows of gate and up of its safety neurons, rank 32, each matrix on "
        "its own, both terms of equal weight",
        _variant(**PUBLISHED),
        made_from="sparse-edit",
    ),
    Control(
        "safe-prompt",
        "no edit but SafePrompt, the system line of XSafety that asks the model to think in English (arXiv 2310.00905)",
        _no_edit,
        system=THINK_IN_ENGLISH,
    ),
)


def _fit_fingerprint(config: RunConfig, prompts: RunPrompts) -> dict[str, str]:
    settings = config.edit.model_dump(mode="json")
    return {
        **{f"edit setting {name}": str(value) for name, value in settings.items()},
        **({"select prompts": prompts_hash(prompts.select)} if config.edit.layers == "select" else {}),
        "reference language": prompts.reference,
        "anchor languages": ", ".join(prompts.anchor_languages),
        "keep languages": ", ".join(prompts.keep_languages or ()) or "as the anchors",
        "languages per seed": str(prompts.languages_per_seed or "all"),
        "fit prompts": prompts_hash(prompts.fit),
        "seed": str(config.seed),
    }
