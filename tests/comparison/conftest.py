"""Makes `method_comparison` importable, which lies beside the package, and the file of a tiny model."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

_WORDS = {"en": "please tell me about", "th": "โปรดบอกฉันเกี่ยวกับ", "ja": "教えてください"}
_SPLITS = ("fit", "report", "fit", "select")


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A model's file: the tiny model, 18 reported prompts of three kinds in three languages."""
    folder = tmp_path_factory.mktemp("comparison")
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
model = "{tiny_model_folder}"
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
