"""MPO: Multilingual reward gaP Optimization (Zhao et al., ACL 2025, arXiv 2505.16869).

With length-normalised log-probabilities, the reward gap of a preference is

    RG = log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l|

and the trained model's gap in the target language, RG^t, is pulled to the frozen model's gap in the dominant language,
RG^d, while the states of the dominant language stay where they were:

    L1 = E[(β RG^t − RG^d)²]      L2 = E[‖h^d − h^d_ref‖²]      L = L1 + w L2

The gradient of L1 has the factor β RG^t − RG^d, so steps shrink as the gap closes and turn where it overshoots.
RG^d and h^d_ref do not change in training: they are computed once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.events import Progress, silent
from lingualign.methods.preference.adapter import Trainee
from lingualign.methods.preference.encoding import (
    EncodedPreference,
    Representation,
    both,
    encode_preferences,
    reply_log_probs,
    representations,
)
from lingualign.methods.preference.pairs import Preference, PreferencePair, check_pairs
from lingualign.methods.preference.training import Training, train, trained_edit

#: As in the released configuration for Qwen2.5-7B-Instruct; Llama-3.1-8B differs by β = 1.0, Gemma-2-9b by 4e-7.
PUBLISHED: Final = Training(learning_rate=6e-7)
FAITHFULNESS: Final = {
    "equal": [
        "loss: length-normalised gaps, (beta RG^t - RG^d)^2, RG^d of the frozen model",
        "L2 as mean squared difference of the mean state of the last layer, chosen and rejected, weight 1",
        "AdamW, cosine, warm-up 0.1, 2 epochs, cut-off 1024, batch 1, no dropout",
    ],
    "different": [
        "L2 averages over the sequence's own tokens; the released code also averages over padding",
        "full fine-tuning trains linear layers but not embeddings, output head, norms and biases",
        "pairs with RG^d < 0 are dropped; the released code keeps them",
        "float32 master weights without DeepSpeed",
    ],
    "unknown": ["number of GPUs, so the published effective batch size"],
}


def reward_gap(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """RG of each preference, (B,).

    Args:
        log_probs: summed log-probabilities (2B,), chosen first.
        lengths: reply tokens (2B,).
    """
    chosen, rejected = (log_probs / lengths).chunk(2)
    return chosen - rejected


def gap_loss(target_gap: Tensor, reference_gap: Tensor, beta: float) -> Tensor:
    """L1 of each pair, (B,)."""
    return (beta * target_gap - reference_gap).square()


def representation_loss(states: Tensor, reference: Tensor) -> Tensor:
    """L2 of each pair, (B,): squared differences of (2B, H) states, mean over H and over chosen and rejected."""
    chosen, rejected = (states - reference).square().mean(1).chunk(2)
    return (chosen + rejected) / 2


@dataclass(frozen=True)
class Frozen:
    """What the frozen model gives for one reference preference: RG^d, and the states (2, H) of chosen and rejected."""

    gap: float
    states: Tensor


class MPO:
    """MPO; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        beta: β, factor on the trained model's gap.
        representation: whose state L2 holds: the `mean` over a sequence's tokens (as the code has it) or the `last`
            token (as summaries of the paper have it).
        representation_weight: w; at 0 the reference sequences are not trained on.
        training: settings of the optimisation; published ones are full fine-tuning.
    """

    def __init__(
        self,
        *,
        beta: float = 1.5,
        representation: Representation = "mean",
        representation_weight: float = 1.0,
        training: Training = PUBLISHED,
    ) -> None:
        self.beta = beta
        self.representation = representation
        self.representation_weight = representation_weight
        self.training = training
        if beta <= 0 or representation_weight < 0:
            raise ConfigError("MPO needs beta above 0 and a representation_weight of at least 0")

    def settings(self) -> dict[str, Any]:
        """The method's own parameters as plain values."""
        return {name: value for name, value in vars(self).items() if name != "training"}

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        pairs: Sequence[PreferencePair],
        *,
        fingerprint: str = "",
        progress: Progress = silent,
    ) -> Edit:
        """Trains on the pairs. The model is never written to.

        Args:
            model, tokenizer: the base model, in float32 or bfloat16.
            pairs: preference pairs; unusable ones are dropped and counted.
            fingerprint: of the base model, for the manifest.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: the model is in float16.
            DataError: no pair is left to train on.
            NumericalError: the training diverged, or changed nothing.
        """
        started = time.monotonic()
        checked = check_pairs(pairs)
        sides = [side for pair in checked.pairs for side in (pair.target, pair.reference)]
        encoded = encode_preferences(tokenizer, sides, self.training.cutoff_len)
        fitting = [pair for pair in checked.pairs if pair.target in encoded and pair.reference in encoded]
        pad_id = tokenizer.pad_token_id or 0
        trainee = self.training.trainee(model)
        references = {pair.reference: encoded[pair.reference] for pair in fitting}
        frozen = self.frozen(trainee, references, pad_id, progress)
        kept = [pair for pair in fitting if frozen[pair.reference].gap >= 0]
        if not kept:
            raise DataError(
                f"no pair is left: {len(checked.pairs) - len(fitting)} prompts are longer than cutoff_len, and in "
                f"{len(fitting)} the model prefers the rejected reply in the reference language; give other pairs"
            )
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            trainee.add_adapter()
        gaps = torch.tensor([frozen[pair.reference].gap for pair in kept], device=model.device)

        def loss(batch: Sequence[int]) -> Mapping[str, Tensor]:
            target = both([encoded[kept[index].target] for index in batch])
            gap = reward_gap(*reply_log_probs(trainee.network, target, pad_id))
            losses = {"gap_loss": gap_loss(gap, gaps[list(batch)], self.beta)}
            if self.representation_weight:
                sources = [kept[index].reference for index in batch]
                states = representations(
                    trainee.network, both([encoded[side] for side in sources]), pad_id, self.representation
                )
                held = torch.stack([frozen[side].states for side in sources], 1).flatten(0, 1)
                losses["representation_loss"] = self.representation_weight * representation_loss(states, held)
            return losses

        trained = train(trainee, len(kept), loss, self.training, progress)
        trained.trained_tokens = self.training.num_train_epochs * sum(
            encoded[pair.target].tokens + (encoded[pair.reference].tokens if self.representation_weight else 0)
            for pair in kept
        )
        # One pass for the gap, one for the states.
        trained.reference_tokens = 2 * sum(item.tokens for item in references.values())
        return trained_edit(
            trainee,
            trained,
            self.training,
            {
                "method": "mpo",
                "citation": "arXiv 2505.16869",
                "engine": "lingualign",
                "faithfulness": FAITHFULNESS,
                "settings": self.settings(),
                **checked.described(
                    too_long=len(checked.pairs) - len(fitting), negative_reference_gap=len(fitting) - len(kept)
                ),
                "examples": len(kept),
                "reference_gap_mean": float(gaps.mean()),
                "model_fingerprint": fingerprint,
                "seconds": {"total": round(time.monotonic() - started, 2)},
            },
        )

    @torch.no_grad()
    def frozen(
        self, trainee: Trainee, references: Mapping[Preference, EncodedPreference], pad_id: int, progress: Progress
    ) -> dict[Preference, Frozen]:
        """RG^d and states of each reference preference, before an adapter is added to the trainee."""
        found: dict[Preference, Frozen] = {}
        for side, item in references.items():
            with trainee.arithmetic():
                gap = reward_gap(*reply_log_probs(trainee.network, both([item]), pad_id))
                states = representations(trainee.network, both([item]), pad_id, self.representation)
            found[side] = Frozen(float(gap), states)
            progress("reference gaps", len(found), len(references))
        return found
