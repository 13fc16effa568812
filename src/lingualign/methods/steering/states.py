"""What steering is fitted on: activations of the anchors at the last prompt token, at one site in each chosen block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lingualign import __version__
from lingualign.errors import DataError
from lingualign.features.collect import Site
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors
from lingualign.methods.layers import ChosenLayers, choose_layers
from lingualign.models.chat import EncodedChat
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices

#: `residual`: the residual stream before a block, as published. `mlp`: the output of its MLP, before any norm.
SteeringSite = Literal["residual", "mlp"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AnchorStates:
    """Activations (prompts, d) float32 by site, in the order of the blocks.

    Attributes:
        chosen: the blocks.
        reference_harmful: of the reference language's harmful prompts.
        reference_harmless: of its harmless and look-alike prompts.
        harmful: of the harmful prompts of all languages.
        benign: of the harmless and look-alike prompts of all languages.
    """

    chosen: ChosenLayers
    reference_harmful: dict[Site, Tensor]
    reference_harmless: dict[Site, Tensor]
    harmful: dict[Site, Tensor]
    benign: dict[Site, Tensor]

    @property
    def sites(self) -> list[Site]:
        return list(self.harmful)

    def refusal_direction(self, site: Site) -> Tensor:
        """Mean harmful minus mean harmless activation in the reference language, (d,) float64 (Arditi et al. 2024,
        arXiv 2406.11717)."""
        return self.reference_harmful[site].double().mean(0) - self.reference_harmless[site].double().mean(0)


def collect_states(
    model: Any,
    tokenizer: Any,
    anchors: Anchors,
    *,
    layers: Sequence[int] | Literal["auto"],
    layer_count: int,
    site: SteeringSite,
    cache: Path | None,
    fingerprint: str,
    progress: Progress | None,
) -> AnchorStates:
    """Reads all activations of the unsteered model.

    Raises:
        ConfigError: a layer does not exist.
        DataError: the reference language has no harmless prompt.
    """
    if not anchors.reference_harmless:
        raise DataError(
            f"the refusal direction needs harmless prompts in the reference language {anchors.reference}; add some"
        )
    last = Positions(template_tokens=1)
    chats = encode_anchors(tokenizer, anchors, last, {})
    source = FeatureSource(model, fingerprint, pad_id=tokenizer.pad_token_id or 0, cache=cache, progress=progress)
    mlps = locate_mlps(model)
    harmful = [*chats.reference, *chats.low]
    prompts = [*chats.references, *(low for _, low in anchors.pairs)]
    chosen = choose_layers(layers, layer_count, source, mlps, prompts, harmful)
    sites = [_site(mlps[layer], site) for layer in chosen.layers]
    benign_of = [index for index, prompt in enumerate(anchors.keep) if prompt.kind != "harmful"]
    home = [row for row, index in enumerate(benign_of) if anchors.keep[index].language == anchors.reference]

    def rows(chats: Sequence[EncodedChat], stage: str) -> dict[Site, Tensor]:
        return {where: values[:, 0] for where, values in source.rows(chats, sites, last, stage).items()}

    harmful_rows = rows(harmful, "harmful")
    benign_rows = rows([chats.keep[index] for index in benign_of], "benign")
    count = len(chats.reference)
    return AnchorStates(
        chosen,
        {where: values[:count] for where, values in harmful_rows.items()},
        {where: values[home] for where, values in benign_rows.items()},
        harmful_rows,
        benign_rows,
    )


def _site(mlp: MlpMatrices, site: SteeringSite) -> Site:
    return Site(mlp.block, "input") if site == "residual" else Site(mlp.down, "output")


def manifest_of(anchors: Anchors, states: AnchorStates) -> dict[str, Any]:
    """The entries that every steering's manifest has."""
    return {
        "lingualign": __version__,
        "reference": anchors.reference,
        "anchor_languages": list(anchors.languages),
        "anchor_pairs": len(anchors.pairs),
        "keep_prompts": len(anchors.keep),
        **states.chosen.record(),
    }
