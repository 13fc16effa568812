"""SN-Tune, RSN-Tune and shared safety neurons: refusals trained into the neurons that carry safety, and no others.

- `SN` (Zhao et al., SN-Tune, ICLR 2025): neurons that are among the strongest of every harmful prompt.
- `RSN` (the same): minus those found in the same way on foundation text.
- `SS` (Who Transfers Safety?, arXiv 2602.01283): the strongest 3% on harmful prompts of a language minus its strongest
  3% on harmless ones; of the reference language's neurons those that another language has too.

Both score a neuron by what its removal changes (`neuron_scores/removal.py`), then train on prompts with refusals.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, DataError
from lingualign.events import Progress, silent
from lingualign.methods.neuron_scores.base import top
from lingualign.methods.neuron_scores.plnd import worst_rank
from lingualign.methods.neuron_scores.random_neurons import random_neurons
from lingualign.methods.neuron_scores.removal import removal_importance
from lingualign.methods.slice_tuning import TuningSettings, tune_slices
from lingualign.models.chat import encode_chats
from lingualign.models.projections import ATTENTION, Projection, Role, locate_projections

Variant = Literal["SN", "RSN", "SS"]
CITATIONS: Final[dict[Variant, str]] = {
    "SN": "Zhao et al., SN-Tune, ICLR 2025; detector arXiv 2402.18815",
    "RSN": "Zhao et al., RSN-Tune, ICLR 2025; detector arXiv 2402.18815",
    "SS": "Who Transfers Safety?, arXiv 2602.01283",
}
#: Matrices whose neurons are trained, as published.
TRAINED: Final[dict[Variant, tuple[Role, ...]]] = {
    "SN": ("query", "key", "value", "up", "down"),
    "RSN": ("query", "key", "value", "up", "down"),
    "SS": ("query", "key", "value", "output", "gate", "up", "down"),
}
#: What differs from the publications, for the manifest; in full in docs/methods/safety-neuron-tuning.md.
FAITHFULNESS: Final = (
    "the paper's layer-wise score, not the released code's",
    "prompts in the model's chat template, foundation text included",
    "slices trained in float32 beside frozen weights instead of masked gradients",
    "AdamW with a constant learning rate; loss on the reply only",
)
Texts = Mapping[str, Sequence[str]]


class SafetyNeuronTuning:
    """Masked tuning of safety neurons; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        variant: `SN`, `RSN` or `SS`.
        roles: matrices whose neurons are trained; those of the publication when None.
        layers: blocks; all when None.
        top_number_attn, top_number_ffn: SN and RSN, strongest neurons of a matrix per prompt, before the intersection.
        max_neurons: SN and RSN, neurons per matrix at most; the ones with the best worst rank stay.
        top_fraction: SS, share of a matrix's neurons taken on harmful, and on harmless prompts.
        random_control: train as many neurons of each matrix drawn at random instead: the control of ACTR
            (arXiv 2609.37054).
        learning_rate, epochs, batch_size, gradient_accumulation: of the tuning.
        seed: of the examples' order, and of random neurons.
    """

    def __init__(
        self,
        *,
        variant: Variant = "RSN",
        roles: tuple[Role, ...] | None = None,
        layers: Sequence[int] | None = None,
        top_number_attn: int = 1000,
        top_number_ffn: int = 2000,
        max_neurons: int = 100,
        top_fraction: float = 0.03,
        random_control: bool = False,
        learning_rate: float = 2e-6,
        epochs: int = 1,
        batch_size: int = 8,
        gradient_accumulation: int = 4,
        seed: int = 0,
    ) -> None:
        self.variant = variant
        self.roles = roles or TRAINED[variant]
        self.layers = layers
        self.top_number_attn = top_number_attn
        self.top_number_ffn = top_number_ffn
        self.max_neurons = max_neurons
        self.top_fraction = top_fraction
        self.random_control = random_control
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.gradient_accumulation = gradient_accumulation
        self.seed = seed

    def settings(self) -> dict[str, Any]:
        """All parameters as plain values."""
        return {**vars(self), "roles": list(self.roles), "layers": None if self.layers is None else list(self.layers)}

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        examples: Sequence[tuple[str, str]],
        harmful: Texts,
        harmless: Texts,
        *,
        reference: str = "en",
        fingerprint: str = "",
        progress: Progress = silent,
    ) -> Edit:
        """Finds the neurons and trains them. The model is left as it was found.

        Args:
            model, tokenizer: the base model, in evaluation mode.
            examples: (prompt, refusal) pairs to train on.
            harmful: by language, harmful prompts that neurons are found on.
            harmless: by language, foundation text (RSN) or harmless prompts (SS); not used by SN.
            reference: the language whose neurons SS trains.
            fingerprint: identifies the model's weights in the manifest.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: a setting does not fit the model, or leaves no neuron.
            DataError: a group of texts that the variant needs is missing or empty.
            NumericalError, UnsupportedModel: as raised by the parts.
        """
        started = time.monotonic()
        if not examples:
            raise DataError("there is no example to train on; give (prompt, refusal) pairs")
        if any(not reply.strip() for _, reply in examples):
            raise DataError("an example has an empty refusal; fill it in or remove it")
        neurons = self.find(model, tokenizer, harmful, harmless, reference=reference, progress=progress)
        found = time.monotonic()
        chats = encode_chats(
            tokenizer, [prompt for prompt, _ in examples], replies=[reply.strip() for _, reply in examples]
        )
        settings = TuningSettings(
            self.learning_rate, self.epochs, self.batch_size, self.gradient_accumulation, self.seed
        )
        deltas, losses = tune_slices(
            model,
            chats,
            neurons,
            settings,
            pad_id=tokenizer.pad_token_id or 0,
            on_step=lambda done, total: progress("tuning", done, total),
        )
        weights = {name: model.get_parameter(name).detach() for name in deltas}
        manifest = {
            "method": "safety-neuron-tuning",
            "citation": CITATIONS[self.variant],
            "lingualign": __version__,
            "settings": self.settings(),
            "faithfulness": list(FAITHFULNESS),
            "reference": reference,
            "languages": list(harmful),
            "examples": len(examples),
            "layers": sorted({projection.layer for projection in neurons}),
            "model_fingerprint": fingerprint,
            "tuned_share": sum(delta.out_factor.shape[0] * delta.in_factor.shape[0] for delta in deltas.values())
            / sum(parameter.numel() for parameter in model.parameters()),
            "losses": losses,
            "diagnostics": [_diagnose(projection, deltas[projection.parameter], weights) for projection in neurons],
            "seconds": {"find": round(found - started, 2), "total": round(time.monotonic() - started, 2)},
        }
        return Edit(deltas, {name: tensor_fingerprint(weight) for name, weight in weights.items()}, manifest)

    def find(
        self,
        model: Any,
        tokenizer: Any,
        harmful: Texts,
        harmless: Texts,
        *,
        reference: str = "en",
        progress: Progress = silent,
    ) -> dict[Projection, Tensor]:
        """The neurons that are trained, ascending indices by matrix; matrices without any are left out.

        Raises:
            ConfigError, DataError, UnsupportedModel: as `fit`.
        """
        projections = self._projections(model)

        def importance(texts: Sequence[str], what: str) -> dict[Projection, Tensor]:
            if not texts:
                raise DataError(f"{self.variant} needs {what}; give at least one text")
            chats = encode_chats(tokenizer, texts)
            return removal_importance(model, chats, projections, lambda done: progress(what, done, len(chats)))

        if self.variant == "SS":
            chosen = self._shared(harmful, harmless, reference, importance)
        else:
            every = importance([text for texts in harmful.values() for text in texts], "harmful prompts")
            foundation = (
                importance([text for texts in harmless.values() for text in texts], "foundation text")
                if self.variant == "RSN"
                else {}
            )
            chosen = {p: self._consistent(p, every[p], foundation.get(p)) for p in projections}
        if self.random_control:
            chosen = {
                p: random_neurons(len(indices), _neuron_count(model, p), self._seed_of(p))
                for p, indices in chosen.items()
            }
        chosen = {projection: indices for projection, indices in chosen.items() if len(indices)}
        if not chosen:
            raise ConfigError(
                f"{self.variant} leaves no neuron to tune; "
                + (
                    "give a larger top_fraction"
                    if self.variant == "SS"
                    else "change top_number_attn and top_number_ffn: larger for SN, below the layer's width for RSN"
                )
            )
        return chosen

    def _seed_of(self, projection: Projection) -> int:
        """One for the MLP of a block, whose matrices share their neurons, and one for each matrix of its attention."""
        kinds = [*ATTENTION, "mlp"]
        kind = projection.role if projection.role in ATTENTION else "mlp"
        return self.seed + len(kinds) * projection.layer + kinds.index(kind)

    def _projections(self, model: Any) -> list[Projection]:
        located = locate_projections(model, self.roles)
        if self.layers is None:
            return located
        blocks = {projection.layer for projection in located}
        if not self.layers or set(self.layers) - blocks:
            raise ConfigError(
                f"layers {list(self.layers)} are not blocks of this model; it has blocks 0 to {max(blocks)}"
            )
        return [projection for projection in located if projection.layer in self.layers]

    def _consistent(self, projection: Projection, harmful: Tensor, foundation: Tensor | None) -> Tensor:
        """Among the strongest of every harmful prompt, but not of every foundation text."""
        number = self.top_number_attn if projection.role in ATTENTION else self.top_number_ffn
        ranks = worst_rank(harmful)
        kept = ranks <= number
        if foundation is not None:
            kept &= worst_rank(foundation) > number
        indices = kept.nonzero().flatten()
        best = ranks[indices].argsort(stable=True)[: self.max_neurons]
        return indices[best].sort().values

    def _shared(self, harmful: Texts, harmless: Texts, reference: str, importance: Any) -> dict[Projection, Tensor]:
        """The reference's safety neurons, those that another language has too where there are others."""
        if reference not in harmful:
            raise DataError(f"SS needs harmful prompts in {reference}; add them or name another reference")
        own: dict[Projection, Tensor] = {}
        others: dict[Projection, set[int]] = {}
        for language in (reference, *(tag for tag in harmful if tag != reference)):
            strong = importance(harmful[language], f"harmful prompts ({language})")
            usual = importance(harmless.get(language, ()), f"harmless prompts ({language})")
            for projection, values in strong.items():
                count = max(1, round(self.top_fraction * values.shape[1]))
                taken, removed = (top(group.mean(0), count) for group in (values, usual[projection]))
                safety = taken[~torch.isin(taken, removed)]
                if language == reference:
                    own[projection] = safety
                else:
                    others.setdefault(projection, set()).update(safety.tolist())
        if not others:
            return own
        return {
            p: indices[torch.isin(indices, torch.tensor(sorted(others[p]), dtype=torch.long))]
            for p, indices in own.items()
        }


def _neuron_count(model: Any, projection: Projection) -> int:
    """Neurons of a matrix: its rows, or its columns."""
    rows, columns = model.get_parameter(projection.parameter).shape
    return int(rows if projection.axis == "rows" else columns)


def _diagnose(projection: Projection, delta: LowRankDelta, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    weight = weights[projection.parameter].cpu()
    change = delta.dense()
    moved = change != 0
    survives = ((weight.float() + change).to(weight.dtype) != weight) & moved
    return {
        "tensor": projection.parameter,
        "layer": projection.layer,
        "role": projection.role,
        "rank": delta.rank,
        "neurons": delta.rank,
        "relative_change": float(change.norm() / weight.float().norm()),
        # Of the numbers that were changed, how many still differ once the sum is rounded to the model's precision.
        "survives_rounding": float(survives.sum() / moved.sum().clamp_min(1)),
    }
