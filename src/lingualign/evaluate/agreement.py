"""How far two judges agree on the same replies, language by language."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from lingualign.evaluate.statistics import Interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two judges on n replies.

    Attributes:
        n: replies that both judged.
        observed: share with the same verdict.
        kappa: Cohen's κ, or None where one verdict is all there is: then nothing is left to agree on beyond chance.
        interval: 95% interval of κ; None with it.
    """

    n: int
    observed: float
    kappa: float | None
    interval: Interval | None


def agreement(first: Sequence[Hashable], second: Sequence[Hashable], confidence: float = 0.95) -> Agreement:
    """Observed agreement and Cohen's κ of two lists of verdicts on the same replies.

    Source: Cohen 1960, Educational and Psychological Measurement 20:37; the large-sample standard error of
    Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72:323, equation 13.

    Args:
        first, second: verdicts in the same order, at least one.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    n = len(first)
    if not n:
        raise ValueError("there are no verdicts to compare")
    joint = Counter(zip(first, second, strict=True))
    rows, columns = Counter(first), Counter(second)
    verdicts = rows.keys() | columns.keys()
    observed = sum(joint[verdict, verdict] for verdict in verdicts) / n
    expected = sum(rows[verdict] * columns[verdict] for verdict in verdicts) / n**2
    if math.isclose(expected, 1.0):
        return Agreement(n, observed, None, None)
    kappa = (observed - expected) / (1 - expected)
    diagonal = sum(
        joint[verdict, verdict] / n * (1 - (rows[verdict] + columns[verdict]) / n * (1 - kappa)) ** 2
        for verdict in verdicts
    )
    beside = (1 - kappa) ** 2 * sum(
        count / n * ((columns[one] + rows[other]) / n) ** 2 for (one, other), count in joint.items() if one != other
    )
    variance = (diagonal + beside - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    half_width = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(max(variance, 0.0))
    return Agreement(n, observed, kappa, (max(-1.0, kappa - half_width), min(1.0, kappa + half_width)))
