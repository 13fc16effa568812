"""Benchmarks of over-refusal, in English: harmless prompts that sound harmful, with harmful ones to compare."""

from __future__ import annotations

from lingualign.data.benchmarks.files import Cells
from lingualign.data.benchmarks.readers import one_language
from lingualign.data.benchmarks.spec import Benchmark, Hub, Part


def _xstest_label(row: Cells, part: str) -> bool:
    """The label; version 2 of the file has none and marks the unsafe rows in `type`."""
    return row.get("label", "unsafe" if row["type"].startswith("contrast_") else "safe") == part


OVER_REFUSAL = (
    Benchmark(
        name="xstest",
        title="250 safe prompts that sound unsafe and 200 unsafe contrasts",
        parts={"safe": Part("look-alike", 250, ("en",)), "unsafe": Part("harmful", 200, ("en",))},
        reader=one_language(
            "xstest_prompts.csv",
            "xstest_v2_prompts.csv",
            text=("prompt",),
            category=("type",),
            identifier="id",
            needs=("type",),
            belongs=_xstest_label,
        ),
        layout="xstest_prompts.csv (columns id, prompt, type, label, focus, note)",
        licence="CC-BY-4.0",
        citation="Röttger et al. XSTest. NAACL 2024. arXiv:2308.01263",
        homepage="https://github.com/paul-rottger/xstest",
        hub=Hub("Paul/XSTest", ("xstest_prompts.csv",)),
    ),
    Benchmark(
        name="or-bench",
        title="harmless prompts that models refuse, and toxic ones",
        parts={
            "hard": Part("look-alike", 1319, ("en",)),
            "toxic": Part("harmful", 655, ("en",)),
            "all": Part("look-alike", None, ("en",)),
        },
        reader=lambda root, name, part, languages: one_language(
            {"hard": "or-bench-hard-1k.csv", "toxic": "or-bench-toxic.csv", "all": "or-bench-80k.csv"}[name],
            text=("prompt",),
            category=("category",),
        )(root, name, part, languages),
        layout="or-bench-hard-1k.csv, or-bench-toxic.csv, or-bench-80k.csv (columns prompt, category)",
        licence="CC-BY-4.0",
        citation="Cui et al. OR-Bench: An Over-Refusal Benchmark for Large Language Models. ICML 2025. "
        "arXiv:2405.20947",
        homepage="https://huggingface.co/datasets/bench-llm/or-bench",
        hub=Hub("bench-llm/or-bench", ("or-bench-*.csv",)),
        unverified="the rows of `all` (about 80,000)",
        pitfalls=("written and sorted by models; `all` holds `hard`",),
    ),
    Benchmark(
        name="overrefusal-en",
        title="OR-Bench hard split in three, and OKTest, as the PolyRefuse authors store them",
        parts={
            "or_bench_hard_train": Part("look-alike", 1055, ("en",), "fit"),
            "or_bench_hard_val": Part("look-alike", 132, ("en",), "select"),
            "or_bench_hard_test": Part("look-alike", 132, ("en",), "report"),
            "oktest": Part("look-alike", 300, ("en",)),
        },
        reader=one_language("{part}.json", "dataset/*/{part}.json", text=("instruction",), category=("category",)),
        layout="or_bench_hard_train.json, or_bench_hard_val.json, or_bench_hard_test.json, oktest.json",
        licence="CC-BY-4.0 (OR-Bench); OKTest not stated",
        citation="Cui et al. OR-Bench. arXiv:2405.20947; Shi et al. Navigating the OverKill (OKTest). arXiv:2401.17633",
        homepage="https://github.com/mainlp/Multilingual-Refusal",
    ),
)
