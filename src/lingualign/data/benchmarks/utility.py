"""Harmless parallel sets for over-refusal, fluency and utility: Vicuna questions, XCOPA, SIB-200."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lingualign.data.benchmarks.files import check_count, column, find, read_rows
from lingualign.data.benchmarks.readers import joined
from lingualign.data.benchmarks.spec import Benchmark, Entry, Part
from lingualign.data.tables import read_csv

_VICUNA_NAMES = {
    "en": "English", "ar": "Arabic", "zh": "Chinese", "de": "Deutsch", "fr": "French", "hi": "Hindi",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "es": "Spanish",
}  # fmt: skip
_SIB200_NAMES = {
    "en": "eng_Latn", "ar": "arb_Arab", "bn": "ben_Beng", "de": "deu_Latn", "es": "spa_Latn", "fr": "fra_Latn",
    "he": "heb_Hebr", "hi": "hin_Deva", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan", "jv": "jav_Latn",
    "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn", "ru": "rus_Cyrl", "sw": "swh_Latn", "th": "tha_Thai",
    "ur": "urd_Arab", "vi": "vie_Latn", "yo": "yor_Latn", "zh": "zho_Hans",
}  # fmt: skip
_XCOPA = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
_XCOPA_PARTS = {"val": Part("harmless", 100, _XCOPA), "test": Part("harmless", 500, _XCOPA)}
#: "Why?" and "What happened as a result?", written for this loader; XCOPA itself gives only `cause` and `effect`.
_XCOPA_QUESTIONS = {
    "et": {"cause": "Miks?", "effect": "Mis selle tagajärjel juhtus?"},
    "ht": {"cause": "Poukisa?", "effect": "Kisa ki te rive apre sa?"},
    "id": {"cause": "Mengapa?", "effect": "Apa akibatnya?"},
    "it": {"cause": "Perché?", "effect": "Che cosa è successo di conseguenza?"},
    "qu": {"cause": "Imarayku?", "effect": "Chaymanta imataq pasarqan?"},
    "sw": {"cause": "Kwa nini?", "effect": "Matokeo yake yalikuwa nini?"},
    "ta": {"cause": "ஏன்?", "effect": "அதன் விளைவு என்ன?"},
    "th": {"cause": "เพราะอะไร", "effect": "แล้วผลเป็นอย่างไร"},
    "tr": {"cause": "Neden?", "effect": "Bunun sonucunda ne oldu?"},
    "vi": {"cause": "Vì sao?", "effect": "Kết quả là gì?"},
    "zh": {"cause": "为什么？", "effect": "结果怎么样？"},
}


def _vicuna(root: Path, _: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    by_language = {}
    for tag in languages:
        path = find(root, f"questions_{_VICUNA_NAMES[tag]}.jsonl")
        rows = read_rows(path)
        for wanted in ("question_id", "category", "text"):
            column(path, rows, wanted)
        check_count(path, rows, part.rows)
        by_language[tag] = {row["question_id"]: (row["category"], row["text"]) for row in rows}
    return joined(by_language)


@dataclass(frozen=True, slots=True)
class XcopaItem:
    """One XCOPA item: which of two sentences is the cause or the effect of the premise.

    Attributes:
        item_id: the same in all languages.
        premise: a sentence.
        question: `cause` or `effect`.
        choices: the two sentences.
        label: index of the right one.
    """

    item_id: str
    premise: str
    question: str
    choices: tuple[str, str]
    label: int


def xcopa_items(folder: str | Path, part: str, language: str) -> list[XcopaItem]:
    """The items of XCOPA in one language, in the files' order.

    Args:
        folder: the root that holds `xcopa`.
        part: val or test.
        language: one of the set's languages.

    Raises:
        DataError: a file is missing, or has too few or too many rows.
    """
    return _xcopa_items(Path(folder) / "xcopa", part, _XCOPA_PARTS[part], language)


def _xcopa_items(root: Path, name: str, part: Part, language: str) -> list[XcopaItem]:
    """Cause or effect is read from the Estonian file for all languages: the flag is wrong in half of the Thai rows and
    in some Turkish, Swahili, Indonesian and Italian ones, while the other six files agree. The labels agree in all."""
    flags = {row["idx"]: row["question"] for row in read_rows(find(root, f"et/{name}.et.jsonl"))}
    path = find(root, f"{language}/{name}.{language}.jsonl")
    rows = read_rows(path)
    for wanted in ("idx", "premise", "choice1", "choice2", "question", "label"):
        column(path, rows, wanted)
    check_count(path, rows, part.rows)
    return [
        XcopaItem(row["idx"], row["premise"], flags[row["idx"]], (row["choice1"], row["choice2"]), int(row["label"]))
        for row in rows
    ]


def _xcopa(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """Premise, question and both choices as one prompt."""
    by_language: dict[str, dict[str, tuple[str, str]]] = {}
    for tag in languages:
        by_language[tag] = {}
        for item in _xcopa_items(root, name, part, tag):
            first, second = item.choices
            text = f"{item.premise} {_XCOPA_QUESTIONS[tag][item.question]}\n1. {first}\n2. {second}"
            by_language[tag][item.item_id] = (item.question, text)
    return joined(by_language)


def _sib200(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    by_language = {}
    for tag in languages:
        path = find(root, f"{_SIB200_NAMES[tag]}/{name}.tsv")
        rows = [row.cells for row in read_csv(path, delimiter="\t", quoted=False).rows]
        for wanted in ("index_id", "category", "text"):
            column(path, rows, wanted)
        check_count(path, rows, part.rows)
        by_language[tag] = {row["index_id"]: (row["category"], row["text"]) for row in rows}
    return joined(by_language)


UTILITY = (
    Benchmark(
        name="vicuna80-multilingual",
        title="80 open questions, translated",
        parts={"questions": Part("harmless", 80, tuple(_VICUNA_NAMES))},
        reader=_vicuna,
        layout="questions_English.jsonl, questions_Arabic.jsonl, ... (German is questions_Deutsch.jsonl)",
        licence="Apache-2.0",
        citation="MultilingualSIFT (FreedomIntelligence, 2023); questions from Vicuna-bench (LMSYS)",
        homepage="https://github.com/FreedomIntelligence/MultilingualSIFT",
    ),
    Benchmark(
        name="xcopa",
        title="choice questions on cause and effect, translated by people",
        parts=_XCOPA_PARTS,
        reader=_xcopa,
        layout="th/val.th.jsonl, th/test.th.jsonl, ... and always et/",
        licence="CC-BY-4.0",
        citation="Ponti et al. XCOPA: A Multilingual Dataset for Causal Commonsense Reasoning. EMNLP 2020",
        homepage="https://github.com/cambridgeltl/xcopa",
        pitfalls=(
            "no English; the question words (\"Why?\") are lingualign's",
            "the cause/effect flag is wrong in 250 of 500 Thai test rows, 51 Turkish, 37 Swahili, 4 Indonesian and "
            "4 Italian: it is taken from Estonian",
        ),
    ),
    Benchmark(
        name="sib200",
        title="sentences of FLORES-200 with a topic, translated by people",
        parts={
            "dev": Part("harmless", 99, tuple(_SIB200_NAMES)),
            "test": Part("harmless", 204, tuple(_SIB200_NAMES)),
        },
        reader=_sib200,
        layout="eng_Latn/dev.tsv, eng_Latn/test.tsv, ...",
        licence="Apache-2.0; sentences from FLORES-200 (CC-BY-SA-4.0)",
        citation="Adelani et al. SIB-200. arXiv:2309.07445; NLLB Team 2022",
        homepage="https://github.com/dadelani/sib-200",
        pitfalls=("sentences, not requests: for perplexity and KL",),
    ),
)  # fmt: skip
