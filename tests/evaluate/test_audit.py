"""The audit and its store: order, resume, cut lines, hostile text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import DataError, FingerprintMismatch
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.engine import RawReply
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore

PROMPTS = PromptSet(
    Prompt(str(seed), language, kind, f"{kind} {seed} in {language}")
    for language in ("en", "th")
    for kind in ("harmful", "harmless")
    for seed in range(4)
)


class Echo:
    """Answers in batches of three, last prompts first, and counts what it was asked."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fail_after = fail_after

    def generate(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[RawReply]]]:
        order = list(reversed(range(len(texts))))
        for number, start in enumerate(range(0, len(order), 3)):
            if number == self.fail_after:
                raise KeyboardInterrupt
            batch = order[start : start + 3]
            self.asked += [texts[index] for index in batch]
            yield batch, [RawReply(f"to {texts[index]}", 5, True) for index in batch]


class KindJudge:
    """Finds a refusal in every reply to a text that begins with `harmful`."""

    name = "kind"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        assert all(exchange.reply == f"to {exchange.prompt}" for exchange in exchanges)
        return [
            Judgement("refused" if "to harmful " in exchange.reply else "answered", 0.5, "en") for exchange in exchanges
        ]


def test_replies_come_in_prompt_order_with_their_own_text(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    replies = run_audit(
        Echo(), KindJudge(), PROMPTS, ReplyStore(tmp_path / "a.jsonl"), progress=lambda _, d, t: seen.append((d, t))
    )
    assert [reply.key for reply in replies] == [prompt.key for prompt in PROMPTS]
    assert all(reply.text == f"to {prompt.text}" for reply, prompt in zip(replies, PROMPTS, strict=True))
    assert all((reply.outcome == "refused") == (reply.kind == "harmful") for reply in replies)
    assert seen[0] == (0, 16)
    assert seen[-1] == (16, 16)


def test_interrupted_audit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "a.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run_audit(Echo(fail_after=2), KindJudge(), PROMPTS, store)
    assert len(store.load()) == 6
    second = Echo()
    replies = run_audit(second, KindJudge(), PROMPTS, store)
    assert len(second.asked) == 10
    assert replies == run_audit(Echo(), KindJudge(), PROMPTS, ReplyStore(tmp_path / "b.jsonl"))
    third = Echo()
    run_audit(third, KindJudge(), PROMPTS, store)
    assert third.asked == []


def test_replies_to_other_prompts_are_refused(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "a.jsonl")
    run_audit(Echo(), KindJudge(), PROMPTS, store)
    with pytest.raises(FingerprintMismatch, match=r"harmful 0 in th.*use another --out"):
        run_audit(Echo(), KindJudge(), PROMPTS.where(languages=["en"]), store)


def _reply(text: str) -> Reply:
    return Reply("1", "en", "harmful", text, 3, True, "answered", 0.25, "en")


@given(st.lists(st.text(alphabet=st.characters())), st.integers(0, 400))
def test_a_cut_file_loses_at_most_the_cut_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    store = ReplyStore(tmp_path_factory.mktemp("store") / "a.jsonl")
    replies = [_reply(text) for text in texts]
    store.append(replies)
    content = store.path.read_bytes()
    kept = content[: max(0, len(content) - cut)]
    store.path.write_bytes(kept)
    whole = kept.count(b"\n")
    assert store.load() == replies[:whole]
    store.append([_reply("after")])
    assert store.load() == [*replies[:whole], _reply("after")]


def test_hostile_text_survives(tmp_path: Path) -> None:
    texts = ["\ud800", "\x00", "\u2028\u2029\x85", "\u202e", "a\nb\r\n", "<script>", "x" * 100_000]
    store = ReplyStore(tmp_path / "a.jsonl")
    store.append([_reply(text) for text in texts])
    assert [reply.text for reply in store.load()] == texts


@pytest.mark.parametrize("line", ["{", "[]", '{"seed_id": "1"}', '{"unknown": 1}'])
def test_damage_before_the_end_is_an_error(tmp_path: Path, line: str) -> None:
    store = ReplyStore(tmp_path / "a.jsonl")
    store.append([_reply("one")])
    with store.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"line 2 of .*delete the file"):
        store.load()
