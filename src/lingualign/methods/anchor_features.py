"""What the closed-form edit reads from a model: which matrices change, and the features of anchors and keep set that
each is solved from. A fit solves them once (`sparse_weight_edit`), a sweep many times (`sweep`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.features.block_major import Batch, trajectories
from lingualign.features.carry import Trajectories
from lingualign.features.collect import Site
from lingualign.features.moments import Moments
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors
from lingualign.methods.layers import choose_layers
from lingualign.methods.own_language import Lesson
from lingualign.methods.selection import select_neurons
from lingualign.models.changed import changed_matrices, require_editable
from lingualign.models.chat import EncodedChat
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import BlockMatrix, MlpMatrices

if TYPE_CHECKING:
    from lingualign.methods.sparse_weight_edit import SparseWeightEdit

#: What progress calls the groups of the keep set.
_KEEP_NAMES = {"harmless": "harmless", "look-alike": "look-alikes", "harmful": "reference"}


@dataclass(frozen=True)
class Matrix:
    """One weight to be solved: which rows or columns change, how it is stored, and where its features come from."""

    parameter: str
    inputs: Site
    outputs: Site
    rows: Tensor | None
    columns: Tensor | None
    layer: int
    transposed: bool
    activation: Any | None = None


def keep_counts(look_alike_weight: float, reference_weight: float) -> dict[str, float]:
    """How many times each prompt of the keep set counts, by kind."""
    return {"harmless": 1.0, "look-alike": look_alike_weight, "harmful": reference_weight}


def counted_gram(parts: Mapping[str, Moments], counts: Mapping[str, float]) -> Tensor:
    """KᵀK/k of moments by kind, at least one, together, each row counted as often as its kind; as in `Moments.outer`,
    only the lower triangle counts."""
    rows = sum(counts[kind] * moments.count for kind, moments in parts.items())
    first, *others = parts
    gram = parts[first].outer * (counts[first] / rows)
    for kind in others:
        gram.add_(parts[kind].outer, alpha=counts[kind] / rows)
    return gram


def counted_rows(rows: Tensor, counts: Sequence[float]) -> Tensor:
    """Rows (chats, positions, width) scaled so that their mean second moments are those of chats that are counted so
    many times."""
    values = torch.tensor(counts)
    return rows * (values / values.mean()).sqrt()[:, None, None]


class AnchorFeatures:
    """Encoded anchors, and their features as the model is at the time of the call.

    Args:
        method: the settings that say what is read.
        model, tokenizer: the base model.
        anchors: pairs and keep set.
        source: where features come from.
        replies, lessons: as for `SparseWeightEdit.fit`.

    Attributes:
        chats: the anchors, encoded.
        groups: the keep set's chats by kind, in the order of `anchors.keep`.
        chosen: the blocks that change, and how they were chosen.

    Raises:
        ConfigError: lessons are missing, or as raised by the parts.
        DataError, UnsupportedModel: as raised by the parts.
    """

    def __init__(
        self,
        method: SparseWeightEdit,
        model: Any,
        tokenizer: Any,
        anchors: Anchors,
        source: FeatureSource,
        replies: Mapping[tuple[str, str, str], str],
        lessons: Mapping[tuple[str, str, str], Lesson],
    ) -> None:
        own_language = method.teacher == "own-language"
        if own_language and not lessons:
            raise ConfigError(
                "no anchor has a refusal in its own language, even where the model is told to refuse in it; "
                "use teacher = 'reference'"
            )
        self.method = method
        self.model = model
        self.source = source
        self.mlps = locate_mlps(model)
        require_editable(self.mlps, method.family)
        self.anchors = anchors
        self.chats = encode_anchors(tokenizer, anchors, method.positions, replies, lessons if own_language else {})
        keep = list(zip(anchors.keep, self.chats.keep, strict=True))
        self.groups = {kind: [chat for prompt, chat in keep if prompt.kind == kind] for kind in _KEEP_NAMES}
        self._plain = [
            chat for prompt, chat in keep if prompt.language == anchors.reference and prompt.kind != "harmful"
        ]
        self.chosen = choose_layers(
            method.layers,
            method.layer_count,
            source,
            self.mlps,
            [*self.chats.references, *(low for _, low in anchors.pairs)],
            [*self.chats.reference, *self.chats.low],
        )

    @property
    def layers(self) -> list[int]:
        """The blocks that change, shallow to deep."""
        return self.chosen.layers

    @property
    def _first(self) -> list[tuple[BlockMatrix, str]]:
        """What changes in the first block that is edited; its widths are those of all."""
        return changed_matrices(self.model, self.mlps[self.layers[0]], self.method.family)

    @property
    def dual(self) -> bool:
        """Whether the dual solver is used, which needs the keep set's rows."""
        method = self.method
        row_count = (len(self.chats.low) + len(self.chats.keep)) * method.positions.rows
        narrow = row_count < min(min(matrix.in_width, matrix.out_width) for matrix, _ in self._first)
        return method.solver == "dual" or (method.solver == "auto" and narrow and method.null_space is None)

    def trajectories(self, *more: list[EncodedChat]) -> Trajectories:
        """The states of all chats that will be read, on their way through the blocks; `more` are chats that the caller
        reads besides."""
        neurons = self._plain if self.method.selection != "all" else []
        kept = list(self.groups.values())
        if self.dual:
            kept = [[chat for group in kept for chat in group]]

        def batches(*groups: list[EncodedChat]) -> list[Batch]:
            return [batch for group in groups for batch in self.source.batches(group)]

        return trajectories(
            self.model,
            self.mlps[0].block.rpartition(".")[0],
            batches(self.chats.reference, self.chats.teachers, neurons),
            batches(self.chats.low, *kept, *more),
            pad_id=self.source.pad_id,
            folder=self.source.cache,
            on_block=lambda done, total: self.source.progress("passing blocks", done, total),
        )

    def low(self, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Features of the pairs' prompts in the other language, (pairs, positions, width)."""
        return self.source.rows(self.chats.low, sites, self.method.positions, "anchors")

    def wanted(self, outputs: Sequence[Site]) -> dict[Site, Tensor]:
        """What each output should be for each pair, (pairs, positions, width): the teacher's."""
        positions = self.method.positions
        wanted = {
            site: rows[self.chats.reference_of]
            for site, rows in self.source.rows(self.chats.reference, outputs, positions, "reference").items()
        }
        if self.chats.taught:
            for site, rows in self.source.rows(self.chats.teachers, outputs, positions, "own language").items():
                wanted[site][self.chats.taught] = rows
        return wanted

    def target(self, matrix: Matrix, low: Tensor, wanted: Tensor) -> Tensor:
        """D, (pairs, positions, changed outputs): what the matrix should add for each row."""
        if matrix.activation is not None:
            wanted = matrix.activation(wanted)
        gap = self.method.aim(matrix.outputs, low, wanted, self.anchors)
        return gap if matrix.rows is None else gap[..., matrix.rows]

    def keep_rows(self, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Features of the keep set, (chats, positions, width), kind by kind in the order of `groups`."""
        chats = [chat for group in self.groups.values() for chat in group]
        return self.source.rows(chats, sites, self.method.positions, "keep set")

    def keep_moments(self, inputs: Sequence[Site]) -> dict[Site, dict[str, Moments]]:
        """Moments of the keep set by kind, which take no more room however many rows there are."""
        kept: dict[Site, dict[str, Moments]] = {site: {} for site in inputs}
        for kind, group in self.groups.items():
            if not group:
                continue
            found = self.source.moments(group, inputs, self.method.positions, f"keep set, {_KEEP_NAMES[kind]}")
            for site, moments in found.items():
                kept[site][kind] = moments
        return kept

    def matrices(self, layer: int) -> list[Matrix]:
        """What changes in one block; where the method selects neurons, by the unedited model's features."""
        mlp = self.mlps[layer]
        make = self._inner if self.method.family == "paper" else self._writing
        return [make(matrix, output, layer) for matrix, output in changed_matrices(self.model, mlp, self.method.family)]

    def _writing(self, matrix: BlockMatrix, output: str, layer: int) -> Matrix:
        """A matrix that writes to the residual stream: neurons are its columns, their activations its inputs."""
        inputs = Site(matrix.module, "input")
        columns = self._select(inputs, slice(0, matrix.in_width))
        return Matrix(matrix.parameter, inputs, Site(output, "output"), None, columns, layer, matrix.transposed)

    def _inner(self, matrix: BlockMatrix, output: str, layer: int) -> Matrix:
        """Gate or up: neurons are its rows, their activations its outputs."""
        outputs = Site(output, "output")
        neurons = slice(matrix.first_row, matrix.first_row + matrix.out_width)
        rows = self._select(outputs, neurons)
        if rows is None and self.model.get_parameter(matrix.parameter).numel() != matrix.in_width * matrix.out_width:
            rows = torch.arange(neurons.start, neurons.stop)
        post = matrix.role == "gate" and self.method.target == "post"
        activation = _activation(self.model, self.mlps[layer]) if post else None
        inputs = Site(matrix.module, "input")
        return Matrix(matrix.parameter, inputs, outputs, rows, None, layer, matrix.transposed, activation)

    def _select(self, site: Site, neurons: slice) -> Tensor | None:
        """The neurons to change, by their activations on the reference language's harmful and harmless prompts:
        indices among the site's features, of which `neurons` are asked for. None for all."""
        method = self.method
        if method.selection == "all":
            return None
        harmful_rows = self.source.rows(self.chats.reference, [site], method.positions, "neurons")[site].mean(1)
        harmless_rows = self.source.rows(self._plain, [site], method.positions, "neurons")[site].mean(1)
        harmful_rows, harmless_rows = harmful_rows[:, neurons], harmless_rows[:, neurons]
        chosen = select_neurons(
            method.selection,
            harmful_rows,
            harmless_rows,
            magnitude_threshold=method.magnitude_threshold,
            effect_threshold=method.effect_threshold,
            fraction=method.fraction,
            seed=method.seed,
        )
        if chosen is not None and len(chosen) == 0:
            raise ConfigError(
                f"no neuron of {site.module} passes the selection; lower the thresholds or give `fraction`"
            )
        return None if chosen is None else chosen + neurons.start


def _activation(model: Any, mlp: MlpMatrices) -> Any:
    """The MLP's activation function: its only child without parameters."""
    children = [child for child in model.get_submodule(mlp.mlp).children() if not list(child.parameters())]
    if len(children) != 1:
        raise ConfigError(
            f"{mlp.mlp} has no single activation module, so the post-activation target is unknown; use target='pre'"
        )
    return children[0]
