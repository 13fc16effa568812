"""The methods and controls of lingualign behind the comparison's interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lingualign.config import EditSettings, build_config
from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.methods.controls import sham_edit
from lingualign.methods.safe_prompt import SAFE_PROMPTS
from lingualign.pipeline import fit_edit
from lingualign.plan import Plan
from method_comparison.imports import imported, keywords, made
from method_comparison.treatment import Context, Method, Treatment

_POSITIONS = "lingualign.features.positions:Positions"


class NoEdit(Method):
    """The unedited model."""

    def fit(self, context: Context) -> Treatment:
        del context
        return Treatment(Edit({}, {}, {"method": "no-edit"}))

    def estimate(self, plan: Plan) -> float:
        del plan
        return 0.0


class SafePrompt(Method):
    """A system line instead of an edit.

    Args:
        line: its name in `lingualign.methods.safe_prompt.SAFE_PROMPTS`.
    """

    def __init__(self, line: str = "safe-prompt") -> None:
        if line not in SAFE_PROMPTS:
            raise ConfigError(f"there is no system line {line!r}; choose among {', '.join(SAFE_PROMPTS)}")
        self.line = line

    def fit(self, context: Context) -> Treatment:
        del context
        return Treatment(Edit({}, {}, {"method": self.line}), SAFE_PROMPTS[self.line])

    def estimate(self, plan: Plan) -> float:
        del plan
        return 0.0


class SparseEdit(Method):
    """Sparse Weight Editing. A method that has a base edits the blocks that its base edited.

    Args:
        parameters: settings that differ from the model file's `[run.edit]`, by the names of `EditSettings`.
    """

    def __init__(self, **parameters: Any) -> None:
        build_config({"model": "any", "edit": parameters}, "parameters")
        self.parameters = parameters

    def settings(self, context: Context) -> EditSettings:
        """The model file's, then the base's blocks, then the parameters."""
        layers = {"layers": context.base_layers} if context.base else {}
        given = {**context.config.edit.model_dump(), "seed": context.seed, **layers, **self.parameters}
        return EditSettings.model_validate(given)

    def fit(self, context: Context) -> Treatment:
        return Treatment(
            fit_edit(
                context.loaded,
                context.prompts,
                self.settings(context),
                features=context.folder,
                audit=context.config.audit,
                judge=context.judge,
                progress=context.progress,
            )
        )

    def estimate(self, plan: Plan) -> float:
        return plan.seconds["edit"] + plan.seconds.get("choosing layers", 0.0)


class SparseEditOfFewSeeds(SparseEdit):
    """Sparse Weight Editing on a part of the fit split, to see how little is enough.

    Args:
        every: which seeds of each kind: every second, fourth, ...
        languages_per_seed: in how many languages each is.
        parameters: as for `SparseEdit`.
    """

    def __init__(self, every: int, languages_per_seed: int, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.every = every
        self.languages_per_seed = languages_per_seed

    def fit(self, context: Context) -> Treatment:
        fewer = context.prompts.fit.every(self.every)
        prompts = replace(context.prompts, fit=fewer, languages_per_seed=self.languages_per_seed)
        return super().fit(replace(context, prompts=prompts))

    def estimate(self, plan: Plan) -> float:
        return super().estimate(plan) / self.every


class Anchored(Method):
    """Any method of the package that is fitted on anchors: `fit(model, tokenizer, anchors, *, ...)`.

    Args:
        method: import path of its class, `MODULE:CLASS`.
        parameters: keyword arguments of that class; `positions` as a table. Where it takes them and they are not given,
            `seed` is the run's, and `layers` are the blocks of the base's edit, or those that the model's file names.
    """

    def __init__(self, method: str, **parameters: Any) -> None:
        self.method = method
        self.parameters = parameters
        if "positions" in parameters:
            self.parameters["positions"] = made(_POSITIONS, parameters["positions"])
        made(method, self.parameters)

    def fit(self, context: Context) -> Treatment:
        blocks = context.base_layers if context.base else context.config.edit.layers
        offered = {"seed": context.seed, **({} if isinstance(blocks, str) else {"layers": blocks})}
        taken = keywords(imported(self.method))
        parameters = {**{name: value for name, value in offered.items() if name in taken}, **self.parameters}
        method = made(self.method, parameters)
        more = {"cache": context.folder, "fingerprint": context.loaded.fingerprint, "progress": context.progress}
        if "replies" in keywords(method.fit):
            more["replies"] = context.own_replies(method.positions.reply_tokens)
        more = {name: value for name, value in more.items() if name in keywords(method.fit)}
        return Treatment(method.fit(context.model, context.tokenizer, context.anchors, **more))


class Sham(Method):
    """A random edit with the tensors, rank and norms of its base's."""

    def fit(self, context: Context) -> Treatment:
        if context.base is None:
            raise ConfigError("a sham edit is made from another method's; name that as `base` in its file")
        return Treatment(sham_edit(context.base, context.seed))

    def estimate(self, plan: Plan) -> float:
        del plan
        return 0.0
