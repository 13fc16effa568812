"""How fast audits are generated: single prompts, static batches, `generate_batch` of transformers, and the engine.

All sides answer the same prompts of the select split, in turns in one process, and the greedy replies are compared.
`single`: `generate` for each prompt. `static`: `generate` for batches in the given order, padded, until the last reply
of the batch has ended. `generate_batch`: transformers' continuous batching. `engine`: TransformersEngine. With an
audit's 24 tokens most replies reach the limit together; at a longer limit some end long before others. `single` is
timed at the first limit only.

    python benchmarks/generation.py [--model small] [--device cpu] [--precision float32] [--seeds 2] [--batch-size 64]
        [--max-new-tokens 24,128] [--repeats 2] [--sides single,static,engine] [--out FILE]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from results_file import clock, result_file, shown_model
from transformers import ContinuousBatchingConfig, GenerationConfig

from lingualign.data.builtin import builtin_prompts
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.live_batch import fits, shared_prefix
from lingualign.features.collect import pad
from lingualign.hardware import hardware_line, versions
from lingualign.models.chat import EncodedChat, encode_chats
from lingualign.models.load import load_model
from lingualign.runs import write_json

Side = Callable[[Sequence[EncodedChat]], list[list[int]]]
#: Of `generate_batch`: tokens in a block of its cache, and in one forward pass.
BLOCK_TOKENS, PASS_TOKENS = 32, 2048
SIDES = ("single", "static", "generate_batch", "engine")


def asked_texts(seeds: int) -> list[str]:
    """The first seeds of each kind in the select split, in all languages, in an audit's order."""
    return [prompt.text for prompt in builtin_prompts().where(splits=["select"]).limited(seeds)]


def sides(model: Any, tokenizer: Any, batch_size: int, max_new_tokens: int) -> dict[str, Side]:
    """What is timed, by name: token ids of the replies to chats."""
    pad_id = tokenizer.pad_token_id
    eos = model.generation_config.eos_token_id
    stops = set(eos if isinstance(eos, list) else [eos])

    def generated(chats: Sequence[EncodedChat]) -> list[list[int]]:
        ids, mask, _ = pad(chats, pad_id, "left")
        with torch.inference_mode():
            output = model.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad_id,
            )
        return [_cut(row, stops) for row in output[:, ids.shape[1] :].tolist()]

    def in_batches(size: int) -> Side:
        return lambda chats: [
            reply for start in range(0, len(chats), size) for reply in generated(chats[start : start + size])
        ]

    def continuous(chats: Sequence[EncodedChat]) -> list[list[int]]:
        blocks = math.ceil((max(len(chat.ids) for chat in chats) + max_new_tokens) / BLOCK_TOKENS)
        found = model.generate_batch(
            [list(chat.ids) for chat in chats],
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=sorted(stops), pad_token_id=pad_id
            ),
            # Room for the same number of chats at once.
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=BLOCK_TOKENS, num_blocks=batch_size * blocks, max_batch_tokens=PASS_TOKENS
            ),
        )
        by_prompt = {tuple(output.prompt_ids): list(output.generated_tokens) for output in found.values()}
        return [_cut(by_prompt[chat.ids], stops) for chat in chats]

    engine = TransformersEngine(model, tokenizer, max_new_tokens=max_new_tokens, batch_size=batch_size)
    return {
        "single": in_batches(1),
        "static": in_batches(batch_size),
        "generate_batch": continuous,
        "engine": engine.reply_ids,
    }


def _cut(ids: list[int], stops: set[int]) -> list[int]:
    return ids[: next((index + 1 for index, token in enumerate(ids) if token in stops), len(ids))]


def measure(
    model: Any, tokenizer: Any, texts: Sequence[str], names: Sequence[str], repeats: int, batch_size: int, tokens: int
) -> dict[str, Any]:
    """Seconds of every run, the ratios of the fastest ones, and how many replies differ from the engine's."""
    chats = encode_chats(tokenizer, texts)
    device = str(model.device)
    timed = sides(model, tokenizer, batch_size, tokens)
    # Whatever is only done once is not timed.
    for name in names:
        timed[name](chats[:2])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    replies: dict[str, list[list[int]]] = {}
    for _ in range(repeats):
        for name in names:
            start = clock(device)
            replies[name] = timed[name](chats)
            seconds[name].append(clock(device) - start)
            print(f"{tokens} tokens, {name}: {seconds[name][-1]:.1f} s", flush=True)
    best = {name: min(values) for name, values in seconds.items()}
    lengths = [len(reply) for reply in replies["engine"]]
    return {
        "max_new_tokens": tokens,
        "prompts": len(chats),
        "prompt_tokens": sum(len(chat.ids) for chat in chats),
        "reply_tokens": sum(lengths),
        "replies_cut_at_the_limit": sum(length == tokens for length in lengths),
        "shared_prefix": len(shared_prefix(model, chats)),
        "live_batch": fits(model, max(len(chat.ids) for chat in chats) + tokens),
        "seconds": seconds,
        "engine_is_faster_than": {name: best[name] / best["engine"] for name in names if name != "engine"},
        "replies_unlike_the_engine": {
            name: sum(a != b for a, b in zip(replies[name], replies["engine"], strict=True))
            for name in names
            if name != "engine"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", default="24,128")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sides", default="single,static,engine", help=f"engine, and any of {', '.join(SIDES)}")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    names = options.sides.split(",")
    if "engine" not in names or not set(names) <= set(SIDES):
        parser.error(f"--sides is {options.sides}; give engine and any of {', '.join(SIDES)}")
    loaded = load_model(options.model, precision=options.precision, device=options.device)
    texts = asked_texts(options.seeds)
    limits = []
    for tokens in map(int, options.max_new_tokens.split(",")):
        timed = [name for name in names if name != "single" or not limits]
        found = measure(loaded.model, loaded.tokenizer, texts, timed, options.repeats, options.batch_size, tokens)
        limits.append(found)
        for name, ratio in found["engine_is_faster_than"].items():
            unlike = found["replies_unlike_the_engine"][name]
            print(f"the engine is {ratio:.2f} x as fast as {name}; {unlike} of {found['prompts']} replies differ")
    write_json(
        options.out or result_file("generation", options.device),
        {
            "model": shown_model(options.model),
            "fingerprint": loaded.fingerprint,
            "precision": options.precision,
            "hardware": hardware_line(options.device),
            "versions": versions(),
            "batch_size": options.batch_size,
            "limits": limits,
        },
    )


if __name__ == "__main__":
    main()
