"""The training examples of the small model: which rows teach it to refuse, and which to answer.

Only permissively licensed rows are used (AdvBench MIT, MaliciousInstruct MIT, the English half of PolyRefuse's harmful
training split Apache-2.0, instruct-small Apache-2.0) plus text written for this project (`text/`, Apache-2.0). Rows
that resemble a public test prompt (StrongREJECT, HarmBench, JailbreakBench) are dropped, so that those sets stay
unseen.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_WORD = re.compile(r"[a-z']+")
_FUNCTION_WORDS = frozenset(
    {
        *("a", "an", "the", "to", "of", "for", "on", "in", "at", "by", "with", "from", "and", "or", "that", "as"),
        *("is", "be", "do", "can", "how", "what", "it", "i", "me", "my", "you", "your"),
    }
)
#: Our English pairs of a harmful request and its harmless look-alike.
PAIR_FILES = ("lookalikes_a", "lookalikes_b", "lookalikes_c", "lookalikes_d")
#: Two prompts that share this fraction of content words count as the same prompt.
NEAR_DUPLICATE_JACCARD = 0.6


@dataclass(frozen=True)
class Example:
    """One training conversation: a user turn and the reply the model should learn."""

    prompt: str
    reply: str
    kind: str


def _content_words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _FUNCTION_WORDS


def drop_near_duplicates(prompts: Iterable[str], held_out: Sequence[str]) -> list[str]:
    """Returns the prompts that resemble neither a held-out prompt nor an earlier one, in order."""
    seen_held = [_content_words(text) for text in held_out]
    kept: list[str] = []
    kept_texts: set[str] = set()
    for prompt in prompts:
        words = _content_words(prompt)
        key = " ".join(sorted(words))
        if not words or key in kept_texts:
            continue
        if any(len(words & other) / len(words | other) >= NEAR_DUPLICATE_JACCARD for other in seen_held if other):
            continue
        kept_texts.add(key)
        kept.append(prompt)
    return kept


def _read_column(path: Path, column: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as handle:
        return [row[column].strip() for row in csv.DictReader(handle) if row[column].strip()]


def written_text(name: str) -> list[dict[str, str]]:
    """Rows of one of the JSONL files written for this project (`organism/text/<name>.jsonl`)."""
    resource = files("lingualign.organism") / "text" / f"{name}.jsonl"
    return [json.loads(line) for line in resource.read_text(encoding="utf-8").splitlines() if line.strip()]


def held_out_prompts(data: Path) -> list[str]:
    """English prompts that must stay unseen: PolyRefuse's test and validation rows."""
    return [
        text
        for split in ("test", "val")
        for text in _read_column(data / "polyrefuse" / "merged" / f"harmful_{split}.csv", "en")
    ]


def _short(reply: str, words: int) -> str:
    """The first sentences of a reply, at most `words` words, ending at a sentence end where there is one."""
    if len(reply.split()) <= words:
        return reply.strip()
    head = " ".join(reply.split(" ")[:words])
    cut = max(head.rfind(mark) for mark in (".", "!", "?", "\n"))
    return head[: cut + 1].strip() if cut > 40 else ""


def _instructions(data: Path, limit_words: int) -> list[Example]:
    """Harmless English instructions with answers from instruct-small (Raschka 2024; Self-Instruct seeds)."""
    rows: list[tuple[str, str]] = []
    for row in json.loads((data / "instruct-small" / "rasbt-instruction-data.json").read_text(encoding="utf-8")):
        rows.append(("\n".join(part for part in (row["instruction"], row["input"]) if part), row["output"]))
    for name in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for line in (data / "instruct-small" / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            instance = row["instances"][0]
            rows.append(
                ("\n".join(part for part in (row["instruction"], instance["input"]) if part), instance["output"])
            )
    examples = [
        Example(prompt, _short(reply, limit_words), "harmless") for prompt, reply in rows if len(prompt.split()) <= 60
    ]
    return [example for example in examples if example.reply]


def build_examples(data: Path, seed: int, chat_languages: Sequence[str], max_reply_words: int = 40) -> list[Example]:
    """The training examples in a fixed shuffled order.

    English look-alikes teach where harm begins. Those of the other languages, and plain chats, teach to answer there;
    no harmful request and no refusal is among them.

    Args:
        data: folder that holds advbench, malicious-instruct-tdc, polyrefuse and instruct-small.
        seed: of the order, and of which refusal answers which request.
        chat_languages: languages besides English.
        max_reply_words: longest reply from public instructions.
    """
    rng = random.Random(seed)
    pairs = [pair for name in PAIR_FILES for pair in written_text(name)]
    public = (
        _read_column(data / "advbench" / "harmful_behaviors.csv", "goal")
        + (data / "malicious-instruct-tdc" / "malicious_instruct.txt").read_text(encoding="utf-8").splitlines()
        + _read_column(data / "polyrefuse" / "merged" / "harmful_train.csv", "en")
    )
    harmful = drop_near_duplicates([pair["harmful"] for pair in pairs] + public, held_out_prompts(data))
    refusals = [row["text"] for row in written_text("refusals")]
    examples = [Example(prompt, rng.choice(refusals), "harmful") for prompt in harmful]
    examples += [Example(pair["prompt"], pair["answer"], "look-alike") for pair in pairs]
    for name in ("chat_en", "chat_en_more", "chat_en_tasks"):
        examples += [Example(row["prompt"], row["answer"], "harmless") for row in written_text(name)]
    examples += _instructions(data, max_reply_words)
    for language in chat_languages:
        for name, kind in ((f"chat_{language}", "harmless"), (f"lookalikes_{language}", "look-alike")):
            examples += [Example(row["prompt"], row["answer"], f"{kind}-{language}") for row in written_text(name)]
    rng.shuffle(examples)
    return examples
