"""Declared overlaps, and the search for similar prompts against comparing every pair."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingualign.data.benchmarks import BENCHMARKS, load_benchmark
from lingualign.data.benchmarks.overlaps import OVERLAPS, overlap_warnings, overlaps_of
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Prompt, PromptSet
from lingualign.data.similarity import SIMILAR, normalised, repeated, similar

from .conftest import ROOT, downloaded

SETS = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join), max_size=8)


def prompt_set(texts: list[str], language: str = "en") -> PromptSet:
    return PromptSet(Prompt(str(n), language, "harmful", text) for n, text in enumerate(texts))


def test_declared_ends_exist() -> None:
    for overlap in OVERLAPS:
        for end in (overlap.first, overlap.second):
            name, _, part = end.partition("/")
            assert name in BENCHMARKS, end
            assert not part or part in BENCHMARKS[name].parts, end


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["strongreject", "polyrefuse/harmful_test"], 1),
        (["strongreject", "polyrefuse/harmful_val"], 0),
        (["polyrefuse", "strongreject"], 3),
        (["csrt", "multijail"], 1),
        (["jailbreakbench/benign", "advbench"], 0),
        (["builtin", "prompts.csv", "advbench"], 0),
        (["advbench"], 0),
    ],
)
def test_warnings_are_about_the_parts_that_are_used(names: list[str], count: int) -> None:
    assert len(overlap_warnings(names)) == count


def test_overlaps_of_a_benchmark() -> None:
    assert {overlap.second for overlap in overlaps_of("csrt")} == {"multijail"}
    assert len(overlaps_of("advbench")) == 6


@given(SETS, SETS)
def test_similar_finds_what_comparing_all_pairs_finds(first: list[str], second: list[str]) -> None:
    def jaccard(one: str, two: str) -> float:
        mine, others = set(one.split()), set(two.split())
        return len(mine & others) / len(mine | others)

    found = similar(prompt_set(first), prompt_set(second))
    expected = [text for text in second if any(jaccard(other, text) >= SIMILAR for other in first)]
    assert [prompt.text for _, prompt in found] == expected
    assert all(jaccard(one.text, two.text) >= SIMILAR for one, two in found)


def test_similar_needs_a_common_language() -> None:
    assert similar(prompt_set(["bake bread"]), prompt_set(["bake bread"], "de")) == []


def test_reprints_count_as_repeated() -> None:
    pairs = repeated(prompt_set(["Bake bread!", "bake  bread", "Bake a cake", "!?", "??"]))
    assert [(first.seed_id, second.seed_id) for first, second in pairs] == [("0", "1")]
    assert normalised("  Bake\tBREAD. ") == "bake bread"


@downloaded
def test_measured_overlaps_hold() -> None:
    def english(name: str, part: str | None = None) -> PromptSet:
        return load_benchmark(name, ROOT, part=part, languages=["en"])

    train, test = english("polyrefuse", "harmful_train"), english("polyrefuse", "harmful_test")
    val, advbench = english("polyrefuse", "harmful_val"), english("advbench")
    behaviours, strongreject, harmbench = (
        english("jailbreakbench", "harmful"),
        english("strongreject"),
        english("harmbench"),
    )
    counts = {
        "StrongREJECT in test": len(similar(test, strongreject)),
        "JailbreakBench in test": len(similar(test, behaviours)),
        "AdvBench in test": len(similar(advbench, test)),
        "AdvBench in train": len(similar(advbench, train)),
        "train and test": len(similar(test, train)),
        "HarmBench in val": len(similar(harmbench, val)),
        "val in test": len(similar(val, test)),
        "train in JailbreakBench": len(similar(train, behaviours)),
        "AdvBench and StrongREJECT": len(similar(advbench, strongreject)),
        "mlc in MPO": len(similar(english("mpo-preference"), english("mlc"))),
    }
    assert counts == {
        "StrongREJECT in test": 313,
        "JailbreakBench in test": 100,
        "AdvBench in test": 41,
        "AdvBench in train": 117,
        "train and test": 10,
        "HarmBench in val": 39,
        "val in test": 4,
        "train in JailbreakBench": 6,
        "AdvBench and StrongREJECT": 26,
        "mlc in MPO": 2,
    }


@downloaded
@pytest.mark.parametrize("name", ["advbench", "strongreject", "harmbench", "do-not-answer", "xsafety", "mlc"])
def test_the_built_in_prompts_are_nobody_elses(name: str) -> None:
    assert similar(load_benchmark(name, ROOT, languages=["en"]), builtin_prompts(["en"])) == []
