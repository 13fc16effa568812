"""What a method is given, and what it gives back. Every method is fitted through `Method.fit(context)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lingualign import treatments
from lingualign.config import RunConfig
from lingualign.data.schema import PromptSet
from lingualign.edit import Edit
from lingualign.errors import ConfigError
from lingualign.evaluate.judge import Judge
from lingualign.evaluate.schema import Reply
from lingualign.events import Progress, silent
from lingualign.methods.anchors import Anchors
from lingualign.models.load import LoadedModel
from lingualign.pipeline import fit_replies, own_replies
from lingualign.plan import Plan
from lingualign.prompts import RunPrompts


@dataclass(frozen=True)
class Treatment:
    """What is audited beside the unedited model.

    Attributes:
        change: what is done to the model: an `Edit` or a `Steering`.
        system: system line before every prompt; None for the model file's own.
    """

    change: treatments.Treatment
    system: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves every reply as it is."""
        return self.system is None and isinstance(self.change, Edit) and not self.change.deltas


@dataclass(frozen=True)
class Context:
    """All that a method may use. The report split is not in it.

    Attributes:
        config: the model file's settings, the edit's among them.
        loaded: the base model with its tokenizer; to be left as it was found, bit for bit.
        prompts: the fit split, the select split for a method that chooses settings by itself, and the languages.
        judge: the one of the audits; here for replies that choose layers (`layers = "select"`) or that a method learns
            from.
        seed: of everything random.
        folder: for files that the fit needs, such as features; deleted after it.
        base: the edit of the method that this one is made from, where its file names one.
        progress: called with (stage, done, total).
    """

    config: RunConfig
    loaded: LoadedModel
    prompts: RunPrompts
    judge: Judge
    seed: int
    folder: Path
    base: Edit | None = None
    progress: Progress = silent

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    @property
    def base_layers(self) -> tuple[int, ...] | None:
        """The blocks that the base's edit changes; None without a base.

        Raises:
            ConfigError: the base's method edits no chosen blocks.
        """
        if self.base is None:
            return None
        if "layers" not in self.base.manifest:
            method = self.base.manifest.get("method", "an unnamed method")
            raise ConfigError(f"an edit by {method} names no blocks to edit instead; give `layers` and no `base`")
        return tuple(self.base.manifest["layers"])

    @cached_property
    def anchors(self) -> Anchors:
        """Pairs of harmful prompts, and the keep set."""
        return self.prompts.anchors()

    def own_replies(self, tokens: int) -> dict[tuple[str, str, str], str]:
        """The model's own replies to the reference's harmful prompts and to the keep set, by prompt key, cut after
        `tokens`. Generated here, so that they count as the method's cost."""
        return own_replies(
            self.loaded,
            self.anchors,
            tokens,
            self.folder,
            batch_size=self.config.audit.batch_size,
            progress=self.progress,
        )

    def judged_replies(self, prompts: PromptSet, max_new_tokens: int) -> list[Reply]:
        """The model's own replies to prompts of the fit split with the judge's verdicts, for methods that learn from
        them: refusals as examples, answers as counterexamples. Generated here, so that they count as the method's
        cost."""
        limits = self.config.audit.model_copy(update={"max_new_tokens": max_new_tokens})
        return fit_replies(self.loaded, prompts, limits, self.judge, self.folder, self.progress, stage="judged replies")


class Method(ABC):
    """A method as the comparison calls it; a file in `methods/` names its class and parameters.

    Parameters are keyword arguments of the constructor, which checks them and does nothing else.

    Attributes:
        adds_to_base: whether the treatment holds its base's edit, so that its cost is that of both fits.
    """

    adds_to_base: ClassVar[bool] = False

    @abstractmethod
    def fit(self, context: Context) -> Treatment:
        """Makes the treatment. Deterministic for a seed."""

    def estimate(self, plan: Plan) -> float | None:
        """Seconds the fit will take, or None where that is known only from an earlier run."""
        del plan
        return None
