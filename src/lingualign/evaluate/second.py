"""A second judge on the same replies: what the first one's verdicts are worth where nobody labelled any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lingualign.data.schema import PromptSet
from lingualign.evaluate.agreement import Agreement, agreement
from lingualign.evaluate.judge import Exchange, Judge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.events import Progress, silent

#: Replies judged before they are stored.
BATCH = 256


def judge_again(
    judge: Judge,
    replies: Sequence[Reply],
    prompts: PromptSet,
    store: ReplyStore,
    *,
    progress: Progress = silent,
    stage: str = "second judge",
) -> list[Reply]:
    """The replies with another judge's verdicts, in their order; resumes from the store.

    Args:
        judge: the other judge.
        replies: judged replies.
        prompts: what they answer.
        store: where the verdicts are kept; made for these replies.
        progress: called with the number of replies judged.
    """
    texts = {prompt.key: prompt.text for prompt in prompts}
    judged = {reply.key: reply for reply in store.load()}
    waiting = [reply for reply in replies if reply.key not in judged]
    progress(stage, len(judged), len(replies))
    for start in range(0, len(waiting), BATCH):
        batch = waiting[start : start + BATCH]
        verdicts = judge.judge(
            [Exchange(texts[reply.key], reply.text, reply.language, reply.finished) for reply in batch]
        )
        again = [
            replace(
                reply,
                outcome=verdict.outcome,
                score=verdict.score,
                reply_language=verdict.reply_language,
                unsafe=verdict.unsafe,
            )
            for reply, verdict in zip(batch, verdicts, strict=True)
        ]
        store.append(again)
        judged.update((reply.key, reply) for reply in again)
        progress(stage, len(judged), len(replies))
    return [judged[reply.key] for reply in replies]


def judges_agreement(first: Sequence[Reply], second: Sequence[Reply]) -> dict[str, Agreement]:
    """Agreement on refused or not, by language, over prompts of all kinds.

    The offline judges share their rules of coherence, so agreement on three outcomes would flatter them.

    Args:
        first, second: the same replies in the same order, with the verdicts of two judges.
    """
    found = {}
    for language in dict.fromkeys(reply.language for reply in first):
        pairs = [
            (one.outcome == "refused", other.outcome == "refused")
            for one, other in zip(first, second, strict=True)
            if one.language == language
        ]
        found[language] = agreement([one for one, _ in pairs], [other for _, other in pairs])
    return found
