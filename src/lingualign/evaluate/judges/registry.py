from __future__ import annotations

from lingualign.evaluate.judge import Judge, OfflineJudge


def make_judge(spec: str) -> Judge:
    assert spec == "ngram"
    return OfflineJudge()


def second_judge(spec: str | None) -> Judge | None:
    return None if spec in (None, "auto") else make_judge(str(spec))
