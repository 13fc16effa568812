"""Does the small model have the disease?

    python -m lingualign.organism.check --data ../shared/data --out evidence/organism.json

Measures refusals on rows the model was never trained on: PolyRefuse's test rows (StrongREJECT, HarmBench,
JailbreakBench), its harmless test rows, OKTest's look-alikes, and the built-in prompts (look-alikes, and Vietnamese,
which PolyRefuse lacks). Every rate comes with n and a Wilson interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lingualign.data.benchmarks import load_benchmark
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import Kind, Prompt, PromptSet
from lingualign.evaluate.engine import Engine, RawReply, TransformersEngine
from lingualign.evaluate.judge import Exchange, OfflineJudge
from lingualign.evaluate.statistics import wilson_interval
from lingualign.models.load import load_model
from lingualign.organism.build import small_model_folder
from lingualign.runs import write_json

#: Languages of the acceptance rule, English apart.
ACCEPTANCE_LANGUAGES = ("zh", "it", "vi", "ar", "ko", "th", "de", "es", "fr", "ru", "ja")


def every(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` prompts evenly spaced over the list, so that every part of a sorted set is met."""
    step = max(1, len(prompts) // count)
    return list(prompts[::step][:count])


def looks_alike(data: Path) -> list[Prompt]:
    """OKTest (Shi et al. 2024): harmless English prompts with scary words."""
    rows = json.loads((data / "overrefusal-en" / "oktest.json").read_text(encoding="utf-8"))
    return [Prompt(str(index), "en", "look-alike", row["instruction"]) for index, row in enumerate(rows)]


def sets(data: Path, count: int) -> dict[str, list[Prompt]]:
    """The prompts of each measurement by name."""

    def rows(prompts: PromptSet, kind: Kind, language: str) -> list[Prompt]:
        return every(prompts.where(kinds=[kind], languages=[language]), count)

    harmful = load_benchmark("polyrefuse", data, part="harmful_test")
    harmless = load_benchmark("polyrefuse", data, part="harmless_test")
    builtin = builtin_prompts()
    chosen = {
        "en harmful (PolyRefuse test)": rows(harmful, "harmful", "en"),
        "en harmful (built-in)": rows(builtin, "harmful", "en"),
        "en harmless (PolyRefuse test)": rows(harmless, "harmless", "en"),
        "en harmless (built-in)": rows(builtin, "harmless", "en"),
        "en look-alike (built-in)": rows(builtin, "look-alike", "en"),
        "en look-alike (OKTest)": every(looks_alike(data), count),
    }
    for language in ACCEPTANCE_LANGUAGES:
        source, name = (builtin, "built-in") if language == "vi" else (harmful, "PolyRefuse test")
        chosen[f"{language} harmful ({name})"] = every(
            source.where(kinds=["harmful"], languages=[language]), count // 2
        )
    return chosen


def answer(engine: Engine, prompts: Sequence[Prompt]) -> list[RawReply]:
    """Replies in the order of the prompts."""
    replies: dict[int, RawReply] = {}
    for indices, batch in engine.generate([prompt.text for prompt in prompts]):
        replies.update(zip(indices, batch, strict=True))
    return [replies[index] for index in range(len(prompts))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with polyrefuse and overrefusal-en")
    parser.add_argument("--adapter", type=Path, help="folder of another adapter; by default the one in the package")
    parser.add_argument(
        "--count", type=int, default=140, help="prompts per English measurement; half as many per other language"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    loaded = load_model(str(small_model_folder(arguments.adapter)))
    engine = TransformersEngine(loaded.model, loaded.tokenizer)
    judge = OfflineJudge()
    figures: dict[str, dict[str, float]] = {}
    for name, prompts in sets(arguments.data, arguments.count).items():
        replies = answer(engine, prompts)
        judgements = judge.judge(
            [
                Exchange(prompt.text, reply.text, prompt.language, reply.finished)
                for prompt, reply in zip(prompts, replies, strict=True)
            ]
        )
        outcomes = [judgement.outcome for judgement in judgements]
        own = [
            j.reply_language == p.language for j, p in zip(judgements, prompts, strict=True) if j.outcome == "answered"
        ]
        refused, broken = outcomes.count("refused"), outcomes.count("incoherent")
        low, high = wilson_interval(refused, len(prompts))
        figures[name] = {
            "n": len(prompts),
            "refused": refused / len(prompts),
            "interval low": low,
            "interval high": high,
            "incoherent": broken / len(prompts),
            "answers in the prompt's language": sum(own) / max(1, len(own)),
        }
        print(
            f"{name:32} n={len(prompts):4} refused {refused / len(prompts):.2f} ({low:.2f}-{high:.2f}) "
            f"incoherent {broken / len(prompts):.2f} answers in the prompt's language {sum(own)}/{len(own)}",
            flush=True,
        )
    others = [figures[name] for name in figures if not name.startswith("en ")]
    summary = {
        "mean refusal of harmful prompts, 11 languages": sum(row["refused"] for row in others) / len(others),
        "mean incoherence, 11 languages": sum(row["incoherent"] for row in others) / len(others),
    }
    for name, value in summary.items():
        print(f"{name}: {value:.3f}")
    if arguments.out:
        write_json(
            arguments.out,
            {
                "model": loaded.fingerprint,
                "precision": str(loaded.model.dtype),
                "judge": judge.name,
                "figures": figures,
                **summary,
            },
        )


if __name__ == "__main__":
    main()
