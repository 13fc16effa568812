"""Seconds that utility takes on the small model: perplexity of all harmless report prompts, XCOPA in five languages.

python benchmarks/utility_cost.py ../shared/data
"""

from __future__ import annotations

import sys
import time

from lingualign.config import UtilitySettings
from lingualign.data.builtin import builtin_prompts
from lingualign.evaluate.utility.harness import run_task
from lingualign.evaluate.utility.perplexity import perplexities, score_texts
from lingualign.hardware import hardware_line
from lingualign.models.load import load_model

XCOPA = ("id", "it", "th", "vi", "zh")
LIMIT = 50


def main(data: str) -> None:
    loaded = load_model("small")
    print(hardware_line(str(loaded.model.device)))
    texts = builtin_prompts().where(kinds=["harmless"], splits=["report"])
    start = time.perf_counter()
    scores = score_texts(loaded.model, loaded.tokenizer, texts)
    print(f"perplexity of {len(texts)} texts: {time.perf_counter() - start:.1f} s")
    for found in perplexities(scores):
        print(
            f"  {found.language}: {found.per_token:.1f} a token, {found.bits_per_byte:.3f} bits a byte, n = {found.n}"
        )
    start = time.perf_counter()
    settings = UtilitySettings(data=data, limit=LIMIT)
    results = [run_task(loaded.model, loaded.tokenizer, f"lingualign_xcopa_{tag}", settings) for tag in XCOPA]
    print(f"XCOPA, {LIMIT} documents in {len(XCOPA)} languages: {time.perf_counter() - start:.1f} s")
    for result in results:
        low, high = result.interval
        print(f"  {result.name}: {result.value:.2f} [{low:.2f}, {high:.2f}], n = {result.n}")


if __name__ == "__main__":
    main(*sys.argv[1:])
