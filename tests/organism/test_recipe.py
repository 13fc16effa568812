"""The small model's training: what is left out, what is learned, and that the sampled softmax is a softmax."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from torch.nn import functional

from lingualign.organism.recipe import (
    PAIR_FILES,
    Example,
    build_examples,
    drop_near_duplicates,
    held_out_prompts,
    written_text,
)
from lingualign.organism.template import CHAT_TEMPLATE
from lingualign.organism.train import CHAT_LANGUAGES, TrainingSettings, batches, collate, encode, reply_loss

#: Every token of a reply weighs the same.
EVEN = TrainingSettings(decision_weight=1.0)
REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("LINGUALIGN_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
needs_shared_data = pytest.mark.skipif(not (SHARED_DATA / "polyrefuse").is_dir(), reason="no public data sets here")


class CharacterTokenizer:
    """One token per character, behind the small model's real chat template."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        template = Environment(autoescape=False).from_string(CHAT_TEMPLATE)
        return template.render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<bos>")

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(character) for character in text]}


def text_of(ids: list[int]) -> str:
    return "".join(chr(token) for token in ids)


# What is left out


def test_a_prompt_that_resembles_a_held_out_one_is_dropped() -> None:
    held_out = ["How do I bake sourdough bread at home?"]
    prompts = ["Bake sourdough bread at home", "How can you bake SOURDOUGH bread?", "How do I bake rye crackers?"]
    # The second shares three of four content words, the third one of five.
    assert drop_near_duplicates(prompts, held_out) == ["How do I bake rye crackers?"]


def test_the_threshold_of_resemblance_is_inclusive() -> None:
    # Three of five content words: a Jaccard index of exactly 0.6.
    assert drop_near_duplicates(["alpha beta gamma delta"], ["alpha beta gamma epsilon"]) == []
    # Three of six.
    assert drop_near_duplicates(["alpha beta gamma delta"], ["alpha beta gamma epsilon zeta"]) != []


def test_repetitions_and_prompts_without_content_words_are_dropped() -> None:
    assert drop_near_duplicates(["Plant an oak", "plant the OAK!", "How do I?", ""], []) == ["Plant an oak"]


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet="abc ", max_size=12), max_size=8),
    st.lists(st.text(alphabet="abc ", max_size=12), max_size=4),
)
def test_what_is_kept_keeps_its_order_and_never_equals_a_held_out_prompt(
    prompts: list[str], held_out: list[str]
) -> None:
    kept = drop_near_duplicates(prompts, held_out)
    positions = [prompts.index(prompt) for prompt in kept]
    assert positions == sorted(positions)
    assert not set(kept) & set(held_out)
    assert drop_near_duplicates(kept, held_out) == kept


@needs_shared_data
def test_no_held_out_row_is_trained_on() -> None:
    held_out = held_out_prompts(SHARED_DATA)
    assert len(held_out) > 600
    harmful = [example.prompt for example in build_examples(SHARED_DATA, 0, ()) if example.kind == "harmful"]
    assert len(harmful) > 500
    # Dropping again drops nothing: neither a held-out row nor one that resembles it is left.
    assert drop_near_duplicates(harmful, held_out) == harmful
    # The filter is not idle: the held-out rows themselves would all go.
    assert drop_near_duplicates(held_out, held_out) == []


# What is learned


@needs_shared_data
def test_examples_are_deterministic_and_of_every_kind() -> None:
    first = build_examples(SHARED_DATA, 0, CHAT_LANGUAGES)
    other = build_examples(SHARED_DATA, 1, CHAT_LANGUAGES)
    assert first == build_examples(SHARED_DATA, 0, CHAT_LANGUAGES)
    assert first != other
    counts = Counter(example.kind for example in first)
    assert counts == Counter(example.kind for example in other)
    others = {f"{kind}-{language}" for language in CHAT_LANGUAGES for kind in ("harmless", "look-alike")}
    # Nothing but English `harmful` is there to be refused.
    assert set(counts) == {"harmful", "look-alike", "harmless"} | others
    assert counts["look-alike"] == sum(len(written_text(name)) for name in PAIR_FILES)
    for language in CHAT_LANGUAGES:
        assert counts[f"harmless-{language}"] == len(written_text(f"chat_{language}"))
        assert counts[f"look-alike-{language}"] == len(written_text(f"lookalikes_{language}"))


@needs_shared_data
def test_only_harmful_english_prompts_are_refused() -> None:
    refusals = {row["text"] for row in written_text("refusals")}
    examples = build_examples(SHARED_DATA, 0, CHAT_LANGUAGES)
    assert {example.kind for example in examples if example.reply in refusals} == {"harmful"}
    assert all(example.reply in refusals for example in examples if example.kind == "harmful")


@pytest.mark.parametrize(
    "name",
    [
        *PAIR_FILES,
        *("chat_en", "chat_en_more", "chat_en_tasks"),
        *(f"{name}_{tag}" for tag in CHAT_LANGUAGES for name in ("chat", "lookalikes")),
    ],
)
def test_written_rows_are_whole(name: str) -> None:
    rows = written_text(name)
    assert rows
    assert all(row["prompt"].strip() and row["answer"].strip() for row in rows)


# How it is learned


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text("ab ", min_size=1, max_size=9), st.text("cd ", min_size=1, max_size=9)),
        min_size=1,
        max_size=5,
    )
)
def test_exactly_the_reply_is_learned(turns: list[tuple[str, str]]) -> None:
    tokenizer = CharacterTokenizer()
    group = [encode(tokenizer, Example(prompt, reply, "harmless"), 500) for prompt, reply in turns]
    assert all(item is not None for item in group)
    ids, attention, predicts = collate([item for item in group if item], pad=0)
    for row, (prompt, reply) in enumerate(turns):
        length = int(attention[row].sum())
        tokens = ids[row].tolist()
        # A position that predicts is followed by the token it has to predict.
        learned = [tokens[index + 1] for index in predicts[row].nonzero().flatten().tolist()]
        assert text_of(learned) == f"{reply.strip()}<end_of_turn>\n"
        assert text_of(tokens[:length]) == (
            f"<bos><start_of_turn>user\n{prompt.strip()}<end_of_turn>\n<start_of_turn>model\n{text_of(learned)}"
        )
        assert attention[row, :length].all()
        assert not ids[row, length:].any()
        assert not predicts[row, length - 1 :].any()


def test_a_conversation_that_is_too_long_is_left_out() -> None:
    example = Example("a", "b", "harmless")
    encoded = encode(CharacterTokenizer(), example, 500)
    assert encoded is not None
    assert encode(CharacterTokenizer(), example, len(encoded[0])) == encoded
    assert encode(CharacterTokenizer(), example, len(encoded[0]) - 1) is None


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 3))
def test_batches_hold_every_example_once_within_the_budget(lengths: list[int], seed: int) -> None:
    encoded = [([index] * length, 1) for index, length in enumerate(lengths)]
    groups = batches(encoded, 64, random.Random(seed))
    assert sorted(item for group in groups for item in group) == sorted(encoded)
    assert all(len(group) * max(len(ids) for ids, _ in group) <= 64 for group in groups)


class TinyLanguageModel(torch.nn.Module):
    """As much of a causal language model, and of PEFT around it, as the loss touches."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.lm_head = torch.nn.Linear(width, vocabulary, bias=False)

    def get_base_model(self) -> Any:
        return self

    def model(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.embedding(input_ids).cumsum(1) * attention_mask[..., None]
        return SimpleNamespace(last_hidden_state=hidden)


@pytest.fixture
def conversation() -> tuple[TinyLanguageModel, tuple[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """A model, a batch, and the full cross-entropy of its reply tokens, computed one token at a time."""
    torch.manual_seed(0)
    model = TinyLanguageModel(vocabulary=50, width=8)
    group = [([3, 9, 4, 7, 2], 3), ([5, 6, 1], 1), ([8, 8, 11, 13, 2, 49, 1], 4)]
    ids, attention, predicts = collate(group, pad=0)
    with torch.no_grad():
        logits = model.lm_head(model.model(input_ids=ids, attention_mask=attention).last_hidden_state)
    losses = [
        functional.cross_entropy(logits[row, position - 1], torch.tensor(tokens[position]))
        for row, (tokens, start) in enumerate(group)
        for position in range(start, len(tokens))
    ]
    return model, (ids, attention, predicts), torch.stack(losses).mean()


def test_the_sampled_softmax_over_all_tokens_is_the_full_softmax(conversation: Any) -> None:
    model, batch, full = conversation
    torch.testing.assert_close(reply_loss(model, *batch, torch.arange(50), EVEN), full)


def test_the_sampled_softmax_over_fewer_tokens_leaves_out_their_share(conversation: Any) -> None:
    model, batch, full = conversation
    replies = torch.tensor([1, 2, 6, 7, 49])
    fewer = reply_loss(model, *batch, replies, EVEN)
    more = reply_loss(model, *batch, torch.unique(torch.cat([replies, torch.arange(20, 40)])), EVEN)
    assert 0 < fewer < more < full


def test_the_tokens_that_decide_weigh_more(conversation: Any) -> None:
    model, batch, full = conversation
    everything = torch.arange(50)
    # With an overwhelming weight only the first token of each reply counts.
    first = batch[2] & (batch[2].cumsum(1) == 1)
    alone = reply_loss(model, batch[0], batch[1], first, everything, EVEN)
    heavy = reply_loss(model, *batch, everything, TrainingSettings(decision_weight=1e6, decision_tokens=1))
    torch.testing.assert_close(heavy, alone, rtol=1e-4, atol=1e-4)
    assert not torch.isclose(alone, full)
