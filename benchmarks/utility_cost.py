"""Seconds that utility takes: perplexity of harmless report prompts, XCOPA in five languages.

    python benchmarks/utility_cost.py [--data ../shared/data] [--model small] [--device cpu] [--seeds 60] [--out FILE]

XCOPA is left out where no folder of data is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from results_file import clock, result_file

from lingualign.config import UtilitySettings
from lingualign.data.builtin import builtin_prompts
from lingualign.evaluate.utility.harness import run_task
from lingualign.evaluate.utility.perplexity import perplexities, score_texts
from lingualign.hardware import hardware_line, versions
from lingualign.models.load import LoadedModel, load_model
from lingualign.runs import write_json

XCOPA = ("id", "it", "th", "vi", "zh")
LIMIT = 50


def measure_perplexity(loaded: LoadedModel, device: str, seeds: int | None) -> dict[str, Any]:
    """Perplexity of the harmless prompts of the report split, in all languages."""
    texts = builtin_prompts().where(kinds=["harmless"], splits=["report"]).limited(seeds)
    start = clock(device)
    scores = score_texts(loaded.model, loaded.tokenizer, texts)
    seconds = clock(device) - start
    print(f"perplexity of {len(texts)} texts: {seconds:.1f} s")
    for found in perplexities(scores):
        print(
            f"  {found.language}: {found.per_token:.1f} a token, {found.bits_per_byte:.3f} bits a byte, n = {found.n}"
        )
    return {"texts": len(texts), "seconds": seconds}


def measure_xcopa(loaded: LoadedModel, device: str, data: str) -> dict[str, Any]:
    """The first documents of XCOPA in five languages."""
    start = clock(device)
    settings = UtilitySettings(data=data, limit=LIMIT)
    results = [run_task(loaded.model, loaded.tokenizer, f"lingualign_xcopa_{tag}", settings) for tag in XCOPA]
    seconds = clock(device) - start
    print(f"XCOPA, {LIMIT} documents in {len(XCOPA)} languages: {seconds:.1f} s")
    for result in results:
        low, high = result.interval
        print(f"  {result.name}: {result.value:.2f} [{low:.2f}, {high:.2f}], n = {result.n}")
    return {"documents": LIMIT * len(XCOPA), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of public data")
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, help="texts in each language; by default all")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    loaded = load_model(options.model, device=options.device)
    line = hardware_line(options.device)
    print(line)
    found = {"perplexity": measure_perplexity(loaded, options.device, options.seeds)}
    if options.data:
        found["XCOPA"] = measure_xcopa(loaded, options.device, options.data)
    write_json(
        options.out or result_file("utility-cost", options.device),
        {
            "model": options.model,
            "fingerprint": loaded.fingerprint,
            **found,
            "hardware": line,
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
