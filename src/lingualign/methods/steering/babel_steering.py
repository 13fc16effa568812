"""BabelSteering (arXiv 2608.16577): the reference language's refusal direction, added in every language.

    h' = h + c r,      r = mean harmful − mean harmless activation in the reference language

The paper's layers and coefficients were not found: both are parameters. Its own figures: +11 points of refused harmful
prompts in eight languages, +13 points of refused look-alikes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lingualign.methods.anchors import Anchors
from lingualign.methods.steering.states import Progress, SteeringSite, collect_states, manifest_of
from lingualign.models.load import model_fingerprint
from lingualign.steering import SteeredTokens, Steering, SteeringTerm

FAITHFULNESS = (
    "equal: a refusal direction of English safety data is added to activations of prompts in other languages",
    "unknown: layers, coefficients, token position, how the direction is made and scaled; here it is the difference of "
    "means at the last prompt token (arXiv 2406.11717), not normalised, in the block that LASA's rule names",
)


class BabelSteering:
    """Constant steering; the constructor only stores parameters, `fit` returns a `Steering`.

    Args:
        layers: block indices, or `auto` for the label-free rule of LASA (arXiv 2604.12710).
        layer_count: number of consecutive blocks when `layers` is `auto`.
        coefficient: c; 1 moves an activation as far as the mean harmful one is from the mean harmless one.
        site: `residual`, the stream before the block, or `mlp`, its MLP's output.
        tokens: which tokens are steered, see `Steering`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 1,
        coefficient: float = 1.0,
        site: SteeringSite = "residual",
        tokens: SteeredTokens = "all",
    ) -> None:
        self.layers = layers
        self.layer_count = layer_count
        self.coefficient = coefficient
        self.site = site
        self.tokens = tokens

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        anchors: Anchors,
        *,
        cache: Path | None = None,
        fingerprint: str = "",
        progress: Progress | None = None,
    ) -> Steering:
        """Reads the directions. The model is left as it was found. Arguments and errors as in `AlphaSteer.fit`."""
        started = time.monotonic()
        states = collect_states(
            model,
            tokenizer,
            anchors,
            layers=self.layers,
            layer_count=self.layer_count,
            site=self.site,
            cache=cache,
            fingerprint=fingerprint,
            progress=progress,
        )
        directions = {site: states.refusal_direction(site) for site in states.sites}
        manifest = {
            "method": "babel-steering",
            "citation": "arXiv 2608.16577",
            "faithfulness": list(FAITHFULNESS),
            "settings": dict(vars(self)),
            **manifest_of(anchors, states),
            "diagnostics": [
                {"layer": layer, "module": site.module, "direction_norm": float(directions[site].norm())}
                for layer, site in zip(states.chosen.layers, states.sites, strict=True)
            ],
            "seconds": {"total": round(time.monotonic() - started, 2)},
        }
        terms = {site: SteeringTerm.constant(self.coefficient * direction) for site, direction in directions.items()}
        return Steering(terms, model_fingerprint(model), self.tokens, manifest)
