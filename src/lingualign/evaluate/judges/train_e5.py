"""Trains the e5 judge and measures its error: `python -m lingualign.evaluate.judges.train_e5 --data FOLDER`.

A logistic regression on sentence embeddings, with the rows, variants, folds and weighting of the n-gram judge. It has
385 numbers to learn and embeddings are slow, so it learns from a sample of the rows, and each variant is embedded once:
variants are made within a fold, so that those of the other folds are training rows for it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from lingualign.evaluate.judges.crossfit import balanced_weights, cross_fitted, publish, training_arguments
from lingualign.evaluate.judges.e5 import E5Judge, embed, probability
from lingualign.evaluate.judges.examples import FOLDS, Example, labelled_replies
from lingualign.evaluate.judges.variants import augmented
from lingualign.runs import write_bytes

#: Most rows of a language, class and source that are trained on and, but for the test replies, measured on.
MOST_ROWS = 250
#: Chosen among 0.1, 0.3, 1, 10 by the log loss on the replies of one large model when trained on those of the other,
#: and the balanced accuracy on written rows held out.
_INVERSE_PENALTY = 1.0


def thinned(examples: Sequence[Example], most: int, seed: int) -> list[Example]:
    """All test replies, and of every other language, class and source at most `most` rows; in their order."""
    generator = random.Random(seed)
    cells: dict[tuple[str, bool, str], list[int]] = defaultdict(list)
    for place, row in enumerate(examples):
        cells[row.language, row.refused, row.source].append(place)
    kept: list[int] = []
    for (_, _, source), places in cells.items():
        kept += places if source == "test" or len(places) <= most else generator.sample(places, most)
    return [examples[place] for place in sorted(kept)]


def training_rows(examples: Sequence[Example], seed: int) -> list[Example]:
    """The variants of all rows but the test replies, made fold by fold."""
    return [
        row
        for fold in range(FOLDS)
        for row in augmented([row for row in examples if row.fold == fold and row.source != "test"], seed)
    ]


def fit(examples: Sequence[Example], embeddings: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
    """(direction of 384 weights, intercept), with every language and class weighing the same."""
    # Sentence embeddings of e5 lie in a narrow cone; without its axis the penalty falls on what tells them apart.
    centre = embeddings.mean(axis=0)
    regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    regression.fit(embeddings - centre, [row.refused for row in examples], sample_weight=balanced_weights(examples))
    direction = regression.coef_[0].astype(np.float32)
    return direction, float(regression.intercept_[0] - centre @ direction)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures and writes OUT (weights) and OUT's neighbour e5_error.json."""
    options = training_arguments(__doc__, "e5").parse_args(arguments)
    examples = thinned(labelled_replies(options.data, options.written), MOST_ROWS, options.seed)
    rows = training_rows(examples, options.seed)
    embeddings = embed([row.text for row in rows])

    def score(fold: int, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        chosen = [place for place, row in enumerate(rows) if row.fold != fold]
        direction, intercept = fit([rows[place] for place in chosen], embeddings[chosen])
        return probability(embed(texts), direction, intercept)

    error_file = options.out.with_name("e5_error.json")
    publish(E5Judge.name, cross_fitted(examples, score), error_file, options.verdicts)
    direction, intercept = fit(rows, embeddings)
    buffer = BytesIO()
    np.savez(buffer, direction=direction, intercept=np.float32(intercept))
    write_bytes(options.out, buffer.getvalue())


if __name__ == "__main__":
    main()
