"""Pairs: the published format there and back, what is left out and what is counted."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lingualign.data.schema import Prompt
from lingualign.errors import DataError
from lingualign.methods.preference.pairs import (
    PreferencePair,
    build_pairs,
    check_pairs,
    identify,
    preferences,
    read_pairs,
    write_pairs,
)

SHARED = Path(os.environ.get("LINGUALIGN_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


def _row(prompt: str = "how do I bake bread?", target: str = "come si fa il pane in casa con la farina?") -> Any:
    return {
        "source_conversations": [{"from": "human", "value": prompt}],
        "source_chosen": {"from": "gpt", "value": "no"},
        "source_rejected": {"from": "gpt", "value": "yes"},
        "target_conversations": [{"from": "human", "value": target}],
        "target_chosen": {"from": "gpt", "value": "preferisco non farlo, mi dispiace"},
        "target_rejected": {"from": "gpt", "value": "certo, ecco come si fa"},
    }


def test_published_rows_get_seeds_by_their_source_and_languages_by_their_target(tmp_path: Path) -> None:
    path = tmp_path / "mpo.json"
    path.write_text(json.dumps([_row(), _row(target="家でパンを焼く方法を教えてください"), _row("another")]))
    pairs = read_pairs(path, reference="zh")
    assert [pair.target.prompt.seed_id for pair in pairs] == ["0", "0", "1"]
    assert [pair.target.prompt.language for pair in pairs] == ["it", "ja", "it"]
    assert {pair.reference.prompt.language for pair in pairs} == {"zh"}
    assert (pairs[0].reference.chosen, pairs[0].reference.rejected) == ("no", "yes")


def test_written_pairs_are_read_back_equal(tmp_path: Path, pairs: list[PreferencePair]) -> None:
    again = read_pairs(write_pairs(tmp_path / "pairs.json", pairs))
    sourced = [
        PreferencePair(
            *(replace(side, prompt=replace(side.prompt, source="pairs")) for side in (pair.target, pair.reference))
        )
        for pair in pairs
    ]
    assert again == sourced


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a list of rows"),
        (json.dumps([_row(), {"source_conversations": []}]), "row 2: needs"),
        (json.dumps([_row() | {"target_conversations": [{"from": "human", "value": "a"}] * 2}]), "row 1: needs"),
        (json.dumps([_row() | {"target_chosen": {"from": "gpt", "value": None}}]), "row 1: needs"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "none.json")


def test_unusable_pairs_are_left_out_and_counted(pairs: list[PreferencePair]) -> None:
    empty = replace(pairs[0], reference=replace(pairs[0].reference, rejected=" "))
    equal = replace(pairs[1], target=replace(pairs[1].target, chosen=pairs[1].target.rejected + " "))
    checked = check_pairs([empty, equal, *pairs[2:]])
    assert checked.pairs == tuple(pairs[2:])
    assert (checked.empty, checked.equal) == (1, 1)
    with pytest.raises(DataError, match="no usable preference pair"):
        check_pairs([empty, equal])


def test_replies_in_another_language_are_counted_and_stay(pairs: list[PreferencePair]) -> None:
    italian = "mi dispiace, ma non posso proprio aiutarti con questa richiesta"
    english = "here is how you can do this at home with your friends"
    pair = replace(pairs[0], target=replace(pairs[0].target, chosen=italian, rejected=english))
    checked = check_pairs([pair])
    assert len(checked.pairs) == 1
    assert checked.other_language == {"it": 1}
    assert identify(italian) == "it"


def test_pairs_are_built_from_own_replies_and_given_ones() -> None:
    prompts = [
        (Prompt(seed, "en", "harmful", f"en {seed}"), Prompt(seed, "it", "harmful", f"it {seed}")) for seed in "ab"
    ]
    (first, target), (second, _) = prompts
    replies: Any = {
        "refusals": {first.key: "no", second.key: "no"},
        "answers": {target.key: "ecco"},
        "rejected": {first.key: "here", second.key: "here"},
    }
    (pair,) = build_pairs(prompts, **replies)
    assert (pair.reference.chosen, pair.reference.rejected) == ("no", "here")
    assert (pair.target.chosen, pair.target.rejected) == ("no", "ecco")
    assert build_pairs(prompts, **replies, chosen={target.key: "mai"})[0].target.chosen == "mai"
    with pytest.raises(DataError, match="no anchor has all replies"):
        build_pairs(prompts, **{**replies, "answers": {}})


def test_reference_preferences_count_once(pairs: list[PreferencePair]) -> None:
    other = replace(pairs[0].target, prompt=replace(pairs[0].target.prompt, language="es"))
    doubled = [*pairs, PreferencePair(other, pairs[0].reference)]
    assert len(preferences(doubled)) == len(doubled) + len(pairs)
    assert preferences(doubled, include_reference=False) == [pair.target for pair in doubled]


@pytest.mark.skipif(not (SHARED / "mpo-preference").is_dir(), reason="needs the shared data")
def test_published_data_have_six_targets_per_seed() -> None:
    pairs = read_pairs(SHARED / "mpo-preference" / "gemma_mpo_data.json")
    assert len(pairs) == 600
    assert len({pair.reference.prompt.seed_id for pair in pairs}) == 100
    assert len(check_pairs(pairs).pairs) == 600
