"""How a network is trained: settings with the names of the published configuration files, our loop, and what is
recorded of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit
from lingualign.errors import ConfigError, NumericalError
from lingualign.events import Progress
from lingualign.methods.preference.adapter import Trainee, Tuning, linear_weights


@dataclass(frozen=True)
class Training:
    """Settings of the optimisation (AdamW, cosine schedule to zero, no weight decay).

    Attributes:
        learning_rate: peak. Published values are for full fine-tuning; LoRA usually needs about a hundred times more.
        num_train_epochs: passes over the data.
        per_device_train_batch_size: examples per forward pass (an example is a pair).
        gradient_accumulation_steps: forward passes per step of the optimiser.
        warmup_ratio: share of the steps over which the learning rate rises linearly.
        max_grad_norm: the gradient's norm is cut here.
        cutoff_len: longest sequence in tokens; replies are cut.
        tuning: `full` trains every linear layer but the output head; `lora` an adapter on the same layers.
        lora_rank, lora_alpha: of the adapter.
        edit_rank: rank to which the change of each matrix is approximated after full fine-tuning; None keeps it exact.
        seed: of the order of examples and of LoRA's first factors.
    """

    learning_rate: float
    num_train_epochs: int = 2
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    warmup_ratio: float = 0.1
    max_grad_norm: float = 1.0
    cutoff_len: int = 1024
    tuning: Tuning = "full"
    lora_rank: int = 16
    lora_alpha: int = 32
    edit_rank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (
            self.num_train_epochs,
            self.per_device_train_batch_size,
            self.gradient_accumulation_steps,
            self.cutoff_len,
            self.lora_rank,
            1 if self.edit_rank is None else self.edit_rank,
        )
        if min(counts) < 1 or self.learning_rate <= 0 or not 0 <= self.warmup_ratio <= 1:
            raise ConfigError(
                "training needs a positive learning rate, a warm-up ratio from 0 to 1, and at least one epoch, one "
                "example per batch, one batch per step, one token and rank 1"
            )

    def trainee(self, model: Any) -> Trainee:
        """A copy of the model to train."""
        return Trainee.of(model, self.tuning, rank=self.lora_rank, alpha=self.lora_alpha)

    @property
    def step_size(self) -> int:
        """Examples per step of the optimiser."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def steps(self, examples: int) -> int:
        """Steps of the optimiser over all epochs."""
        return self.num_train_epochs * -(-examples // self.step_size)

    def warmup_steps(self, examples: int) -> int:
        return round(self.warmup_ratio * self.steps(examples))

    def order(self, examples: int) -> Iterator[list[list[int]]]:
        """For each step the indices of its examples, in batches; every epoch has an order of its own."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.num_train_epochs):
            shuffled = torch.randperm(examples, generator=generator).tolist()
            for start in range(0, examples, self.step_size):
                step = shuffled[start : start + self.step_size]
                size = self.per_device_train_batch_size
                yield [step[first : first + size] for first in range(0, len(step), size)]


@dataclass
class Trained:
    """What is known of a finished training.

    Attributes:
        loss_curve: per step of the optimiser its number, losses and learning rate.
        trained_tokens: tokens through forward and backward passes, padding left out.
        reference_tokens: tokens through forward passes of the frozen model.
    """

    loss_curve: list[dict[str, float]] = field(default_factory=list)
    trained_tokens: int = 0
    reference_tokens: int = 0

    def flops(self, trainee: Trainee) -> float:
        """Floating-point operations, estimated: 2 per linear weight and token for a forward pass, 2 for the gradients
        of the activations, 2 for those of the weights (negligible with LoRA). Attention scores are left out."""
        weights = linear_weights(trainee.base)
        passes = 6 if trainee.tuning == "full" else 4
        return float(weights) * (passes * self.trained_tokens + 2 * self.reference_tokens)


#: From the indices of a batch to its losses by name, each (B,); their sum is minimised.
BatchLoss = Callable[[Sequence[int]], Mapping[str, Tensor]]


def train(trainee: Trainee, examples: int, loss: BatchLoss, training: Training, progress: Progress) -> Trained:
    """Minimises the mean over examples of the summed losses.

    Every example has the same weight in a step, however the step is divided into batches. Dropout is off.

    Raises:
        NumericalError: a loss is not finite.
    """
    from transformers import get_cosine_schedule_with_warmup

    parameters = trainee.parameters()
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
    total = training.steps(examples)
    schedule = get_cosine_schedule_with_warmup(optimiser, training.warmup_steps(examples), total)
    trained = Trained()
    for number, batches in enumerate(training.order(examples), 1):
        count = sum(len(batch) for batch in batches)
        sums: dict[str, float] = {}
        for batch in batches:
            with trainee.arithmetic():
                losses = loss(batch)
            batch_loss = torch.stack([values.sum() for values in losses.values()]).sum().div(count)
            batch_loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            for name, values in losses.items():
                sums[name] = sums.get(name, 0.0) + float(values.detach().sum()) / count
        torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        rate = schedule.get_last_lr()[0]
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        value = sum(sums.values())
        if not math.isfinite(value):
            raise NumericalError(f"the loss is {value} at step {number}; lower learning_rate or load in float32")
        trained.loss_curve.append({"step": number, "loss": value, **sums, "learning_rate": rate})
        progress("training", number, total)
    return trained


def trained_edit(trainee: Trainee, trained: Trained, training: Training, manifest: Mapping[str, Any]) -> Edit:
    """The edit of a finished training, with everything that is known of it in the manifest.

    Args:
        trainee: the trained copy.
        trained: what is known of the training.
        training: its settings.
        manifest: what only the method knows: name, citation, faithfulness, settings, data, seconds.

    Raises:
        NumericalError: nothing was learned, or weights are not finite.
    """
    edit = trainee.edit(training.edit_rank)
    if not edit.deltas:
        raise NumericalError("the training changed no weight; raise learning_rate or give other pairs")
    if not all(math.isfinite(entry["relative_change"]) for entry in edit.manifest["diagnostics"]):
        raise NumericalError("the trained weights are not finite; lower learning_rate or load in float32")
    return replace(
        edit,
        manifest={
            **manifest,
            "lingualign": __version__,
            "training": asdict(training),
            "precision": str(next(trainee.base.parameters()).dtype).removeprefix("torch."),
            "trained_parameters": sum(parameter.numel() for parameter in trainee.parameters()),
            "steps": len(trained.loss_curve),
            "loss_curve": trained.loss_curve,
            "trained_tokens": trained.trained_tokens,
            "reference_tokens": trained.reference_tokens,
            "flops_estimate": trained.flops(trainee),
            **edit.manifest,
        },
    )
