"""The audit: every prompt answered by the engine and judged, batch by batch, resumable."""

from __future__ import annotations

from lingualign.data.schema import PromptSet
from lingualign.errors import FingerprintMismatch
from lingualign.evaluate.engine import Engine
from lingualign.evaluate.judge import Exchange, Judge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.events import Progress, silent


def run_audit(
    engine: Engine,
    judge: Judge,
    prompts: PromptSet,
    store: ReplyStore,
    *,
    progress: Progress = silent,
    stage: str = "audit",
) -> list[Reply]:
    """Judged replies to all prompts, in the prompts' order.

    Replies that the store holds are not generated again; each batch is judged and stored before the next is generated.

    Args:
        engine: answers the prompts.
        judge: decides on each reply; never learns the prompt's kind.
        prompts: what is asked.
        store: where replies are kept.
        progress: called with the number of prompts answered.
        stage: name of this audit in the progress.

    Raises:
        FingerprintMismatch: the store holds a reply to a prompt that is not asked.
    """
    replies = {reply.key: reply for reply in store.load()}
    if strange := replies.keys() - {prompt.key for prompt in prompts}:
        kind, seed_id, language = min(strange)
        raise FingerprintMismatch(
            f"{store.path} holds replies to other prompts (first: {kind} {seed_id} in {language}); "
            "use another --out folder, or delete this one"
        )
    open_prompts = [prompt for prompt in prompts if prompt.key not in replies]
    progress(stage, len(replies), len(prompts))
    for indices, raw_replies in engine.generate([prompt.text for prompt in open_prompts]) if open_prompts else ():
        asked = [open_prompts[index] for index in indices]
        judgements = judge.judge(
            [
                Exchange(prompt.text, raw.text, prompt.language, raw.finished)
                for prompt, raw in zip(asked, raw_replies, strict=True)
            ]
        )
        batch = [
            Reply(
                seed_id=prompt.seed_id,
                language=prompt.language,
                kind=prompt.kind,
                text=raw.text,
                tokens=raw.tokens,
                finished=raw.finished,
                outcome=judgement.outcome,
                score=judgement.score,
                reply_language=judgement.reply_language,
                unsafe=judgement.unsafe,
            )
            for prompt, raw, judgement in zip(asked, raw_replies, judgements, strict=True)
        ]
        store.append(batch)
        replies.update((reply.key, reply) for reply in batch)
        progress(stage, len(replies), len(prompts))
    return [replies[prompt.key] for prompt in prompts]
