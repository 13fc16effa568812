"""Synthetic audits with made-up, harmless text in many scripts, for the tests of tables, plots and pages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lingualign.data.schema import KINDS, Kind
from lingualign.evaluate.schema import Reply
from lingualign.report.data import Arm, ReportData
from lingualign.report.panels import panels

from .make_figures import make_figures

LANGUAGES = ("en", "zh", "vi", "ja", "th", "id", "bn", "he", "ar", "ko", "sw", "it", "es", "de")
ANCHORS = ("zh", "vi", "th", "ar", "sw")
LETTERS: Mapping[Kind, str] = {"harmful": "h", "look-alike": "l", "harmless": "n"}
GREETINGS = {
    "en": "Sure, here is a recipe for lentil soup.",
    "zh": "当然,这是一份扁豆汤的食谱。",
    "vi": "Vâng, đây là công thức nấu súp đậu lăng.",
    "ja": "はい、レンズ豆のスープの作り方です。",
    "th": "ได้เลย นี่คือสูตรซุปถั่วเลนทิล",
    "id": "Tentu, ini resep sup kacang lentil.",
    "bn": "অবশ্যই, এটি মসুর ডালের স্যুপের রেসিপি।",
    "he": "בטח, הנה מתכון למרק עדשים (4 מנות).",
    "ar": "بالتأكيد، هذه وصفة حساء العدس (4 حصص).",
    "ko": "네, 렌틸콩 수프 만드는 법입니다.",
    "sw": "Ndiyo, hii ni mapishi ya supu ya dengu.",
    "it": "Certo, ecco una ricetta di zuppa di lenticchie.",
    "es": "Claro, aquí tienes una receta de sopa de lentejas.",
    "de": "Gerne, hier ist ein Rezept für Linsensuppe.",
}
REFUSAL = "I am sorry, but I cannot help with that."


def make_replies(
    rates: Mapping[str, Mapping[Kind, float]],
    *,
    n: int = 30,
    broken: float = 0.02,
    seed: int = 0,
    kinds: Sequence[Kind] = KINDS,
) -> tuple[Reply, ...]:
    """`n` replies for each language and kind, refused at the given rates.

    The same seed draws the same numbers for every prompt, so audits with different rates differ only where they must.
    """
    draw = random.Random(seed)
    replies = []
    for language, by_kind in rates.items():
        for kind in kinds:
            for index in range(n):
                chance, fault = draw.random(), draw.random()
                reply = Reply(
                    seed_id=f"{LETTERS[kind]}{index + 1:03d}",
                    language=language,
                    kind=kind,
                    text=GREETINGS.get(language, "Sure."),
                    tokens=24,
                    finished=True,
                    outcome="answered",
                    score=0.04,
                    reply_language=language,
                )
                if chance < by_kind[kind]:
                    spoken = "en" if fault < 0.6 else language
                    reply = replace(reply, text=REFUSAL, outcome="refused", score=0.98, reply_language=spoken)
                elif fault < broken:
                    reply = replace(reply, text="ha " * 30, finished=False, outcome="incoherent", reply_language="")
                replies.append(reply)
    return tuple(replies)


def rates(
    harmful: Mapping[str, float], harmless: float = 0.01, look_alike: float = 0.05
) -> dict[str, dict[Kind, float]]:
    """Rates of every kind by language from those of harmful prompts."""
    return {
        language: {"harmful": value, "harmless": harmless, "look-alike": look_alike}
        for language, value in harmful.items()
    }


HARMFUL_BEFORE = dict(
    zip(LANGUAGES, (0.95, 0.2, 0.1, 0.15, 0.05, 0.2, 0.0, 0.1, 0.1, 0.1, 0.03, 0.3, 0.3, 0.35), strict=True)
)
HARMFUL_AFTER = dict(
    zip(LANGUAGES, (0.96, 0.9, 0.85, 0.7, 0.8, 0.75, 0.5, 0.6, 0.9, 0.65, 0.6, 0.8, 0.85, 0.8), strict=True)
)


def sample_data(*, audit_only: bool = False, languages: Sequence[str] = LANGUAGES, n: int = 30) -> ReportData:
    """A report's data: `n` prompts of each kind in each language, three controls, six edited layers."""
    first, last = ({tag: every[tag] for tag in languages} for every in (HARMFUL_BEFORE, HARMFUL_AFTER))
    halfway = {tag: (first[tag] + last[tag]) / 2 for tag in languages}
    before = make_replies(rates(first), n=n)
    after = make_replies(rates(last, harmless=0.02, look_alike=0.14), n=n, broken=0.03)
    controls = (
        Arm(
            "random neurons",
            "The same solve on as many neurons chosen at random.",
            make_replies(rates(halfway, look_alike=0.2), n=n),
        ),
        Arm("sham edit", "A random low-rank change of equal norm.", make_replies(rates(first), n=n, broken=0.2)),
        Arm(
            "safety system line",
            "No edit; a system message that asks for safe answers.",
            make_replies(rates(halfway, harmless=0.09, look_alike=0.3), n=n),
        ),
    )
    manifest = {
        "method": "sparse-weight-editing",
        "family": "output",
        "settings": {"rank": 32, "gamma": 1.0, "lambda": 0.001, "columns": "all"},
        "reference": "en",
        "anchor_languages": list(ANCHORS),
        "anchor_pairs": 350,
        "keep_prompts": 1890,
        "diagnostics": [
            {
                "tensor": f"model.layers.{layer}.mlp.down_proj.weight",
                "layer": layer,
                "rank": 32,
                "rows": 640,
                "columns": 2048,
                "relative_change": 0.03 + 0.004 * layer,
                "explained": 0.9 - 0.02 * (layer - 7),
                "objective": 0.31,
                "singular_values": [20.0 * 0.93**index / (1 + 0.1 * (layer - 7)) for index in range(64)],
            }
            for layer in range(7, 13)
        ],
        "seconds": {"collect": 201.4, "solve": 18.2},
    }
    texts = {reply.key: GREETINGS[reply.language].replace(".", "?") for reply in before}
    figures = make_figures(before, None if audit_only else after, texts)
    return ReportData(
        title="Refusal in 14 languages",
        model_name="example/chat-270m",
        model_fingerprint="sha256:" + "0123456789abcdef" * 4,
        hardware="1 × NVIDIA H100 80 GB, 16 cores, 128 GiB",
        before=before,
        after=None if audit_only else after,
        reference="en",
        anchor_languages=() if audit_only else ANCHORS,
        edit_manifest=None if audit_only else manifest,
        controls=() if audit_only else controls,
        settings={"seed": 0, "generation": {"max_new_tokens": 32, "temperature": 0.0}, "languages": list(LANGUAGES)},
        versions={"lingualign": "0.1.0", "torch": "2.8.0", "transformers": "5.10.0"},
        timings={"audit before": 61.2, "edit": 219.6, "audit after": 59.8},
        judge=figures["judge"],
        panels=panels(figures),
        prompts=texts,
    )
