"""AlphaSteer (Sheng et al., ICLR 2026, arXiv 2506.07022): a linear map that makes a refusal direction out of harmful
activations and nothing out of benign ones.

    h' = h + λ Δ h,      Δ = Δ̃P,      Δ̃ = R H_mᵀ Pᵀ (P H_m H_mᵀ Pᵀ + α P Pᵀ)⁺

H_m: harmful activations in columns; P: projector on the directions that benign activations use least; R: the refusal
direction r once for each column. As R repeats one column, Δ = r vᵀ has rank one, v being the ridge regression of 1 on
the projected activations: v says how harmful an activation looks, r what to add.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from lingualign.errors import ConfigError
from lingualign.methods.anchors import Anchors
from lingualign.methods.steering.states import Progress, SteeringSite, collect_states, manifest_of
from lingualign.models.load import model_fingerprint
from lingualign.solvers.key_value import in_subspace
from lingualign.solvers.null_space import smallest_basis
from lingualign.steering import SteeredTokens, Steering, SteeringTerm

FAITHFULNESS = (
    "equal: the closed form, the null space as a share of the directions, activations of the last prompt token before "
    "a block, several blocks at once, the vector of the prompt's last token added to all of the prompt's",
    "differs: r is the mean difference of harmful and harmless prompts in the reference language; the paper takes "
    "refused and answered prompts",
    "differs: harmful and benign activations are those of the anchors and the keep set, in all languages",
    "unknown: published λ and α; their defaults here are what copies of the code use (λ up to 0.5, α = 10)",
)


class AlphaSteer:
    """Null-space steering; the constructor only stores parameters, `fit` returns a `Steering`.

    Args:
        layers: block indices, or `auto` for the label-free rule of LASA (arXiv 2604.12710). The authors steer ten
            blocks of Llama-3.1-8B between 8 and 19.
        layer_count: number of consecutive blocks when `layers` is `auto`.
        nullspace_ratio: share of the directions, those that benign activations use least, that count as null. The
            authors set 0.3 to 0.6 block by block.
        alpha: α > 0, ridge on sums over activations, so its meaning depends on their scale and number: where
            `harmful_gate` in the manifest's diagnostics is far below 1, it is too large.
        strength: λ.
        site: `residual` as published, or `mlp`, whose steering of all tokens `Steering.to_edit` folds into weights.
        tokens: which tokens are steered, see `Steering`; `prompt` in the authors' code, `all` in the equation.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 10,
        nullspace_ratio: float = 0.6,
        alpha: float = 10.0,
        strength: float = 0.5,
        site: SteeringSite = "residual",
        tokens: SteeredTokens = "prompt",
    ) -> None:
        self.layers = layers
        self.layer_count = layer_count
        self.nullspace_ratio = nullspace_ratio
        self.alpha = alpha
        self.strength = strength
        self.site = site
        self.tokens = tokens
        if not 0 < nullspace_ratio <= 1:
            raise ConfigError(f"nullspace_ratio is {nullspace_ratio}; it is a share, such as 0.6")
        if alpha <= 0:
            raise ConfigError(f"alpha is {alpha}; it must be positive, such as 10")

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
        """Solves for the steering. The model is left as it was found.

        Args:
            model, tokenizer: the base model.
            anchors: pairs and keep set of the fit split.
            cache: folder for collected features.
            fingerprint: identifies the model's weights in the cache.
            progress: called with (stage, done, total).

        Raises:
            ConfigError, DataError, NumericalError, UnsupportedModel: as raised by the parts.
        """
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
        terms = {}
        diagnostics = []
        for layer, site in zip(states.chosen.layers, states.sites, strict=True):
            harmful, benign = states.harmful[site].double(), states.benign[site].double()
            basis = smallest_basis(benign.T @ benign / len(benign), self.nullspace_ratio)
            ones = torch.ones(len(harmful), 1, dtype=torch.float64)
            fitted = in_subspace(harmful, ones, harmful[:0], basis, self.alpha)
            gate = fitted.in_factor @ fitted.out_factor.T
            direction = states.refusal_direction(site)
            terms[site] = SteeringTerm.linear(direction[:, None] * self.strength, gate)
            diagnostics.append(
                {
                    "layer": layer,
                    "module": site.module,
                    "null_directions": basis.shape[1],
                    "direction_norm": float(direction.norm()),
                    "harmful_gate": float((harmful @ gate).mean()),
                    "benign_gate": float((benign @ gate).square().mean().sqrt()),
                }
            )
        manifest = {
            "method": "alpha-steer",
            "citation": "arXiv 2506.07022",
            "faithfulness": list(FAITHFULNESS),
            "settings": dict(vars(self)),
            **manifest_of(anchors, states),
            "diagnostics": diagnostics,
            "seconds": {"total": round(time.monotonic() - started, 2)},
        }
        return Steering(terms, model_fingerprint(model), self.tokens, manifest)
