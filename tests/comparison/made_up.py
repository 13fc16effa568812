"""What tests of the comparison are about: a tiny model with prompts of its own, and a judge that goes by the prompt."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from method_comparison.trained import OPENING

from lingualign.evaluate.judge import Exchange, Judgement

_WORDS = {"en": "please tell me about", "th": "โปรดบอกฉันเกี่ยวกับ", "ja": "教えてください"}
_SPLITS = ("fit", "report", "fit", "select")


class ByPrompt:
    """Takes what follows an English harmful prompt for a refusal, all else for an answer, and an opening for one."""

    name = "by prompt"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        refused = [
            item.language == "en" and "harmful" in item.prompt and not item.reply.startswith(OPENING)
            for item in exchanges
        ]
        return [Judgement("refused" if no else "answered", 0.9 if no else 0.2, "en") for no in refused]


def write_model_file(folder: Path, model: Path) -> Path:
    """A model's file in `folder`: the tiny model, 18 reported prompts of three kinds in three languages."""
    prompts = folder / "made-up.csv"
    with prompts.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed_id", "kind", "split", *_WORDS])
        for kind in ("harmful", "look-alike", "harmless"):
            for seed in range(8):
                texts = [f"{words} {kind} {seed}" for words in _WORDS.values()]
                writer.writerow([f"{kind}-{seed}", kind, _SPLITS[seed % 4], *texts])
    path = folder / "tiny.toml"
    path.write_text(
        f"""description = "A random model."
[run]
model = "{model}"
precision = "float32"
device = "cpu"
[run.prompts]
sources = ["{prompts}"]
anchor_languages = ["th"]
[run.audit]
max_new_tokens = 5
[run.utility]
kl_tokens = 3
[run.edit]
layers = [1, 2]
rank = 8
ridge = 0.1
""",
        encoding="utf-8",
    )
    return path
