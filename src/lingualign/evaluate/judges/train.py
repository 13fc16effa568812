"""Trains the n-gram judge and measures its error: `python -m lingualign.evaluate.judges.train --data FOLDER`.

The model is a logistic regression on n-grams scaled by their naive Bayes log-count ratios (Wang and Manning 2012,
ACL 90); regularisation then shrinks towards naive Bayes, which learns from few rows. The error comes from five-fold
cross-fitting. The weights that ship are then fitted on all training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from lingualign.evaluate.judges.crossfit import balanced_weights, cross_fitted, publish, training_arguments
from lingualign.evaluate.judges.examples import Example, labelled_replies
from lingualign.evaluate.judges.ngram import BUCKETS, NgramJudge, featurise
from lingualign.evaluate.judges.variants import augmented
from lingualign.runs import write_bytes

#: Chosen among 0.1, 0.3, 1, 3 on the replies of one large model when trained on those of the other, and on written rows
#: held out.
_INVERSE_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class Weights:
    table: npt.NDArray[np.float32]
    intercept: float


def fit(examples: Sequence[Example]) -> Weights:
    """The naive Bayes weighted logistic regression, in which every language and class weighs the same, and within them
    a source by the square root of its size."""
    owners, buckets = featurise([example.text for example in examples])
    sizes = np.bincount(owners, minlength=len(examples))
    refused = np.array([example.refused for example in examples])
    weights = balanced_weights(examples)
    # How often each n-gram occurs in either class, one added; a bucket that never occurs gets the ratio of the totals.
    seen = [
        1 + np.bincount(buckets, weights=np.where(refused == outcome, weights, 0.0)[owners], minlength=BUCKETS)
        for outcome in (True, False)
    ]
    ratio = np.log(seen[0] / seen[0].sum()) - np.log(seen[1] / seen[1].sum())
    # What one row alone has says nothing of others.
    ratio[np.bincount(buckets, minlength=BUCKETS) < 2] = 0.0
    values = ratio[buckets] / np.sqrt(np.maximum(sizes, 1))[owners]
    matrix = csr_matrix((values, (owners, buckets)), shape=(len(examples), BUCKETS))
    regression = LogisticRegression(C=_INVERSE_PENALTY, max_iter=300, tol=1e-3)
    regression.fit(matrix, refused, sample_weight=weights)
    return Weights((regression.coef_[0] * ratio).astype(np.float32), float(regression.intercept_[0]))


def save(weights: Weights, path: Path) -> None:
    """Writes the weights as float16, compressed."""
    buffer = BytesIO()
    np.savez_compressed(buffer, table=weights.table.astype(np.float16), intercept=np.float32(weights.intercept))
    write_bytes(path, buffer.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures and writes OUT (weights) and OUT's neighbour ngram_error.json."""
    options = training_arguments(__doc__, "ngram").parse_args(arguments)
    examples = labelled_replies(options.data, options.written)
    training = [example for example in examples if example.source != "test"]

    def score(fold: int, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        path = options.out.with_name(f"fold-{fold}.npz")
        save(fit(augmented([example for example in training if example.fold != fold], options.seed)), path)
        probabilities = NgramJudge(path).refusal_probability(texts)
        path.unlink()
        return probabilities

    error_file = options.out.with_name("ngram_error.json")
    publish(NgramJudge.name, cross_fitted(examples, score), error_file, options.verdicts)
    save(fit(augmented(training, options.seed)), options.out)


if __name__ == "__main__":
    main()
