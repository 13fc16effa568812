"""Rivals that need more than anchors: examples of refusals, or a second checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from lingualign.data.schema import Kind, PromptSet
from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.methods.safety_neuron_tuning import SafetyNeuronTuning
from lingualign.methods.soteria import HarmVector, Soteria, weights_of
from lingualign.models.load import SMALL_MODEL, load_model
from lingualign.organism.base import load_base
from lingualign.organism.build import cache_folder
from method_comparison.imports import made
from method_comparison.treatment import Context, Method, Treatment

_TUNING = "lingualign.methods.safety_neuron_tuning:SafetyNeuronTuning"
_SOTERIA = "lingualign.methods.soteria:Soteria"
#: Which checkpoint each chat model came from.
PRETRAINED: Final = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M",
    "Qwen/Qwen2.5-0.5B-Instruct": "Qwen/Qwen2.5-0.5B",
    "meta-llama/Llama-3.2-1B-Instruct": "meta-llama/Llama-3.2-1B",
}


class SafetyNeurons(Method):
    """SN-Tune, RSN-Tune or shared safety neurons. They learn to give the model's own refusal of the reference's prompt
    to the same prompt in every language of the anchors, the reference included.

    Args:
        find_seeds: seeds of each kind that the neurons are found on, in every one of these languages.
        train_seeds: harmful seeds to train on; by default all.
        parameters: those of `SafetyNeuronTuning`; the seed is the run's.
    """

    def __init__(self, *, find_seeds: int = 50, train_seeds: int | None = None, **parameters: Any) -> None:
        self.find_seeds = find_seeds
        self.train_seeds = train_seeds
        self.parameters = parameters
        made(_TUNING, parameters)

    def fit(self, context: Context) -> Treatment:
        prompts = _of_anchors(context)
        method = SafetyNeuronTuning(**{"seed": context.seed, **self.parameters})
        edit = method.fit(
            context.model,
            context.tokenizer,
            refusal_examples(context, prompts.limited(self.train_seeds)),
            _texts(prompts.limited(self.find_seeds), "harmful"),
            _texts(prompts.limited(self.find_seeds), "harmless"),
            reference=context.anchors.reference,
            fingerprint=context.loaded.fingerprint,
            progress=context.progress,
        )
        return Treatment(edit)


class SoteriaProxy(Method):
    """Soteria with the harmless proxy for its harm vector: pretrained minus chat weights.

    Args:
        pretrained: hub id, or folder, of each chat model's pretrained checkpoint. The small model has its own.
        parameters: those of `Soteria`; the languages are the anchors', the seed the run's. With a base, its heads'
            effects are taken from there.
    """

    def __init__(self, *, pretrained: Mapping[str, str] = PRETRAINED, **parameters: Any) -> None:
        self.pretrained = pretrained
        self.parameters = parameters
        made(_SOTERIA, {"languages": ["any"], **parameters})

    def fit(self, context: Context) -> Treatment:
        method = Soteria(**{"languages": context.anchors.languages, "seed": context.seed, **self.parameters})
        vector = HarmVector(weights_of(self._pretrained(context)), proxy=True)
        effects = _effects(context.base) if context.base else None
        return Treatment(
            method.fit(context.model, context.tokenizer, vector, effects=effects, progress=context.progress)
        )

    def _pretrained(self, context: Context) -> Any:
        chat = context.config.model
        if chat == SMALL_MODEL:
            return load_base(cache_folder() / "gemma-3-270m")[0]
        if chat not in self.pretrained:
            raise ConfigError(f"Soteria's proxy needs the checkpoint that {chat} came from; add it to `pretrained`")
        return load_model(self.pretrained[chat], precision="float32", device="cpu", chat=False).model


def refusal_examples(context: Context, prompts: PromptSet) -> list[tuple[str, str]]:
    """Harmful prompts in all their languages, each with the model's own refusal of the reference's.

    Raises:
        DataError: the model refuses none of the reference's prompts.
    """
    harmful = prompts.where(kinds=["harmful"])
    asked = harmful.where(languages=[context.anchors.reference])
    replies = context.judged_replies(asked, context.config.audit.max_new_tokens)
    refusals = {reply.seed_id: reply.text for reply in replies if reply.outcome == "refused"}
    examples = [(prompt.text, refusals[prompt.seed_id]) for prompt in harmful if prompt.seed_id in refusals]
    if not examples:
        raise DataError(
            f"the model refuses none of {len(asked)} harmful prompts in {context.anchors.reference}, so there is "
            "nothing to learn from; audit it first"
        )
    return examples


def _effects(edit: Edit) -> dict[str, Tensor]:
    """What an earlier fit of Soteria found out about the heads, by language."""
    known = edit.manifest["indirect_effects"].items()
    return {language: torch.tensor(values, dtype=torch.float64) for language, values in known}


def _of_anchors(context: Context) -> PromptSet:
    """The fit split in the reference language, which comes first, and the anchors'."""
    languages = (context.anchors.reference, *context.anchors.languages)
    return PromptSet(prompt for language in languages for prompt in context.prompts.fit.where(languages=[language]))


def _texts(prompts: PromptSet, kind: Kind) -> dict[str, list[str]]:
    """Texts of one kind by language."""
    return {
        language: [prompt.text for prompt in prompts.where(kinds=[kind], languages=[language])]
        for language in prompts.languages
    }
