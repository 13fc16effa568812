"""Offline refusal judge: a linear model on the hashed character n-grams of a reply's head, in many languages.

Needs numpy only, so that a judged audit runs anywhere. `train.py` makes the weights; docs/judge.md tells how good they
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: Characters read of a reply: a refusal shows in its head.
HEAD = 160
#: Lengths of the n-grams.
ORDERS = (1, 2, 3, 4, 5)
#: Weights in the table; a power of two, so that the hash can be cut by a shift.
BUCKETS = 2**21
_SHIFT = np.uint64(64 - 21)
#: Odd 64-bit multipliers of the hash (Knuth's golden ratio, and that of MurmurHash's finaliser for the characters).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xFF51AFD7ED558CCD)
_BATCH = 512
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})

Indices = npt.NDArray[np.int64]


class NgramJudge:
    """Tells refusals from answers by the reply alone.

    The weights are read at the first use.

    Args:
        weights: an .npz of `train.py`; the one in the package when None.
    """

    name = "ngram-2"

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights

    def refusal_probability(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probability that each text is a refusal.

        Args:
            texts: replies, hostile ones included; only the head of each is read.

        Returns:
            (n,) float64 in [0, 1]; the model's prior for a text without characters.
        """
        table, intercept = _load(self.weights)
        scores = [np.full(0, intercept)]
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            owners, buckets = featurise(batch)
            sums = np.bincount(owners, weights=table[buckets], minlength=len(batch))
            sizes = np.bincount(owners, minlength=len(batch))
            scores.append(sums / np.sqrt(np.maximum(sizes, 1)) + intercept)
        return np.asarray(1 / (1 + np.exp(-np.concatenate(scores))))


def featurise(texts: Sequence[str]) -> tuple[Indices, Indices]:
    """Hashed n-grams of the texts, each counted once. The weight of each is 1 / sqrt(number of n-grams of its text).

    Returns:
        (owners, buckets): for every n-gram the index of its text, and its place in the table of weights; ascending.
    """
    heads = [_head(text) for text in texts]
    lengths = np.array([len(head) for head in heads], dtype=np.int64)
    # "surrogatepass": a lone surrogate is a code point like any other here.
    encoded = "".join(heads).encode("utf-32-le", "surrogatepass")
    characters = np.frombuffer(encoded, dtype=np.uint32).astype(np.uint64) + np.uint64(1)
    owner = np.repeat(np.arange(len(heads), dtype=np.uint64), lengths)
    found = []
    state = np.zeros_like(characters)
    # Every head starts with a space, so a batch is never shorter than its shortest n-grams; longer ones come out empty.
    for order in ORDERS:
        count = max(len(characters) - order + 1, 0)
        # The hash of an n-gram grows from that of its first n - 1 characters; unsigned products wrap.
        state = (state[:count] ^ characters[order - 1 :]) * _MIXER
        state ^= state >> np.uint64(29)
        whole = owner[:count] == owner[order - 1 :]
        bucket = (state[whole] + np.uint64(order)) * _GOLDEN >> _SHIFT
        found.append(owner[:count][whole] * np.uint64(BUCKETS) + bucket)
    pairs = np.unique(np.concatenate(found)).astype(np.int64)
    return pairs // BUCKETS, pairs % BUCKETS


def _head(text: str) -> str:
    """The head as the model sees it: case, spaces and apostrophes made alike, one space before the first character."""
    return " " + " ".join(text[: 4 * HEAD].translate(_APOSTROPHES).lower().split())[:HEAD]


@cache
def _load(path: Path | None) -> tuple[npt.NDArray[np.float32], float]:
    """(table of BUCKETS weights, intercept)."""
    source = path or files("lingualign.evaluate.judges") / "ngram.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["table"].astype(np.float32), float(arrays["intercept"])
