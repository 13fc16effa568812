"""Benchmarks of harmful prompts in several languages."""

from __future__ import annotations

from lingualign.data.benchmarks.files import Cells
from lingualign.data.benchmarks.readers import file_per_language, long, one_language, wide
from lingualign.data.benchmarks.spec import Benchmark, Hub, Part
from lingualign.data.benchmarks.translations import read_mpo, read_polyrefuse
from lingualign.data.benchmarks.xsafety import read_xsafety

_POLYREFUSE = ("en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "ru", "th", "yi", "yo", "zh")
#: The Chinese harmless rows do not match the English ones.
_POLYREFUSE_HARMLESS = _POLYREFUSE[:-1]
_MULTIJAIL = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
_AYA = {"en": "eng", "hi": "hin", "fr": "fra", "es": "spa", "ar": "arb", "ru": "rus"}
_POLYGUARD = ("en", "ar", "zh", "nl", "fr", "de", "hi", "th", "it", "ja", "ko", "pl", "pt", "ru", "es")
_LINGUASAFE = ("en", "zh", "ar", "ru", "th", "ko", "vi", "bn")
_XTHREATBENCH = ("en", "es", "de", "fr", "zh", "ar", "th", "hi", "bn", "ta", "te")
_MULTILINGUAL_ADVBENCH = (
    "en", "ar", "de", "es", "fa", "fr", "he", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "vi", "zh",
)  # fmt: skip
_PARQUET = "data/train-*.parquet"


def _every(_: Cells, __: str) -> bool:
    return True


def _polyguard_label(row: Cells, part: str) -> bool:
    """The parts are named after the labels; some rows have none."""
    return row["prompt_harm_label"] == part


def _severity(row: Cells, part: str) -> bool:
    """LinguaSafe's levels: 0 is harmless, 1 to 3 are harmful."""
    return (row["level"] == "0") == (part == "safe")


_UNPARALLEL = "languages hold different requests: before and after can be paired, languages cannot"

MULTILINGUAL = (
    Benchmark(
        name="multijail",
        title="315 unsafe prompts, translated by native speakers",
        parts={"all": Part("harmful", 315, _MULTIJAIL)},
        reader=wide("MultiJail.csv", identifier="id", category="tags"),
        layout="MultiJail.csv (columns id, source, tags, en, zh, it, vi, ar, ko, th, bn, sw, jv)",
        licence="MIT",
        citation="Deng et al. Multilingual Jailbreak Challenges in Large Language Models. ICLR 2024. arXiv:2310.06474",
        homepage="https://github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs",
        hub=Hub("DAMO-NLP-SG/MultiJail", ("MultiJail.csv",)),
    ),
    Benchmark(
        name="xsafety",
        title="14 kinds of safety prompts, 200 each, translated and proof-read",
        parts={"all": Part("harmful", 2800, ("en", "zh", "ar", "bn", "de", "es", "fr", "hi", "ja", "ru"))},
        reader=read_xsafety,
        layout="the repository's folders en, zh, ar, bn, de, sp, fr, hi, ja, ru, or merged_xsafety.csv",
        licence="Apache-2.0",
        citation="Wang et al. All Languages Matter: On the Multilingual Safety of LLMs. ACL 2024. arXiv:2310.00905",
        homepage="https://github.com/Jarviswang94/Multilingual_safety_benchmark",
        pitfalls=(
            "many prompts want a careful answer, not a refusal: refusal rates on it are not safety rates; commonsense "
            "is multiple choice",
            "the raw files have no header, some a byte order mark; Bengali is in spreadsheets (openpyxl); Spanish is "
            "sp; names vary",
            "Russian Insult:164 is empty: all languages together keep 2,799 rows; Crimes_And_Illegal_Activities 117 "
            "and 137 are the same",
            "the README restricts it to research",
        ),
    ),
    Benchmark(
        name="multi-strongreject",
        title="StrongREJECT in eight languages, the test set of Sparse Weight Editing",
        parts={"all": Part("harmful", 313, ("en", "zh", "vi", "ja", "th", "id", "bn", "he"))},
        reader=wide("multi_strongreject.csv", identifier="row"),
        layout="multi_strongreject.csv (columns row, en, zh, vi, ja, th, id, bn, he): lingualign's own layout",
        licence="MIT (StrongREJECT); translations by tencent/Hunyuan-MT-7B",
        citation="Multilingual Safety Alignment Via Sparse Weight Editing. arXiv:2602.22554; Souly et al. "
        "arXiv:2402.10260",
        homepage="https://arxiv.org/abs/2602.22554",
        unverified="its files are not published; size, languages and translator are those of the paper",
        pitfalls=(
            "translate StrongREJECT yourself, or take polyrefuse/harmful_test, whose rows hold StrongREJECT in "
            "en ja th zh and 11 more",
        ),
    ),
    Benchmark(
        name="polyrefuse",
        title="harmful and harmless prompts of the refusal-direction work, machine translated",
        parts={
            "harmful_train": Part("harmful", 260, _POLYREFUSE, "fit"),
            "harmful_val": Part("harmful", 39, _POLYREFUSE, "select"),
            "harmful_test": Part("harmful", 572, _POLYREFUSE, "report"),
            "harmless_train": Part("harmless", 200, _POLYREFUSE_HARMLESS, "fit"),
            "harmless_val": Part("harmless", 200, _POLYREFUSE_HARMLESS, "select"),
            "harmless_test": Part("harmless", 500, _POLYREFUSE_HARMLESS, "report"),
        },
        reader=read_polyrefuse,
        layout="merged/harmful_test.csv, ... (columns row, en, ar, ...), or the repository's PolyRefuse/ and dataset/",
        licence="Apache-2.0; the harmless parts derive from Stanford Alpaca (CC-BY-NC-4.0)",
        citation="Wang et al. Refusal Direction is Universal Across Safety-Aligned Languages. NeurIPS 2025",
        homepage="https://github.com/mainlp/Multilingual-Refusal",
        non_commercial=True,
        unverified="the repository's file of the English harmful rows, which is looked for under two names",
        pitfalls=(
            "harmful_test repeats 10 English texts, up to 11 in a translation; rows are kept as published",
            "the Chinese harmless rows do not match the English ones and are left out",
        ),
    ),
    Benchmark(
        name="mlc",
        title="harmful questions of the multilingual consistency work",
        parts={
            "harmful_train": Part("harmful", 157, ("en", "zh", "ar", "ru", "ja", "bn", "sw", "ur", "ps", "ku")),
        },
        reader=wide("{part}.csv", identifier="row"),
        layout="harmful_train.csv (columns row, en, zh, ...)",
        licence="Apache-2.0; derives from PKU-SafeRLHF (CC-BY-NC-4.0)",
        citation="Align Once, Benefit Multilingually (MLC); Ji et al. PKU-SafeRLHF. arXiv:2406.15513",
        homepage="https://github.com/Yuyan-B/MLC",
        non_commercial=True,
        unverified="the layout: it is lingualign's, joined row by row from the repository's files",
        pitfalls=("Kurdish is written in the Arabic script in 123 rows and in the Latin one in 34",),
    ),
    Benchmark(
        name="advbench-x",
        title="AdvBench in the languages that MPO, ACTR and others report",
        parts={"all": Part("harmful", 520, ("en", "zh", "ko", "th", "sw", "bn", "it", "vi", "ar", "jv"))},
        reader=wide("advbench_x.csv"),
        layout="advbench_x.csv (one column per language)",
        licence="not stated; AdvBench is MIT",
        citation="AdvBench-x as used by Zhao et al. MPO. ACL 2025. arXiv:2505.16869; Zou et al. arXiv:2307.15043",
        homepage="https://arxiv.org/abs/2505.16869",
        unverified="the file itself: columns and row count are those that another repository's script gives; "
        "licence and place of publication were not found",
        pitfalls=("Afrikaans and Nepali columns are passed over: lingualign has no such language",),
    ),
    Benchmark(
        name="multilingual-advbench",
        title="another machine translation of AdvBench, on the hub",
        parts={"all": Part("harmful", 520, _MULTILINGUAL_ADVBENCH)},
        reader=file_per_language("{language}/train-*.parquet", text=("prompt",)),
        layout="en/train-*.parquet, ar/train-*.parquet, ...",
        licence="not stated; AdvBench is MIT",
        citation="Zou et al. Universal and Transferable Adversarial Attacks on Aligned Language Models. "
        "arXiv:2307.15043; translations: simonycl on the hub",
        homepage="https://huggingface.co/datasets/simonycl/multilingual_advbench",
        hub=Hub("simonycl/multilingual_advbench", ("*/train-*.parquet",)),
        unverified="the name of the prompt column and the licence; the folders, and that the 520 rows have the same "
        "order in each language, are from the hub",
        pitfalls=("Czech, Greek, Romanian and Ukrainian are passed over: lingualign has no such language",),
    ),
    Benchmark(
        name="csrt",
        title="MultiJail's prompts with up to ten languages mixed within a sentence",
        parts={"code-switched": Part("harmful", 315, ("en",)), "english": Part("harmful", 315, ("en",))},
        reader=lambda root, name, part, languages: one_language(
            "csrt.csv",
            "data/csrt.csv",
            text=("csrt" if name == "code-switched" else "en",),
            category=("category",),
            identifier="id",
        )(root, name, part, languages),
        layout="csrt.csv or data/csrt.csv (columns id, category, en, csrt)",
        licence="not stated (no licence file in the repository)",
        citation="Yoo et al. Code-Switching Red-Teaming: LLM Evaluation for Safety and Multilingual Understanding. "
        "ACL 2025. arXiv:2406.15481",
        homepage="https://github.com/haneul-yoo/csrt",
        unverified="the licence",
        pitfalls=(
            "a mixed prompt has no language of its own: it is filed under en, so language fidelity on it means nothing",
        ),
    ),
    Benchmark(
        name="aya-redteaming",
        title="harmful prompts written by native speakers, global and local harms",
        parts={
            "all": Part(
                "harmful",
                None,
                tuple(_AYA),
                rows_by_language={"en": 987, "hi": 915, "fr": 813, "es": 782, "ar": 900, "ru": 1007},
                parallel=False,
            )
        },
        reader=file_per_language("aya_{language}.jsonl", text=("prompt",), category="harm_category", names=_AYA),
        layout="aya_eng.jsonl, aya_hin.jsonl, aya_fra.jsonl, aya_spa.jsonl, aya_arb.jsonl, aya_rus.jsonl",
        licence="Apache-2.0",
        citation="Aakanksha et al. The Multilingual Alignment Prism. EMNLP 2024. arXiv:2406.18682",
        homepage="https://huggingface.co/datasets/CohereLabs/aya_redteaming",
        hub=Hub("CohereLabs/aya_redteaming", ("aya_*.jsonl",)),
        pitfalls=(_UNPARALLEL, "Serbian and Tagalog are passed over: lingualign has no such language"),
    ),
    Benchmark(
        name="polyguardprompts",
        title="WildGuard's test prompts, translated",
        parts={
            "harmful": Part("harmful", None, _POLYGUARD, file_rows=29325),
            "unharmful": Part("look-alike", None, _POLYGUARD, file_rows=29325),
        },
        reader=long(
            "data/test-*.parquet",
            "test-*.parquet",
            text="prompt",
            language="language",
            identifier="id",
            category="subcategory",
            needs=("prompt_harm_label",),
            belongs=_polyguard_label,
        ),
        layout="data/test-*.parquet (columns id, prompt, prompt_harm_label, subcategory, language, ...)",
        licence="CC-BY-4.0",
        citation="Kumar et al. PolyGuard: A Multilingual Safety Moderation Tool for 17 Languages. COLM 2025. "
        "arXiv:2504.04377",
        homepage="https://huggingface.co/datasets/ToxicityPrompts/PolyGuardPrompts",
        hub=Hub("ToxicityPrompts/PolyGuardPrompts", ("data/test-*.parquet",)),
        unverified="rows of each label; the file's 29,325 rows (17 languages of 1,725), columns and licence are as "
        "other repositories report them",
        pitfalls=(
            "rows without a label for the prompt are in no part; unharmful rows are mostly look-alikes, some plain",
            "Czech and Swedish are passed over: lingualign has no such language",
        ),
    ),
    Benchmark(
        name="m-alert",
        title="ALERT's prompts in five languages",
        parts={"all": Part("harmful", 14763, ("en", "de", "es", "fr", "it"))},
        reader=wide(_PARQUET, identifier="id", category="category"),
        layout="data/train-*.parquet (columns id, category, en, de, es, fr, it)",
        licence="CC-BY-NC-SA-4.0",
        citation="Friedrich et al. LLMs Lost in Translation: M-ALERT Uncovers Cross-Linguistic Safety Gaps. "
        "arXiv:2412.15035",
        homepage="https://huggingface.co/datasets/felfri/M-ALERT",
        hub=Hub("felfri/M-ALERT", (_PARQUET,)),
        non_commercial=True,
        pitfalls=("high-resource European languages only; the best of three machine translations by metric",),
    ),
    Benchmark(
        name="xthreatbench",
        title="harmful prompts after platform policies, of the Soteria work",
        parts={"all": Part("harmful", None, _XTHREATBENCH, parallel=False)},
        reader=long(
            "*.parquet",
            _PARQUET,
            "*.csv",
            "*.jsonl",
            "*.json",
            text="prompt",
            language="language",
            belongs=_every,
        ),
        layout="one Parquet, CSV, JSONL or JSON file with columns language and prompt",
        licence="not stated",
        citation="Banerjee et al. Soteria: Language-Specific Functional Parameter Steering. EMNLP 2025. "
        "arXiv:2502.11244",
        homepage="https://huggingface.co/datasets/SoftMINER-Group/Soteria",
        hub=Hub("SoftMINER-Group/Soteria", ("*.parquet", "*.csv", "*.jsonl", "*.json")),
        unverified="files, columns, licence and languages (listed are those of the repository's code); a later paper "
        "of the authors gives 3,150 prompts in 10 languages",
        pitfalls=(
            "where the columns differ, rename them to language and prompt, or give it as a prompt file of your own",
        ),
    ),
    Benchmark(
        name="linguasafe",
        title="translated, adapted and native prompts with a severity from 0 to 3",
        parts={
            "unsafe": Part("harmful", None, _LINGUASAFE, parallel=False),
            "safe": Part("look-alike", None, _LINGUASAFE, parallel=False),
        },
        reader=long(
            _PARQUET,
            "*.parquet",
            "linguasafe.csv",
            text="prompt",
            language="lang",
            category="subtype",
            needs=("level",),
            belongs=_severity,
        ),
        layout="data/train-*.parquet or linguasafe.csv (columns id, prompt, lang, type, subtype, level, source)",
        licence="MIT (code); of the data not stated",
        citation="Ning et al. LinguaSafe: A Comprehensive Multilingual Safety Benchmark. arXiv:2508.12733",
        homepage="https://github.com/zy-ning/LinguaSafe",
        hub=Hub("zhiyuan-ning/linguasafe", ("*.parquet", _PARQUET)),
        unverified="rows (the paper says 45,000 in 12 languages), the file's name and the licence of the data; columns "
        "are those of the authors' code",
        pitfalls=(
            _UNPARALLEL,
            "Serbian, Czech, Hungarian and Malay are passed over: lingualign has no such language",
        ),
    ),
    Benchmark(
        name="mpo-preference",
        title="the training pairs of MPO",
        parts={"train": Part("harmful", 600, ("en", "zh", "ko", "ar", "bn", "sw", "ja"))},
        reader=read_mpo,
        layout="gemma_mpo_data.json",
        licence="Apache-2.0; some prompts match PKU-SafeRLHF (CC-BY-NC-4.0)",
        citation="Zhao et al. MPO: Multilingual Safety Alignment via Reward Gap Optimization. ACL 2025. "
        "arXiv:2505.16869",
        homepage="https://github.com/circle-hit/MPO",
        non_commercial=True,
        pitfalls=(
            "the file does not name the target language, which is told by script; 22 of 600 targets are the English "
            "text again and are left out: 80 of 100 questions are in all languages",
        ),
    ),
)
