"""Log-probabilities of whole replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lingualign.errors import DataError, NumericalError
from lingualign.evaluate.utility.perplexity import LOGITS_PER_BATCH, logits_from
from lingualign.features.collect import batches_by_length, pad
from lingualign.models.chat import encode_chats


def sequence_log_probabilities(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    *,
    batch_logits: int = LOGITS_PER_BATCH,
) -> Tensor:
    """ln π(y|x), the sum over the reply's tokens, of M replies to each of N prompts. Shape (N, M), float64.

    The closing token is left out: a sampled reply may have been cut at the length limit. For an adapted model call this
    inside `edit.applied(model)`.

    Args:
        model, tokenizer: a causal LM with a chat template.
        prompts: what the user types.
        responses: M replies to each prompt.
        batch_logits: logits in memory at a time; results do not change beyond rounding.

    Raises:
        DataError: the prompts have no replies, or not equally many.
        NumericalError: the model's output is NaN or infinite.
    """
    samples = check_responses(prompts, responses)
    chats = encode_chats(
        tokenizer,
        [prompt for prompt in prompts for _ in range(samples)],
        replies=[reply for group in responses for reply in group],
    )
    device = next(model.parameters()).device
    scores = torch.zeros(len(chats), dtype=torch.float64)
    for batch in batches_by_length(chats, max(1, batch_logits // model.config.get_text_config().vocab_size)):
        group = [chats[index] for index in batch]
        ids, mask, _ = pad(group, tokenizer.pad_token_id or 0, "right")
        ids, mask = ids.to(device), mask.to(device)
        first = min(chat.prompt_length for chat in group) - 1
        with torch.inference_mode():
            logits = logits_from(model, ids, mask, first)
            for row, (index, chat) in enumerate(zip(batch, group, strict=True)):
                start, stop = chat.prompt_length, len(chat.ids)
                rows = logits[row, start - 1 - first : stop - 1 - first].float().log_softmax(-1)
                scores[index] = float(rows.gather(1, ids[row, start:stop, None]).double().sum())
    if not bool(torch.isfinite(scores).all()):
        raise NumericalError("the model gives NaN or infinite probabilities; load it in float32 and check its weights")
    return scores.reshape(len(prompts), samples)


def check_responses(prompts: Sequence[Any], responses: Sequence[Sequence[str]]) -> int:
    """The number of replies per prompt.

    Raises:
        DataError: there are none, or not equally many for each prompt.
    """
    counts = {len(group) for group in responses}
    if len(responses) != len(prompts) or len(counts) != 1 or counts == {0}:
        raise DataError(
            f"{len(prompts)} prompts have replies in numbers {sorted(counts)}; give every prompt equally many replies"
        )
    return counts.pop()
