"""Gradient tuning of chosen rows and columns of weight matrices, and of nothing else.

Published code masks the gradient of whole matrices. Here the change of each chosen slice is a parameter of its own, in
float32, added to what the frozen matrix computes. The gradient is the same; but frozen weights cannot move (neither
weight decay nor the optimiser's momentum reaches them), the optimiser's state is as small as the slices, and steps of
1e-6 are not rounded away in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lingualign.edit import LowRankDelta
from lingualign.errors import NumericalError
from lingualign.methods.preference.encoding import reply_log_probs
from lingualign.models.chat import EncodedChat
from lingualign.models.projections import Projection


@dataclass(frozen=True)
class TuningSettings:
    """How slices are trained.

    Attributes:
        learning_rate: constant.
        epochs: passes over the examples, each in a new random order.
        batch_size: chats per forward pass.
        gradient_accumulation: forward passes per step of the optimiser.
        seed: of the orders.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    gradient_accumulation: int
    seed: int


def tune_slices(
    model: Any,
    chats: Sequence[EncodedChat],
    neurons: Mapping[Projection, Tensor],
    settings: TuningSettings,
    *,
    pad_id: int,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, LowRankDelta], list[float]]:
    """Minimises the mean cross-entropy of the replies' tokens with AdamW, weight decay 0. The model is left alone.

    Args:
        model: the causal LM, in evaluation mode.
        chats: prompts with replies.
        neurons: indices of the rows or columns that may change, by matrix; none of them empty.
        settings: how.
        pad_id: token id for padding; it is masked.
        on_step: called with (steps done, steps in all).

    Returns:
        The changes by parameter name, exact (rank = number of neurons), and each step's loss before it.

    Raises:
        NumericalError: the loss is not finite.
    """
    changes = {projection: _zeros(model, projection, len(indices)) for projection, indices in neurons.items()}
    optimiser = torch.optim.AdamW(list(changes.values()), lr=settings.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(settings.seed)
    step_size = settings.batch_size * settings.gradient_accumulation
    losses: list[float] = []
    steps = settings.epochs * -(-len(chats) // step_size)
    with _frozen(model), _added(model, changes, neurons), torch.enable_grad():
        for _ in range(settings.epochs):
            order = torch.randperm(len(chats), generator=generator).tolist()
            for start in range(0, len(order), step_size):
                group = [chats[index] for index in order[start : start + step_size]]
                tokens = sum(len(chat.ids) - chat.prompt_length for chat in group)
                total = 0.0
                for first in range(0, len(group), settings.batch_size):
                    loss = -reply_log_probs(model, group[first : first + settings.batch_size], pad_id)[0].sum() / tokens
                    loss.backward()
                    total += float(loss.detach())
                if not torch.isfinite(torch.tensor(total)):
                    raise NumericalError("the loss is not finite; load the model in float32 or lower the learning rate")
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                losses.append(total)
                if on_step is not None:
                    on_step(len(losses), steps)
    return {p.parameter: _delta(model, p, neurons[p], change.detach().cpu()) for p, change in changes.items()}, losses


def _zeros(model: Any, projection: Projection, count: int) -> nn.Parameter:
    """The change of a slice: (count, d_in) for rows, (d_out, count) for columns."""
    weight = model.get_parameter(projection.parameter)
    shape = (count, weight.shape[1]) if projection.axis == "rows" else (weight.shape[0], count)
    return nn.Parameter(torch.zeros(shape, device=weight.device))


def _delta(model: Any, projection: Projection, indices: Tensor, change: Tensor) -> LowRankDelta:
    shape = tuple(model.get_parameter(projection.parameter).shape)
    identity = torch.eye(len(indices))
    if projection.axis == "rows":
        return LowRankDelta(identity, change.T.contiguous(), shape, rows=indices)
    return LowRankDelta(change.contiguous(), identity, shape, columns=indices)


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Within, no weight of the model takes a gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _added(
    model: Any, changes: Mapping[Projection, nn.Parameter], neurons: Mapping[Projection, Tensor]
) -> Iterator[None]:
    """Within, each matrix acts as if its slice were changed."""
    with ExitStack() as stack:
        for projection, change in changes.items():
            indices = neurons[projection].to(change.device)

            def rows(
                _module: nn.Module, args: Any, output: Tensor, change: Tensor = change, indices: Tensor = indices
            ) -> Tensor:
                return output.index_add(-1, indices, (args[0].float() @ change.T).to(output.dtype))

            def columns(
                _module: nn.Module, args: Any, output: Tensor, change: Tensor = change, indices: Tensor = indices
            ) -> Tensor:
                added: Tensor = args[0][..., indices].float() @ change.T
                return output + added.to(output.dtype)

            module = model.get_submodule(projection.module)
            hook = rows if projection.axis == "rows" else columns
            stack.callback(module.register_forward_hook(hook).remove)
        yield
