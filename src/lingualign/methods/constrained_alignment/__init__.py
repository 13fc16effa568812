"""One-shot safety alignment by optimal dualization (Huang et al. 2024, arXiv 2405.19544): MoCAN and PeCAN.

The weight λ of safety against helpfulness is found before any training, as the minimiser of a closed-form dual on
scored replies of the unchanged model; then one ordinary preference training on pseudo-preferences.
"""

from lingualign.methods.constrained_alignment.methods import MoCAN, Multipliers, PeCAN
from lingualign.methods.constrained_alignment.preferences import (
    Preference,
    PreferenceTrainer,
    ResponsePair,
    pseudo_preferences,
)

__all__ = [
    "MoCAN",
    "Multipliers",
    "PeCAN",
    "Preference",
    "PreferenceTrainer",
    "ResponsePair",
    "pseudo_preferences",
]
