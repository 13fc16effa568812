"""Lessons stand in for the paired reference prompt: what is asked, what is kept, and what the edit then aims at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.data.schema import Prompt
from lingualign.errors import ConfigError
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.anchor_chats import encode_anchors
from lingualign.methods.anchors import Anchors
from lingualign.methods.own_language import Lesson, instructed, lessons
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.locate import locate_mlps

POSITIONS = Positions(template_tokens=2, reply_tokens=2)


@pytest.fixture
def anchors() -> Anchors:
    return plain_anchors(count=6)


@pytest.fixture
def replies(anchors: Anchors) -> dict[tuple[str, str, str], str]:
    return {prompt.key: "bread and tea" for prompt in (*anchors.reference_harmful, *anchors.keep)}


def _reply(prompt: Prompt, outcome: Outcome, language: str) -> Reply:
    return Reply(prompt.seed_id, prompt.language, prompt.kind, "no", 1, True, outcome, 1.0, language)


def test_the_instruction_names_the_language_and_holds_the_prompt(anchors: Anchors) -> None:
    low = anchors.pairs[0][1]
    asked = next(iter(instructed([low])))
    assert asked.key == low.key
    assert "Italian" in asked.text
    assert low.text in asked.text


def test_only_refusals_in_the_language_are_lessons(anchors: Anchors) -> None:
    asked = instructed(low for _, low in anchors.pairs[:4])
    replies = [
        _reply(prompt, outcome, language)
        for prompt, (outcome, language) in zip(
            asked, [("refused", "it"), ("refused", "en"), ("answered", "it"), ("refused", "it")], strict=True
        )
    ]
    found = lessons(asked, replies)
    assert list(found) == [anchors.pairs[0][1].key, anchors.pairs[3][1].key]
    assert found[anchors.pairs[0][1].key].reply == "no"


def test_a_pair_with_a_lesson_has_the_same_reply_on_both_sides(
    tiny_model: Any, anchors: Anchors, replies: dict[tuple[str, str, str], str]
) -> None:
    tokenizer = tiny_model[1]
    lesson = Lesson("say no to this: river", "stone and cloud")
    chats = encode_anchors(tokenizer, anchors, POSITIONS, replies, {anchors.pairs[2][1].key: lesson})
    assert chats.taught == [2]
    [teacher] = chats.teachers
    assert teacher.ids[teacher.prompt_length :] == chats.low[2].ids[chats.low[2].prompt_length :]
    assert teacher.ids[teacher.prompt_length :] != chats.low[1].ids[chats.low[1].prompt_length :]
    bare = encode_anchors(tokenizer, anchors, POSITIONS, replies)
    assert bare.teachers == []
    assert bare.low[1] == chats.low[1]


def test_the_edit_moves_taught_pairs_to_the_lesson_and_others_to_the_reference(
    tiny_model: Any, anchors: Anchors, replies: dict[tuple[str, str, str], str]
) -> None:
    model, tokenizer = tiny_model
    lesson = Lesson("say no to this: river", "stone and cloud")
    given = {anchors.pairs[2][1].key: lesson}
    method = SparseWeightEdit(
        layers=[1], keep_weight=0.0, ridge=1e-8, rank=None, positions=POSITIONS, teacher="own-language"
    )
    edit = method.fit(model, tokenizer, anchors, replies=replies, lessons=given)
    assert edit.manifest["lessons"] == 1
    site = Site(locate_mlps(model)[1].down, "output")
    chats = encode_anchors(tokenizer, anchors, POSITIONS, replies, given)

    def rows(asked: list[Any]) -> torch.Tensor:
        return collect_rows(model, asked, [site], POSITIONS)[site]

    wanted = torch.cat([rows([chats.teachers[0]]), rows([chats.reference[chats.reference_of[0]]])])
    low = [chats.low[2], chats.low[0]]
    before = (rows(low) - wanted).norm()
    with edit.applied(model):
        assert (rows(low) - wanted).norm() < 0.05 * before


def test_without_any_lesson_the_fix_is_named(
    tiny_model: Any, anchors: Anchors, replies: dict[tuple[str, str, str], str]
) -> None:
    method = SparseWeightEdit(layers=[1], positions=POSITIONS, teacher="own-language")
    with pytest.raises(ConfigError, match="use teacher = 'reference'"):
        method.fit(*tiny_model, anchors, replies=replies, lessons={})


def test_lessons_do_nothing_where_the_reference_teaches(
    tiny_model: Any, anchors: Anchors, replies: dict[tuple[str, str, str], str]
) -> None:
    given = {anchors.pairs[2][1].key: Lesson("say no to this: river", "stone and cloud")}
    method = SparseWeightEdit(layers=[1], positions=POSITIONS)
    edits = [method.fit(*tiny_model, anchors, replies=replies, lessons=some) for some in ({}, given)]
    assert edits[0].fingerprint == edits[1].fingerprint
