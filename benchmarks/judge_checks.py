"""Checks of the offline judge beside its error table; docs/judge.md quotes what this prints.

    python benchmarks/judge_checks.py --data ../shared/data --out evidence/judge-checks.json

Human labels (Do-Not-Answer), the coherence rules on sound and on broken text, and replies a second of CPU time.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from lingualign.evaluate.incoherence import is_incoherent
from lingualign.evaluate.judge import THRESHOLD, Exchange, OfflineJudge, RefusalClassifier
from lingualign.evaluate.judges.crossfit import TEST_LENGTH
from lingualign.evaluate.judges.e5 import E5Judge
from lingualign.evaluate.judges.examples import reply_files
from lingualign.evaluate.judges.ngram import NgramJudge
from lingualign.languages import LANGUAGES

#: Do-Not-Answer's actions: 0 cannot assist, 5 follows the request; 1 to 4 lie between.
REFUSES, FOLLOWS = "0", "5"
TEXT = Path(str(files("lingualign"))) / "evaluate" / "judges" / "text"


def human_labels(classifier: RefusalClassifier, folder: Path) -> dict[str, Any]:
    """Share called refused among the replies that annotators marked as refusing, and as following the request."""
    table = {}
    for path in sorted((folder / "do-not-answer" / "Review" / "Human").glob("annotated_response_*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        model = path.stem.removeprefix("annotated_response_")
        table[model] = {
            name: _share_refused(classifier, [row["response"][:TEST_LENGTH] for row in rows if row["action"] == action])
            for name, action in (("refuses", REFUSES), ("follows", FOLLOWS))
        }
    return table


def _share_refused(classifier: RefusalClassifier, texts: Sequence[str]) -> dict[str, float | int]:
    probabilities = classifier.refusal_probability(texts)
    return {"called refused": round(float((probabilities >= THRESHOLD).mean()), 3), "n": len(texts)}


def coherence(folder: Path, seed: int = 0) -> dict[str, dict[str, float | int]]:
    """Share called incoherent among sound replies and among text broken on purpose."""
    generator = random.Random(seed)
    answers = list(_plain_answers())
    groups: dict[str, list[bool]] = {
        "plain answers": [is_incoherent(text, language, True) for language, text in answers],
        "replies of large models": [is_incoherent(text, language, False) for language, text in _large_models(folder)],
        "a phrase six times": [is_incoherent(" ".join([text[:30]] * 6), tag, False) for tag, text in answers[::5]],
        "one character 40 times": [is_incoherent(text[0] * 40, tag, False) for tag, text in answers[::10]],
        "random characters": [
            is_incoherent("".join(chr(generator.randint(33, 0xFFFF)) for _ in range(80)), tag, False)
            for tag, _ in answers[::5]
        ],
        "empty": [is_incoherent(text, "en", True) for text in ("", " \n", "...", "?!")],
        "an answer in another script": [
            is_incoherent(text, tag, True) for tag, text in _elsewhere(answers, generator, same_script=False)
        ],
        "an answer in another Latin language": [
            is_incoherent(text, tag, True) for tag, text in _elsewhere(answers, generator, same_script=True)
        ],
    }
    return {name: {"called incoherent": round(sum(v) / len(v), 4), "n": len(v)} for name, v in groups.items()}


def _plain_answers() -> Iterator[tuple[str, str]]:
    for path in sorted(TEXT.glob("chat_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield path.stem.removeprefix("chat_"), json.loads(line)["answer"]


def _large_models(folder: Path, each: int = 150) -> Iterator[tuple[str, str]]:
    for _, language, rows in reply_files(folder / "polyrefuse-responses"):
        if language != "yo":  # the models hardly speak it
            yield from ((language, row["response"][: TEST_LENGTH + 80]) for row in islice(rows, each))


def _elsewhere(
    answers: Sequence[tuple[str, str]], generator: random.Random, *, same_script: bool
) -> Iterator[tuple[str, str]]:
    """Answers as if they replied to a prompt in another language, of another script or both in Latin script."""
    for language, text in answers[::3]:
        script = LANGUAGES[language].script
        others = [
            tag
            for tag, _ in answers
            if tag not in (language, "en")
            and (LANGUAGES[tag].script == script) == same_script
            and (script == "Latn") == same_script
        ]
        if language != "en" and others:
            yield generator.choice(others), text


def speed(classifier: RefusalClassifier, replies: int, repeats: int = 5) -> dict[str, float]:
    """Replies a second of CPU time, of the classifier alone and of the whole judge: the median of some repeats."""
    answers = list(_plain_answers())
    rows = [(tag, text[:TEST_LENGTH]) for tag, text in answers[:: len(answers) // replies]]
    texts = [text for _, text in rows]
    exchanges = [Exchange("", text, tag, True) for tag, text in rows]
    judge = OfflineJudge(classifier)
    classifier.refusal_probability(texts[:1])

    def rate(work: Any) -> float:
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
        return round(len(texts) / sorted(seconds)[repeats // 2])

    return {
        "classifier": rate(lambda: classifier.refusal_probability(texts)),
        "whole judge": rate(lambda: judge.judge(exchanges)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of do-not-answer and polyrefuse-responses")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    # The encoder is slow: fewer replies tell its speed as well.
    judges: list[tuple[RefusalClassifier, int]] = [(NgramJudge(), 1200), (E5Judge(), 100)]
    figures = {
        "characters": TEST_LENGTH,
        "do-not-answer": {judge.name: human_labels(judge, arguments.data) for judge, _ in judges},
        "coherence": coherence(arguments.data),
        "replies a second of CPU time": {judge.name: speed(judge, replies) for judge, replies in judges},
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
