"""Do the intervals hold what they promise? A seeded simulation; docs/measurement.md quotes what this prints.

    python benchmarks/coverage.py --out evidence/coverage.json

Model: a request is refused in language l when a latent normal variable passes a threshold,

    y_il = 1[ sqrt(2) Φ⁻¹(π_l) + u_i + e_il > 0 ],    u_i, e_il ~ N(0, 1),

so that the marginal rate is π_l exactly and the latent values of one request's translations are correlated by one half.
After the edit π_l is another one, u_i the same, and e_il correlated with its old value by 0.8. A judge with the
sensitivity and specificity of our table calls each reply, with errors of its own before and after; the intervals know
that judge only through a finite labelled sample, drawn anew each time.

The second part feeds simulated audits to `verdict.compare`: how often does an edit that changes nothing get a
significant verdict, and how often is a true change found?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from lingualign.evaluate.correction import JudgeError, corrected_interval, corrected_mean_interval, judge_errors
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.statistics import clustered_bootstrap, paired_difference_interval, wilson_interval
from lingualign.evaluate.verdict import compare, is_significant
from lingualign.runs import write_json

#: The languages of the built-in prompts other than English.
LANGUAGES = ("ar", "bn", "de", "es", "he", "id", "it", "ja", "ko", "sw", "th", "vi", "zh")
SEEDS = (20, 42, 60, 150)
#: True rates before the edit from the first language to the last; afterwards they are higher by GAIN.
RATES = {"low": (0.02, 0.15), "mid": (0.2, 0.7), "high": (0.75, 0.95)}
GAIN = {"low": 0.1, "mid": 0.2, "high": 0.04}
#: Correlation of a reply's own part before and after.
PERSISTENCE = 0.8
#: Bootstrap samples. Fewer than the package takes: the limits are noisier here, the coverage if anything lower.
SAMPLES = 1000

Calls = npt.NDArray[np.bool_]
Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """One setting of the simulation.

    Attributes:
        rates: `low`, `mid` or `high`.
        seeds: requests, each in all languages.
        labels: `few` (20 to 500 labelled replies of either class, by language) or `table` (as many as our judge has).
    """

    rates: str
    seeds: int
    labels: str = "few"

    @property
    def before(self) -> Rates:
        return np.linspace(*RATES[self.rates], len(LANGUAGES))

    @property
    def after(self) -> Rates:
        return self.before + GAIN[self.rates]

    @property
    def name(self) -> str:
        return f"{self.rates}, {self.seeds} seeds, {self.labels} labels"


@cache
def judge() -> tuple[JudgeError, ...]:
    """The measured errors of the offline judge, taken for the truth."""
    measured = json.loads((files("lingualign.evaluate.judges") / "ngram_error.json").read_text(encoding="utf-8"))
    table = judge_errors({language: measured["languages"][language]["all"] for language in LANGUAGES})
    return tuple(table[language] for language in LANGUAGES)


def judge_rates() -> tuple[Rates, Rates]:
    """Sensitivity and specificity by language."""
    return np.array([error.sensitivity for error in judge()]), np.array([error.specificity for error in judge()])


def refusals(
    generator: np.random.Generator, seeds: int, before: Rates, after: Rates, persistence: float = PERSISTENCE
) -> tuple[Calls, Calls]:
    """(seeds, languages) true refusals before and after."""
    shape = (seeds, len(before))
    request = generator.normal(size=(seeds, 1))
    own = generator.normal(size=shape)
    later = persistence * own + np.sqrt(1 - persistence**2) * generator.normal(size=shape)
    first, second = (np.sqrt(2) * norm.ppf(rates) + request for rates in (before, after))
    return first + own > 0, second + later > 0


def calls(generator: np.random.Generator, refused: Calls) -> Calls:
    """What the judge makes of true refusals."""
    sensitivity, specificity = judge_rates()
    return generator.random(refused.shape) < np.where(refused, sensitivity, 1 - specificity)


def labelled(generator: np.random.Generator, labels: str) -> list[JudgeError]:
    """What a labelled sample says of the judge in each language."""
    few = np.geomspace(20, 500, len(LANGUAGES)).round().astype(int)
    found = []
    for place, truth in enumerate(judge()):
        # Languages with few labelled refusals have many labelled answers and the other way round.
        sizes = (few[place], few[-1 - place]) if labels == "few" else (truth.refused, truth.others)
        found.append(
            JudgeError(
                int(sizes[0]),
                int(generator.binomial(sizes[0], truth.sensitivity)),
                int(sizes[1]),
                int(generator.binomial(sizes[1], truth.specificity)),
            )
        )
    return found


def apparent(rates: Rates) -> Rates:
    """The share that the judge calls refused where the true rate is `rates`."""
    sensitivity, specificity = judge_rates()
    return rates * sensitivity + (1 - rates) * (1 - specificity)


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def share_held(intervals: Sequence[tuple[float, float]], truths: Rates) -> float:
    return float(np.mean([holds(*pair) for pair in zip(intervals, truths, strict=True)]))


def replicate(generator: np.random.Generator, scenario: Scenario) -> dict[str, float]:
    """One simulated pair of audits: for each interval the share of languages whose truth it holds; for means 0 or 1."""
    before, after = (
        calls(generator, refused) for refused in refusals(generator, scenario.seeds, scenario.before, scenario.after)
    )
    errors = labelled(generator, scenario.labels)
    seen_before, seen_after = apparent(scenario.before), apparent(scenario.after)
    difference = after.astype(float) - before
    counts = after.sum(axis=0).tolist()
    wilson = [wilson_interval(count, scenario.seeds) for count in counts]
    paired = [newcombe(was, now) for was, now in zip(before.T, after.T, strict=True)]
    corrected = [corrected_interval(count, scenario.seeds, error) for count, error in zip(counts, errors, strict=True)]
    return {
        "rate, Wilson": share_held(wilson, seen_after),
        "difference, Newcombe": share_held(paired, seen_after - seen_before),
        "corrected rate, Lang-Reiczigel": share_held(corrected, scenario.after),
        "mean difference, bootstrap": holds(
            clustered_bootstrap(difference, SAMPLES), (seen_after - seen_before).mean()
        ),
        "corrected mean difference": holds(
            corrected_mean_interval(difference, errors, is_difference=True, samples=SAMPLES),
            (scenario.after - scenario.before).mean(),
        ),
        "corrected mean rate": holds(
            corrected_mean_interval(after.astype(float), errors, is_difference=False, samples=SAMPLES),
            scenario.after.mean(),
        ),
    }


def newcombe(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> tuple[float, float]:
    both, lost = int((before & after).sum()), int((before & ~after).sum())
    gained = int((after & ~before).sum())
    return _newcombe(both, lost, gained, len(before) - both - lost - gained)


@cache
def _newcombe(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """The interval from the four counts: simulated columns repeat them often."""
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return paired_difference_interval(before, after)


def coverage(scenario: Scenario, replications: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Coverage of each 95% interval with its own 95% Monte Carlo interval."""
    generator = np.random.default_rng([seed, scenario.seeds, *scenario.rates.encode(), *scenario.labels.encode()])
    rows = [replicate(generator, scenario) for _ in range(replications)]
    table = {}
    for name in rows[0]:
        shares = np.array([row[name] for row in rows], dtype=float)
        margin = 1.96 * shares.std() / np.sqrt(replications)
        table[name] = {"coverage": float(shares.mean()), "margin": float(margin)}
    return table


def audits(generator: np.random.Generator, seeds: int, gain: float) -> tuple[list[Reply], list[Reply]]:
    """Judged replies before and after, 3% of them incoherent."""
    before = np.linspace(0.1, 0.7, len(LANGUAGES))
    pair = []
    for refused in refusals(generator, seeds, before, before + gain):
        called = calls(generator, refused)
        broken = generator.random(called.shape) < 0.03
        pair.append(
            [
                Reply(
                    f"s{row}",
                    language,
                    "harmful",
                    "",
                    1,
                    True,
                    "incoherent" if broken[row, column] else "refused" if called[row, column] else "answered",
                    0.5,
                    language,
                )
                for column, language in enumerate(LANGUAGES)
                for row in range(seeds)
            ]
        )
    return pair[0], pair[1]


def verdicts(runs: int, seeds: int, gain: float, seed: int = 0) -> dict[str, float]:
    """What `compare` says of simulated edits.

    Returns:
        Shares of runs: `language` (a language significant after Holm), `mean` (its interval leaves out zero), `either`;
        and `languages`, the share of languages that are significant after Holm.
    """
    generator = np.random.default_rng([seed, seeds, round(1000 * gain)])
    rows = []
    for _ in range(runs):
        effect = compare(*audits(generator, seeds, gain)).harmful_refusal
        assert effect.mean is not None
        significant = [is_significant(change) for change in effect.changes]
        low, high = effect.mean.interval
        rows.append((any(significant), low > 0 or high < 0, np.mean(significant)))
    language, mean, languages = np.array(rows, dtype=float).T
    return {
        "language": float(language.mean()),
        "mean": float(mean.mean()),
        "either": float(np.maximum(language, mean).mean()),
        "languages": float(languages.mean()),
    }


def scenarios() -> Iterator[Scenario]:
    for rates in RATES:
        for seeds in SEEDS:
            yield Scenario(rates, seeds)
    yield Scenario("mid", 42, "table")


def measure(replications: int, runs: int, settings: Sequence[Scenario]) -> dict[str, Any]:
    """Everything that this benchmark finds."""
    return {
        "replications": replications,
        "runs": runs,
        "coverage": [{**asdict(scenario), "intervals": coverage(scenario, replications)} for scenario in settings],
        "verdicts": [
            {"seeds": seeds, "gain": gain, **verdicts(runs, seeds, gain)}
            for seeds, gain in ((20, 0.0), (42, 0.0), (60, 0.0), (42, 0.1), (42, 0.2))
        ],
    }


def show(figures: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Coverage of 95% intervals, {figures['replications']} replications")
    table.add_column("scenario")
    for name in figures["coverage"][0]["intervals"]:
        table.add_column(name, justify="right")
    for row in figures["coverage"]:
        shown = [f"{cell['coverage']:.3f} ± {cell['margin']:.3f}" for cell in row["intervals"].values()]
        table.add_row(Scenario(row["rates"], row["seeds"], row["labels"]).name, *shown)
    console.print(table)
    for row in figures["verdicts"]:
        console.print(
            f"true change {row['gain']:+.1f}, {row['seeds']} seeds, {figures['runs']} runs: "
            f"a language significant after Holm {row['language']:.3f}, mean {row['mean']:.3f}, "
            f"either {row['either']:.3f}; share of languages {row['languages']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    # The matrices are small: threads would only wait for each other.
    with threadpool_limits(1):
        figures = measure(arguments.replications, arguments.runs, list(scenarios()))
    show(figures, Console(width=180))
    if arguments.out:
        write_json(arguments.out, json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4)))


if __name__ == "__main__":
    main()
