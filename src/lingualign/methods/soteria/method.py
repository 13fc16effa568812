"""The edit: a harm vector, subtracted in the columns of the chosen heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lingualign import __version__
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, UnsupportedModel
from lingualign.events import Progress, silent
from lingualign.methods.soteria.heads import Head, group_heads, indirect_effects, top_heads
from lingualign.methods.soteria.tasks import Task, builtin_tasks
from lingualign.models.heads import AttentionOutput, locate_attention_outputs

#: Gives a weight by its parameter name.
Weights = Callable[[str], Tensor]

_FAITHFULNESS = {
    "equal": [
        "indirect effects of mean-patched heads at the last token of shuffled ten-shot prompts, 25 for each task",
        "top share of heads, half as published; group heads in at least two languages",
        "theta - lam * mask * (theta_harm - theta_base) on the heads' columns of o_proj",
    ],
    "differs": [
        "tasks: capitals, antonyms and numerals written for this project; the paper's are five translated ones",
        "head size from the configuration, not 128",
        "an answer's leading white-space token counts to the prompt",
        "heads='random' is our control",
    ],
    "unknown": ["lam", "the data and recipe of theta_harm", "whether means leave out prompts answered wrongly"],
}
_PROXY_NOTE = "harm vector: pretrained minus chat weights, a harmless proxy; no checkpoint was trained on harmful data"


def weights_of(model: Any) -> Weights:
    """Reads a model's weights by parameter name; a name that it lacks is an `UnsupportedModel`."""
    parameters = dict(model.named_parameters())

    def read(name: str) -> Tensor:
        if name not in parameters:
            raise UnsupportedModel(
                f"{type(model).__name__} has no {name}; give checkpoints of the edited model's architecture"
            )
        weight: Tensor = parameters[name]
        return weight.detach()

    return read


@dataclass(frozen=True)
class HarmVector:
    """θ_harm − θ_base, read weight by weight.

    Two sources are meant. As published: `harm` is the base model fine-tuned on harmful data. Without such a checkpoint:
    the `proxy`, where `harm` is the pretrained model that the edited chat model came from; subtracting pretrained minus
    chat goes further along what chat training did, safety and everything else.

    Attributes:
        harm: θ_harm.
        base: θ_base; by default the edited model itself.
        proxy: whether `harm` is the pretrained model; recorded in the edit.
    """

    harm: Weights
    base: Weights | None = None
    proxy: bool = False


class Soteria:
    """Language-specific functional steering; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        languages: whose heads are edited. With one, its top heads; with more, the heads that several share.
        share: top share of all heads that is kept for each language.
        group_minimum: in how many languages' top heads a head must be.
        heads: `functional`, or `random`: as many heads, drawn from all alike. With half of all heads chosen, and no
            harm signal in the choice, this control is needed for any claim about them.
        lam: λ > 0, the factor on the harm vector.
        rank: largest rank of a change, or None for the exact one.
        shots: solved examples in a prompt.
        prompts: prompts per task for the means, and for the effects.
        seed: of the prompts and the random heads.
    """

    def __init__(
        self,
        *,
        languages: Sequence[str],
        share: float = 0.5,
        group_minimum: int = 2,
        heads: Literal["functional", "random"] = "functional",
        lam: float = 1.0,
        rank: int | None = None,
        shots: int = 10,
        prompts: int = 25,
        seed: int = 0,
    ) -> None:
        self.languages = languages
        self.share = share
        self.group_minimum = group_minimum
        self.heads = heads
        self.lam = lam
        self.rank = rank
        self.shots = shots
        self.prompts = prompts
        self.seed = seed
        if not languages:
            raise ConfigError("Soteria needs at least one language")
        if not 0 < share <= 1:
            raise ConfigError(f"share must be above 0 and at most 1, not {share}")
        if lam <= 0:
            raise ConfigError("lam must be above zero: a negative one would add the harm vector")

    def settings(self) -> dict[str, Any]:
        """All parameters as plain values."""
        return {**vars(self), "languages": list(self.languages)}

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        vector: HarmVector,
        *,
        tasks: Mapping[str, Sequence[Task]] | None = None,
        effects: Mapping[str, Tensor] | None = None,
        progress: Progress = silent,
    ) -> Edit:
        """Finds the heads and makes the edit. The model is left as it was found.

        Args:
            model, tokenizer: the model to edit.
            vector: the harm vector.
            tasks: tasks by language; by default the built-in ones.
            effects: (layers, heads) indirect effects by language where they are known, as from an earlier fit.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: the harm vector is zero on all chosen heads, or no head is shared.
            DataError, UnsupportedModel: as raised by the parts.
        """
        started = time.monotonic()
        outputs = locate_attention_outputs(model)
        found = dict(effects) if effects is not None else self._effects(model, tokenizer, tasks, progress)
        identified = time.monotonic()
        chosen = self._choose(found, (len(outputs), outputs[0].heads))
        deltas: dict[str, LowRankDelta] = {}
        base: dict[str, str] = {}
        diagnostics = []
        original = weights_of(model)
        for layer, output in enumerate(outputs):
            heads = sorted(head for where, head in chosen if where == layer)
            if not heads:
                continue
            weight = original(output.parameter)
            delta, residual, change = self._delta(output, heads, vector, weight)
            deltas[output.parameter] = delta
            base[output.parameter] = tensor_fingerprint(weight)
            diagnostics.append(
                {
                    "tensor": output.parameter,
                    "layer": layer,
                    "heads": heads,
                    "rank": delta.rank,
                    "residual": residual,
                    "relative_change": change / float(weight.float().norm()),
                }
            )
        if not any(entry["relative_change"] for entry in diagnostics):
            raise ConfigError("the harm vector is zero on all chosen heads; give two checkpoints that differ in o_proj")
        manifest = {
            "method": "soteria",
            "citation": "arXiv 2502.11244",
            "lingualign": __version__,
            "settings": self.settings(),
            "languages": list(self.languages),
            "harm_vector": "proxy" if vector.proxy else "checkpoint",
            "heads": sorted(chosen),
            "indirect_effects": {language: values.tolist() for language, values in found.items()},
            "diagnostics": diagnostics,
            "seconds": {
                "heads": round(identified - started, 2),
                "total": round(time.monotonic() - started, 2),
            },
            "faithfulness": {
                **_FAITHFULNESS,
                "differs": [*_FAITHFULNESS["differs"], *([_PROXY_NOTE] if vector.proxy else [])],
            },
        }
        return Edit(deltas, base, manifest)

    def _effects(
        self, model: Any, tokenizer: Any, tasks: Mapping[str, Sequence[Task]] | None, progress: Progress
    ) -> dict[str, Tensor]:
        # All languages' tasks are there before the first forward pass.
        wanted = {
            language: list(tasks[language]) if tasks is not None else builtin_tasks(language)
            for language in self.languages
        }
        total = self.prompts * sum(map(len, wanted.values()))
        done = 0

        def on_prompt() -> None:
            nonlocal done
            done += 1
            progress("function heads", done, total)

        return {
            language: indirect_effects(
                model,
                tokenizer,
                found,
                shots=self.shots,
                prompts=self.prompts,
                seed=self.seed,
                on_prompt=on_prompt,
            )
            for language, found in wanted.items()
        }

    def _choose(self, effects: Mapping[str, Tensor], shape: tuple[int, int]) -> frozenset[Head]:
        missing = [language for language in self.languages if language not in effects]
        if missing:
            raise ConfigError(f"there are no indirect effects for {', '.join(missing)}; measure them or leave it out")
        for language in self.languages:
            found = tuple(effects[language].shape)
            if found != shape:
                raise ConfigError(
                    f"the effects for {language} are of {found} layers and heads, the model has {shape}; "
                    "measure them on this model"
                )
        chosen = group_heads(
            {language: top_heads(effects[language], self.share) for language in self.languages}, self.group_minimum
        )
        if not chosen:
            raise ConfigError("no head is among the top heads of enough languages; raise share or lower group_minimum")
        if self.heads == "functional":
            return chosen
        layers, heads = shape
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(layers * heads, generator=generator)[: len(chosen)].tolist()
        return frozenset((index // heads, index % heads) for index in drawn)

    def _delta(
        self, output: AttentionOutput, heads: Sequence[int], vector: HarmVector, weight: Tensor
    ) -> tuple[LowRankDelta, float, float]:
        """−λ (θ_harm − θ_base) on the heads' columns; the share of its norm that the rank limit leaves out; ‖ΔW‖."""
        name = output.parameter
        harm, base = vector.harm(name), weight if vector.base is None else vector.base(name)
        if harm.shape != weight.shape or base.shape != weight.shape:
            raise UnsupportedModel(
                f"{name} is {tuple(harm.shape)} and {tuple(base.shape)} in the harm vector's checkpoints, "
                f"{tuple(weight.shape)} in the model; give checkpoints of the edited model's architecture"
            )
        columns = torch.cat([torch.arange(output.heads * output.head_size)[output.columns(head)] for head in heads])
        block = -self.lam * (harm.cpu().float() - base.cpu().float())[:, columns]
        out_factor, in_factor, residual = _factors(block, self.rank)
        shape = (weight.shape[0], weight.shape[1])
        change = float(block.norm()) * (1.0 - residual**2) ** 0.5
        return LowRankDelta(out_factor, in_factor, shape, columns=columns), residual, change


def _factors(block: Tensor, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """block = out · inᵀ exactly, one factor being the identity; or its best approximation of a lower rank."""
    smaller = min(block.shape)
    if rank is None or rank >= smaller:
        if smaller == block.shape[1]:
            return block.contiguous(), torch.eye(smaller), 0.0
        return torch.eye(smaller), block.T.contiguous(), 0.0
    left, sigma, right = torch.linalg.svd(block.double(), full_matrices=False)
    out_factor, in_factor = (left[:, :rank] * sigma[:rank]).float(), right[:rank].T.float().contiguous()
    total = float(sigma.norm())
    return out_factor.contiguous(), in_factor, float(sigma[rank:].norm()) / total if total > 0 else 0.0
