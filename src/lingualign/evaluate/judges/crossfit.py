"""What the training commands of the judges share: arguments, weighting of rows, and the error by cross-fitting.

Every reply of the error table is scored by weights that saw neither its prompt nor its text, and no reply of the test
model is ever trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lingualign.evaluate.judges.examples import FOLDS, HERE, TEST_MODEL, Example
from lingualign.runs import write_text

#: Characters that a test reply is cut to: about what an audit generates.
TEST_LENGTH = 120

ErrorTable = dict[str, dict[str, dict[str, float | int | None]]]
#: (fold, texts) -> (n,) probabilities of refusal, by weights that saw nothing of the fold.
Score = Callable[[int, Sequence[str]], npt.NDArray[np.float64]]


def training_arguments(description: str | None, judge: str) -> argparse.ArgumentParser:
    """The command line of a training command; `judge` is the stem of its files in the package."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds polyrefuse-responses, instruct-small"
    )
    parser.add_argument(
        "--written", type=Path, default=HERE / "text", help="folder with judge_LANG.jsonl, chat_LANG.jsonl"
    )
    parser.add_argument("--out", type=Path, default=HERE / f"{judge}.npz", help="file for the weights")
    parser.add_argument("--verdicts", type=Path, help="JSON file for the verdicts on the test replies")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def balanced_weights(examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    """(n,) weights of mean 1: every language and class weighs the same, and within them a source by the square root of
    its size."""
    cells = [(example.language, example.refused, example.source) for example in examples]
    counts = Counter(cells)
    roots: Counter[tuple[str, bool]] = Counter()
    for (language, outcome, _), count in counts.items():
        roots[language, outcome] += count**0.5
    weights = np.array([counts[cell] ** -0.5 / roots[cell[:2]] for cell in cells])
    return np.asarray(weights * (len(cells) / weights.sum()))


def cross_fitted(examples: Sequence[Example], score: Score) -> list[tuple[Example, bool]]:
    """Every row but the large models' replies to train on, in their order, with the verdict of weights that saw nothing
    of its group."""
    verdicts: dict[int, bool] = {}
    for fold in range(FOLDS):
        places = [place for place, row in enumerate(examples) if row.fold == fold and row.source != "replies"]
        texts = [examples[place].text[: TEST_LENGTH if examples[place].source == "test" else None] for place in places]
        verdicts.update(zip(places, (score(fold, texts) >= 0.5).tolist(), strict=True))
    return [(examples[place], verdicts[place]) for place in sorted(verdicts)]


def error_table(verdicts: Iterable[tuple[Example, bool]]) -> ErrorTable:
    """For each language and source (test, written, small, all): sensitivity, specificity, and how many rows of each."""
    rows = list(verdicts)
    table: ErrorTable = {}
    for language in sorted({example.language for example, _ in rows}):
        table[language] = {}
        for name in ("test", "written", "small", "all"):
            chosen = [
                (example.refused, verdict)
                for example, verdict in rows
                if example.language == language and name in (example.source, "all")
            ]
            if chosen:
                table[language][name] = _error(chosen)
    return table


def _error(pairs: Sequence[tuple[bool, bool]]) -> dict[str, float | int | None]:
    refused = [verdict for truth, verdict in pairs if truth]
    answered = [not verdict for truth, verdict in pairs if not truth]
    return {
        "sensitivity": round(sum(refused) / len(refused), 4) if refused else None,
        "specificity": round(sum(answered) / len(answered), 4) if answered else None,
        "refused": len(refused),
        "answered": len(answered),
    }


def publish(judge: str, verdicts: Sequence[tuple[Example, bool]], error_file: Path, verdict_file: Path | None) -> None:
    """Writes and prints the error table. The verdict file holds a string for each language of the test replies: one
    character a reply, 1 for refused, in the order of PolyRefuse's file."""
    table = error_table(verdicts)
    head = {"judge": judge, "test_model": TEST_MODEL, "test_length": TEST_LENGTH}
    write_text(error_file, json.dumps({**head, "languages": table}, indent=1) + "\n")
    if verdict_file:
        tests: dict[str, str] = {}
        for example, verdict in verdicts:
            if example.source == "test":
                tests[example.language] = tests.get(example.language, "") + str(int(verdict))
        write_text(verdict_file, json.dumps({**head, "languages": tests}, indent=1) + "\n")
    for language, sources in table.items():
        for name, error in sources.items():
            figures = " ".join(f"{key}={value}" for key, value in error.items())
            sys.stdout.write(f"{language:3} {name:8} {figures}\n")
