"""Means over the seeds of parallel texts, per language and over languages, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lingualign.evaluate.statistics import Interval, clustered_bootstrap


class _InLanguage(Protocol):
    @property
    def language(self) -> str: ...


_Row = TypeVar("_Row", bound=_InLanguage)


def by_language(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    """The rows of each language, in order of first appearance."""
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.language, []).append(row)
    return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95% bootstrap interval."""

    value: float
    interval: Interval

    def mapped(self, function: Callable[[float], float]) -> Estimate:
        """The estimate of an increasing function of the mean."""
        low, high = self.interval
        return Estimate(function(self.value), (function(low), function(high)))


class SeedTable:
    """One value for each text: rows are seeds, columns are languages.

    Args:
        values: by (language, seed_id); a seed may lack a language.

    Attributes:
        languages: in order of first appearance.
        array: (seeds, languages), NaN where a value is missing.
    """

    def __init__(self, values: Mapping[tuple[str, str], float]) -> None:
        self.languages = tuple(dict.fromkeys(language for language, _ in values))
        rows = {seed_id: row for row, seed_id in enumerate(dict.fromkeys(seed_id for _, seed_id in values))}
        self.array: npt.NDArray[np.float64] = np.full((len(rows), len(self.languages)), np.nan)
        for (language, seed_id), value in values.items():
            self.array[rows[seed_id], self.languages.index(language)] = value

    def by_language(self) -> dict[str, Estimate]:
        """The mean over the seeds of each language."""
        found = {}
        for place, language in enumerate(self.languages):
            column = self.array[:, [place]]
            found[language] = _estimate(column[~np.isnan(column[:, 0])])
        return found

    def mean(self) -> Estimate:
        """The mean over languages, each of the same weight; whole seeds are drawn again."""
        return _estimate(self.array)


def _estimate(values: npt.NDArray[np.float64]) -> Estimate:
    return Estimate(float(np.nanmean(values, axis=0).mean()), clustered_bootstrap(values))
