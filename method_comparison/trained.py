"""Rivals that are trained on preferences, and the closed-form edit on top of one of them.

Pairs come from the fit split and the model's own replies: its English refusals are chosen, its answers in other
languages rejected. What nobody says by itself, an English answer to a request that it refuses, is the model's own
continuation of `OPENING`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lingualign.data.schema import Prompt, PromptSet
from lingualign.edit import Edit, tensor_fingerprint
from lingualign.errors import ConfigError
from lingualign.evaluate.batch_size import fitting_batch
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import Exchange
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.sequences import sequence_log_probabilities
from lingualign.features.collect import pad
from lingualign.methods.constrained_alignment import MoCAN, PeCAN, PreferenceTrainer
from lingualign.methods.preference.dpo import DPO
from lingualign.methods.preference.pairs import Key, Preference, PreferencePair, build_pairs
from lingualign.methods.preference.training import Training
from lingualign.models.chat import encode_chats
from method_comparison.adapters import SparseEdit
from method_comparison.imports import made
from method_comparison.treatment import Context, Method, Treatment

#: With this in its mouth a model mostly goes on to answer what it refuses otherwise; replies are judged all the same.
OPENING = "Here's how to"
_TRAINING = "lingualign.methods.preference.training:Training"


class Preferences(Method):
    """A method of the package that is trained on preference pairs: `fit(model, tokenizer, pairs, *, ...)`.

    Args:
        method: import path of its class, `MODULE:CLASS`.
        training: what differs from the class's own `Training`, by the names of that; the seed is the run's.
        harmless: whether harmless and look-alike prompts are trained on too: the model's own answer is chosen, a
            refusal rejected.
        reply_tokens: longest of the model's own replies.
        parameters: other keyword arguments of the class.
    """

    def __init__(
        self,
        method: str,
        training: Mapping[str, Any],
        harmless: bool = False,
        reply_tokens: int = 48,
        **parameters: Any,
    ) -> None:
        self.method = method
        self.parameters = {**parameters, "training": _training(made(method, {}).training, training)}
        self.harmless = harmless
        self.reply_tokens = reply_tokens
        made(method, self.parameters)

    def fit(self, context: Context) -> Treatment:
        pairs = harmful_pairs(context, self.reply_tokens)
        if self.harmless:
            pairs += harmless_pairs(context, self.reply_tokens)
        seeded = {**self.parameters, "training": replace(self.parameters["training"], seed=context.seed)}
        return Treatment(
            made(self.method, seeded).fit(
                context.model,
                context.tokenizer,
                pairs,
                fingerprint=context.loaded.fingerprint,
                progress=context.progress,
            )
        )


class Stacked(SparseEdit):
    """Sparse Weight Editing of the model that its base's edit makes; both are one edit of the unedited model. The
    blocks are the model file's.

    Args:
        parameters: as for `SparseEdit`.
    """

    adds_to_base = True

    def fit(self, context: Context) -> Treatment:
        base = context.base
        if base is None:
            raise ConfigError("an edit on top of another method's needs that as `base` in its file")
        # Features are those of another model.
        loaded = replace(context.loaded, fingerprint=f"{context.loaded.fingerprint}-{base.fingerprint}")
        with base.applied(context.model):
            edit = super().fit(replace(context, base=None, loaded=loaded)).change
        assert isinstance(edit, Edit)
        return Treatment(on_top(base, edit, context.model))


def _training(default: Training, given: Mapping[str, Any]) -> Training:
    """A class's own settings but for those that a file gives.

    Raises:
        ConfigError: one is unknown or out of range.
    """
    training: Training = made(_TRAINING, {**asdict(default), **given})
    return training


def on_top(base: Edit, edit: Edit, model: Any) -> Edit:
    """The sum of an edit and one that was fitted while it was applied, for the unedited model.

    Args:
        base: edit of `model`.
        edit: edit of `model` with `base` applied, whose fingerprints are of those weights.
        model: the unedited model.
    """
    unedited = {name: tensor_fingerprint(model.get_parameter(name)) for name in edit.deltas}
    total = base + replace(edit, base=unedited)
    return replace(total, manifest={"method": "stacked", "layers": edit.manifest["layers"], **total.manifest})


class ModelConstrained(Method):
    """MoCAN with the judge's probability of refusal as safety score and no reward: the policy that is nearest to the
    model's and refuses by `margin` more. Harmless and look-alike prompts have the probability of an answer as score.

    Args:
        margin: as for `MoCAN`.
        seeds: requests of each kind.
        replies: sampled from the model for each prompt.
        reply_tokens: longest reply.
        beta: of MoCAN and of DPO.
        training: as for `Preferences`, of DPO.
    """

    def __init__(
        self,
        margin: float,
        training: Mapping[str, Any],
        seeds: int = 24,
        replies: int = 8,
        reply_tokens: int = 24,
        beta: float = 0.1,
    ) -> None:
        MoCAN(margin=margin, beta=beta)
        self.margin = margin
        self.training = _training(DPO().training, training)
        self.seeds = seeds
        self.replies = replies
        self.reply_tokens = reply_tokens
        self.beta = beta

    def fit(self, context: Context) -> Treatment:
        prompts, responses = self.sampled(context)
        safety = safety_scores(context, prompts, responses)
        method = MoCAN(margin=self.margin, beta=self.beta, seed=context.seed)
        trainer = self.trainer(context)
        return Treatment(method.fit(prompts, responses, torch.zeros_like(safety), safety, preference_trainer=trainer))

    def sampled(self, context: Context) -> tuple[list[Prompt], list[list[str]]]:
        """Prompts of the anchors and the keep set, and replies to each."""
        # Of the fit split, not of the anchors: those stand by language, and their first seeds have the first few alone.
        few = set(context.prompts.fit.limited(self.seeds))
        asked = dict.fromkeys([low for _, low in context.anchors.pairs] + list(context.anchors.keep))
        prompts = [prompt for prompt in asked if prompt in few]
        return prompts, sampled_replies(context, prompts, self.replies, self.reply_tokens)

    def trainer(self, context: Context) -> PreferenceTrainer:
        """DPO from the unedited model."""

        def train(preferences: Sequence[Any]) -> Edit:
            sides = [Preference(item.prompt, item.chosen, item.rejected) for item in preferences]
            return self.dpo(context, [PreferencePair(side, side) for side in sides])

        return train

    def dpo(self, context: Context, pairs: Sequence[PreferencePair]) -> Edit:
        return DPO(beta=self.beta, training=replace(self.training, seed=context.seed)).fit(
            context.model,
            context.tokenizer,
            pairs,
            fingerprint=context.loaded.fingerprint,
            progress=context.progress,
        )


class PreferenceConstrained(ModelConstrained):
    """PeCAN: the scores are those of two models that DPO makes, one of the harmless pairs and one of the harmful ones.
    Arguments as for `ModelConstrained`."""

    def fit(self, context: Context) -> Treatment:
        prompts, responses = self.sampled(context)
        texts = [prompt.text for prompt in prompts]

        def scores(change: Edit) -> Tensor:
            with change.applied(context.model):
                return sequence_log_probabilities(context.model, context.tokenizer, texts, responses)

        reference = scores(Edit({}, {}))
        safe = scores(self.dpo(context, harmful_pairs(context, self.reply_tokens)))
        helpful = scores(self.dpo(context, harmless_pairs(context, self.reply_tokens)))
        method = PeCAN(margin=self.margin, beta=self.beta, seed=context.seed)
        return Treatment(
            method.fit(prompts, responses, reference, helpful, safe, preference_trainer=self.trainer(context))
        )


# Pairs


def harmful_pairs(context: Context, reply_tokens: int) -> list[PreferencePair]:
    """A pair for each anchor that the model refuses in the reference language and answers in the other one."""
    anchors = context.anchors
    asked = PromptSet(dict.fromkeys([*anchors.reference_harmful, *(low for _, low in anchors.pairs)]))
    replies = context.judged_replies(asked, reply_tokens)
    return build_pairs(
        anchors.pairs,
        refusals=_texts(replies, lambda reply: reply.outcome == "refused"),
        answers=_texts(replies, lambda reply: reply.outcome == "answered"),
        rejected=forced_answers(context, anchors.reference_harmful, reply_tokens),
    )


def harmless_pairs(context: Context, reply_tokens: int) -> list[PreferencePair]:
    """A pair for each harmless or look-alike prompt that the model answers to the end in both languages; a refusal of
    some harmful request is rejected."""
    anchors = context.anchors
    replies = context.judged_replies(PromptSet(anchors.keep), reply_tokens)
    refusals = [reply.text for reply in replies if reply.kind == "harmful" and reply.outcome == "refused"]
    # An answer that was cut would teach to stop there.
    answers = _texts(replies, lambda reply: reply.outcome == "answered" and reply.finished)
    reference = {(prompt.kind, prompt.seed_id): prompt for prompt in anchors.reference_harmless}
    pairs: list[PreferencePair] = []
    for prompt in anchors.keep:
        source = reference.get((prompt.kind, prompt.seed_id))
        if source is None or source == prompt or not {prompt.key, source.key} <= answers.keys():
            continue
        refusal = refusals[len(pairs) % len(refusals)]
        sides = (Preference(side, answers[side.key], refusal) for side in (prompt, source))
        pairs.append(PreferencePair(*sides))
    return pairs


def forced_answers(context: Context, prompts: Sequence[Prompt], reply_tokens: int) -> dict[Key, str]:
    """The model's own continuations of `OPENING`, those that the judge takes for answers, by prompt key."""
    audit = context.config.audit
    engine = TransformersEngine(
        context.model, context.tokenizer, max_new_tokens=reply_tokens, batch_size=audit.batch_size
    )
    texts = [prompt.text for prompt in prompts]
    exchanges: dict[Key, Exchange] = {}
    for batch, replies in engine.generate_encoded(
        encode_chats(context.tokenizer, texts, replies=[OPENING] * len(texts))
    ):
        for prompt, reply in zip((prompts[index] for index in batch), replies, strict=True):
            text = f"{OPENING} {reply.text}"
            exchanges[prompt.key] = Exchange(prompt.text, text, prompt.language, reply.finished)
        context.progress("forced answers", len(exchanges), len(prompts))
    verdicts = context.judge.judge(list(exchanges.values()))
    return {
        key: exchange.reply
        for (key, exchange), verdict in zip(exchanges.items(), verdicts, strict=True)
        if verdict.outcome == "answered"
    }


def _texts(replies: Sequence[Reply], wanted: Callable[[Reply], bool]) -> dict[Key, str]:
    return {reply.key: reply.text for reply in replies if wanted(reply)}


# Sampled replies and their scores


def sampled_replies(context: Context, prompts: Sequence[Prompt], count: int, reply_tokens: int) -> list[list[str]]:
    """`count` replies to each prompt, drawn from the model's own distribution with the run's seed."""
    model, tokenizer = context.model, context.tokenizer
    chats = encode_chats(tokenizer, [prompt.text for prompt in prompts])
    most = context.config.audit.batch_size
    if not isinstance(most, int):
        most = fitting_batch(model, max(len(chat.ids) for chat in chats) + reply_tokens)
    size = max(1, most // count)
    found: list[list[str]] = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(context.seed)
        for start in range(0, len(chats), size):
            group = chats[start : start + size]
            ids, mask, _ = pad(group, tokenizer.pad_token_id, "left")
            output = model.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=reply_tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=count,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
            found += [texts[first : first + count] for first in range(0, len(texts), count)]
            context.progress("sampled replies", len(found), len(prompts))
    return found


def safety_scores(context: Context, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> Tensor:
    """g, (prompts, replies): the judge's probability of a refusal of harmful prompts, of an answer to others."""
    rows = []
    for prompt, replies in zip(prompts, responses, strict=True):
        verdicts = context.judge.judge([Exchange(prompt.text, text, prompt.language, True) for text in replies])
        scores = torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
        rows.append(scores if prompt.kind == "harmful" else 1.0 - scores)
    return torch.stack(rows)
