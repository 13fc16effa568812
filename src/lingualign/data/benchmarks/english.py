"""Benchmarks of harmful prompts in English, of which the multilingual ones are made."""

from __future__ import annotations

from pathlib import Path

from lingualign.data.benchmarks.files import Cells
from lingualign.data.benchmarks.readers import one_language
from lingualign.data.benchmarks.spec import Benchmark, Entry, Hub, Part
from lingualign.data.benchmarks.translations import read_jailbreakbench

_PARQUET = "data/train-*.parquet"


def _functional_category(row: Cells, part: str) -> bool:
    return row["FunctionalCategory"] == part


_harmbench_table = one_language(
    "harmbench_behaviors_text_all.csv",
    text=("Behavior",),
    category=("SemanticCategory",),
    identifier="BehaviorID",
    context="ContextString",
    needs=("FunctionalCategory", "ContextString"),
    belongs=_functional_category,
)
_harmbench_hub = one_language(
    "{part}/train-*.parquet", text=("prompt",), category=("category", "tags"), context="context"
)


def _harmbench(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """The authors' table with all behaviours, or the hub copy's folder per functional category."""
    table = (root / "harmbench_behaviors_text_all.csv").is_file() or not (root / name).is_dir()
    return (_harmbench_table if table else _harmbench_hub)(root, name, part, languages)


ENGLISH = (
    Benchmark(
        name="strongreject",
        title="313 forbidden prompts",
        parts={"all": Part("harmful", 313, ("en",))},
        reader=one_language(
            "strongreject.csv",
            "strongreject_dataset.csv",
            _PARQUET,
            text=("forbidden_prompt", "prompt"),
            category=("category",),
        ),
        layout="strongreject.csv or strongreject_dataset.csv (columns category, source, forbidden_prompt)",
        licence="MIT",
        citation="Souly et al. A StrongREJECT for Empty Jailbreaks. NeurIPS 2024. arXiv:2402.10260",
        homepage="https://github.com/alexandrasouly/strongreject",
        hub=Hub("walledai/StrongREJECT", (_PARQUET,), gated=True),
    ),
    Benchmark(
        name="advbench",
        title="520 harmful instructions",
        parts={"all": Part("harmful", 520, ("en",))},
        reader=one_language("harmful_behaviors.csv", _PARQUET, text=("goal", "prompt")),
        layout="harmful_behaviors.csv (columns goal, target)",
        licence="MIT",
        citation="Zou et al. Universal and Transferable Adversarial Attacks on Aligned Language Models. "
        "arXiv:2307.15043",
        homepage="https://github.com/llm-attacks/llm-attacks",
        hub=Hub("walledai/AdvBench", (_PARQUET,), gated=True),
        pitfalls=(
            "some rows reword each other, so intervals look too narrow; The Language Barrier took the first 200",
        ),
    ),
    Benchmark(
        name="jailbreakbench",
        title="100 harmful behaviours and 100 benign ones on the same topics",
        parts={
            "harmful": Part(
                "harmful",
                100,
                ("en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "ru", "th", "yo", "zh"),
                rows_by_language={"nl": 98, "pl": 99},
            ),
            "benign": Part("look-alike", 100, ("en",)),
        },
        reader=read_jailbreakbench,
        layout="data/harmful-behaviors.csv (or jailbreakbench.csv), data/benign-behaviors.csv, "
        "multilingual/jailbreakbench_test_translated_LANGUAGE.json",
        licence="MIT; translations Apache-2.0",
        citation="Chao et al. JailbreakBench. NeurIPS 2024. arXiv:2404.01318; translations: Wang et al. NeurIPS 2025",
        homepage="https://github.com/JailbreakBench/jailbreakbench",
        hub=Hub("JailbreakBench/JBB-Behaviors", ("data/*-behaviors.csv",), languages=("en",)),
        pitfalls=("Dutch lacks 2 rows and Polish 1: all languages together keep 97",),
    ),
    Benchmark(
        name="harmbench",
        title="400 behaviours: plain requests, requests with a passage, copyrighted text",
        parts={
            "standard": Part("harmful", 200, ("en",)),
            "contextual": Part("harmful", 100, ("en",)),
            "copyright": Part("harmful", 100, ("en",)),
        },
        reader=_harmbench,
        layout="harmbench_behaviors_text_all.csv",
        licence="MIT",
        citation="Mazeika et al. HarmBench. ICML 2024. arXiv:2402.04249",
        homepage="https://github.com/centerforaisafety/HarmBench",
        hub=Hub("walledai/HarmBench", ("*/train-*.parquet",), gated=True),
        pitfalls=(
            "copyright asks for the text of songs and books: a refusal judge and a harm judge disagree on it",
            "contextual prompts carry a passage before the request",
        ),
    ),
    Benchmark(
        name="do-not-answer",
        title="939 questions that a responsible model does not simply follow",
        parts={"all": Part("harmful", 939, ("en",))},
        reader=one_language(
            "Instruction/do_not_answer_en.csv",
            _PARQUET,
            text=("question",),
            category=("types_of_harm",),
            identifier="id",
        ),
        layout="Instruction/do_not_answer_en.csv (columns id, risk_area, types_of_harm, specific_harms, question)",
        licence="CC-BY-NC-SA-4.0 (data)",
        citation="Wang et al. Do-Not-Answer. EACL 2024. arXiv:2308.13387",
        homepage="https://github.com/Libr-AI/do-not-answer",
        hub=Hub("LibrAI/do-not-answer", (_PARQUET,)),
        non_commercial=True,
        unverified="the name of the hub's file",
        pitfalls=("many questions want a careful answer, not a refusal: refusal rates on it are not safety rates",),
    ),
)
