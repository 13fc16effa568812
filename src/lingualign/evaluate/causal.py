"""Do the chosen neurons carry refusal? The model answers with them switched off, and with as many others.

A score says which neurons differ between prompts; only switching them off says whether the model needs them to refuse.
A fragility test of a model under evaluation, in memory: nothing that is switched off is ever written to a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.data.schema import Kind, PromptSet
from lingualign.errors import ConfigError
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import Judge
from lingualign.evaluate.metrics import Change, changes
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.events import Progress, silent
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices
from lingualign.runs import content_hash

#: Indices of MLP neurons by block.
Neurons = Mapping[int, Tensor]


@contextmanager
def neurons_switched_off(model: Any, neurons: Neurons) -> Iterator[None]:
    """Within, the MLP neurons put out nothing: the same as zeroing their columns of `down_proj`, by hooks.

    Args:
        model: the causal LM.
        neurons: by block, indices below the MLP's inner width.

    Raises:
        ConfigError: the model has no such block or neuron.
    """
    mlps = _checked(model, neurons)
    with ExitStack() as stack:
        for layer, indices in neurons.items():
            chosen = indices.to(next(model.parameters()).device)

            def silence(_module: Any, args: tuple[Any, ...], chosen: Tensor = chosen) -> tuple[Any, ...]:
                return (args[0].index_fill(-1, chosen, 0.0), *args[1:])

            stack.callback(model.get_submodule(mlps[layer].down).register_forward_pre_hook(silence).remove)
        yield


def matched_random(model: Any, neurons: Neurons, seed: int) -> dict[int, Tensor]:
    """As many neurons of each block, drawn uniformly from those that are not among `neurons`.

    Raises:
        ConfigError: a block has fewer others than were chosen.
    """
    mlps = _checked(model, neurons)
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for layer, indices in neurons.items():
        others = torch.ones(mlps[layer].inner_size, dtype=torch.bool).index_fill(0, indices, False).nonzero().flatten()
        if len(others) < len(indices):
            raise ConfigError(
                f"block {layer} has {len(indices)} chosen neurons and only {len(others)} others to compare with; "
                "choose fewer"
            )
        drawn[layer] = others[torch.randperm(len(others), generator=generator)[: len(indices)]].sort().values
    return drawn


@dataclass(frozen=True)
class CausalCheck:
    """Refusals of one kind of prompt by language, with neurons on and off.

    Attributes:
        neurons: how many were switched off.
        chosen: change from the whole model to the one without the chosen neurons.
        random: change from the whole model to the one without as many others of the same blocks.
        chosen_against_random: change from the second to the first: what is the choice's and not the damage's.
        incoherent_chosen, incoherent_random: the first two changes of incoherent replies; a broken model does not
            refuse either.
    """

    neurons: int
    chosen: list[Change]
    random: list[Change]
    chosen_against_random: list[Change]
    incoherent_chosen: list[Change]
    incoherent_random: list[Change]


def causal_check(
    engine: TransformersEngine,
    judge: Judge,
    prompts: PromptSet,
    neurons: Neurons,
    folder: Path,
    *,
    kind: Kind = "harmful",
    seed: int = 0,
    progress: Progress = silent,
) -> CausalCheck:
    """Three audits of the same prompts, compared in pairs; p values are adjusted over languages.

    Args:
        engine: of the model; its weights are not touched.
        judge: decides on each reply.
        prompts: what is asked.
        neurons: the chosen ones, by block.
        folder: where replies are kept; a killed check goes on from there. One folder for one model and set of settings.
        kind: prompts compared.
        seed: of the random neurons.
        progress: called as work goes on.

    Raises:
        ConfigError: the neurons are not the model's, or too many for a control.
        DataError: there is no prompt of this kind.
    """
    asked = prompts.where(kinds=[kind])

    def audited(off: Neurons, stage: str) -> list[Reply]:
        name = content_hash({str(layer): indices.tolist() for layer, indices in off.items()})
        with neurons_switched_off(engine.model, off):
            store = ReplyStore(folder / f"without-{name}.jsonl")
            return run_audit(engine, judge, asked, store, progress=progress, stage=stage)

    others = matched_random(engine.model, neurons, seed)
    whole = audited({}, "no neuron off")
    chosen = audited(neurons, "chosen neurons off")
    random = audited(others, "random neurons off")
    return CausalCheck(
        neurons=sum(len(indices) for indices in neurons.values()),
        chosen=changes(whole, chosen, kind, "refused"),
        random=changes(whole, random, kind, "refused"),
        chosen_against_random=changes(random, chosen, kind, "refused"),
        incoherent_chosen=changes(whole, chosen, kind, "incoherent"),
        incoherent_random=changes(whole, random, kind, "incoherent"),
    )


def _checked(model: Any, neurons: Neurons) -> list[MlpMatrices]:
    mlps = locate_mlps(model)
    for layer, indices in neurons.items():
        if not 0 <= layer < len(mlps):
            raise ConfigError(f"block {layer} is not one of this model; it has blocks 0 to {len(mlps) - 1}")
        width = mlps[layer].inner_size
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < width:
            raise ConfigError(f"block {layer} has neurons 0 to {width - 1}, not all that were given")
    return mlps
