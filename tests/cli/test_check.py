"""`lingualign check`: files of lm-eval, Inspect and HarmBench, and run folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command

#: As lm_eval 0.4.13 wrote them (`--model dummy --log_samples`, four made-up tasks); the environment's report taken out.
LM_EVAL = Path(__file__).parents[1] / "interop" / "files" / "lm-eval"
REFUSALS = {
    "en": "I'm sorry, but I can't help with that request.",
    "th": "ขออภัย ฉันไม่สามารถช่วยเหลือในเรื่องนี้ได้",
    "de": "Es tut mir leid, aber dabei kann ich nicht helfen.",
}
ANSWERS = {
    "en": "Bread is made from flour, water, salt and yeast, and it is baked in a hot oven for an hour.",
    "th": "ขนมปังทำจากแป้ง น้ำ เกลือ และยีสต์ แล้วนำไปอบในเตาร้อนประมาณหนึ่งชั่วโมง",
    "de": "Brot wird aus Mehl, Wasser, Salz und Hefe gemacht und eine Stunde im heißen Ofen gebacken.",
}
PROMPTS = {
    "en": "How is good bread made at home?",
    "th": "วิธีทำขนมปังที่บ้านทำอย่างไร",
    "de": "Wie macht man zu Hause gutes Brot?",
}
LANGUAGES = tuple(REFUSALS)
SEEDS = 12
#: A lone surrogate, a right-to-left override, an escape sequence, markup, and a lot of text.
HOSTILE = "\ud83d \u202e \x1b[31m <script> [red] \x00" + "x" * 1_000_000


def text_of(language: str, refused: bool) -> str:
    return REFUSALS[language] if refused else ANSWERS[language]


def write_lm_eval(folder: Path, refused: dict[str, int], languages: Sequence[str] = LANGUAGES) -> Path:
    """Samples files of parallel tasks, the first `refused` seeds of each language refused."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in languages:
        lines = [
            {
                "doc_id": seed,
                "doc": {"question": PROMPTS[language]},
                "target": "",
                "arguments": {"gen_args_0": {"arg_0": PROMPTS[language], "arg_1": {"until": []}}},
                "resps": [[text_of(language, seed < refused[language])]],
                "filtered_resps": [""],
                "filter": name,
                "metrics": [],
            }
            for seed in range(SEEDS)
            for name in ("none", "second")
        ]
        path = folder / f"samples_bread_{language}_2026-11-26T10-00-00.000001.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_harmbench(path: Path, replies: Sequence[str], labels: Sequence[int] | None = None) -> Path:
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, reply in enumerate(replies):
        row: dict[str, Any] = {"test_case": PROMPTS["th"], "generation": reply}
        if labels:
            row["label"] = labels[number]
        # Two test cases for each behaviour.
        rows.setdefault(f"bread_{number // 2}", []).append(row)
    path.write_text(json.dumps(rows))
    return path


def harmful_rates(document: dict[str, Any]) -> dict[str, tuple[int, float]]:
    return {cell["language"]: (cell["n"], cell["refusal_rate"]) for cell in document["cells"]}


def test_files_that_lm_eval_wrote(command: Command) -> None:
    outcome = command("check", LM_EVAL, "--json")
    assert outcome.code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert (document["model"], document["formats"], document["replies"]) == ("made-up", {"lm-eval": 5}, 4)
    assert harmful_rates(document) == {"en": (2, 0.0), "th": (2, 0.0)}
    scores = {(score["task"], score["metric"], score["language"]): score for score in document["scores"]}
    assert scores.keys() == {
        (task, metric, tag) for task, metric in (("toy_gen", "exact_match"), ("toy_mc", "acc")) for tag in ("en", "th")
    }
    accuracy = scores["toy_mc", "acc", "th"]
    assert (accuracy["value"], accuracy["stderr"], accuracy["n"], accuracy["stated"]) == (0.5, 0.5, 2, True)


def test_samples_alone_give_the_score_that_lm_eval_states(command: Command, tmp_path: Path) -> None:
    for path in LM_EVAL.glob("samples_toy_mc_*"):
        shutil.copy(path, tmp_path)
    document = json.loads(command("check", tmp_path, "--json").stdout)
    assert document["cells"] == []
    assert [(row["language"], row["value"], row["stderr"], row["stated"]) for row in document["scores"]] == [
        ("en", 0.5, 0.5, False),
        ("th", 0.5, 0.5, False),
    ]


def write_scores(folder: Path, right: dict[str, int]) -> Path:
    """Multiple-choice samples of parallel tasks, the first `right` of each language right."""
    folder.mkdir()
    for language, count in right.items():
        lines = [
            {"doc_id": seed, "resps": [[["-1.0", "False"]]], "metrics": ["acc"], "acc": float(seed < count)}
            for seed in range(SEEDS)
        ]
        path = folder / f"samples_quiz_{language}_2026-11-26T10-00-00.000001.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_scores_are_paired_by_sample(command: Command, tmp_path: Path) -> None:
    before = write_scores(tmp_path / "before", {"en": 6, "th": 2})
    after = write_scores(tmp_path / "after", {"en": 6, "th": 11})
    arguments = ("check", after, "--against", before)
    document = json.loads(command(*arguments, "--json").stdout)
    english, thai = document["score_changes"]
    assert (english["language"], english["difference"], english["p_adjusted"]) == ("en", 0.0, 1.0)
    assert (thai["language"], thai["n"], thai["gained"], thai["lost"]) == ("th", 12, 9, 0)
    assert thai["difference"] == pytest.approx(0.75)
    assert thai["p_adjusted"] == pytest.approx(2 * 2 * 0.5**9)
    assert 0 < thai["interval"][0] < 0.75 < thai["interval"][1]
    assert "0.17 → 0.92" in command(*arguments).stdout
    shorter = next(before.glob("*_th_*"))
    shorter.write_text("\n".join(shorter.read_text().splitlines()[:-1]))
    outcome = command(*arguments)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "1 of the samples in th" in outcome.stderr


def test_repeats_are_replies_but_one_score(command: Command, tmp_path: Path) -> None:
    line = {"doc_id": 0, "resps": [[REFUSALS["th"], ANSWERS["th"]]], "metrics": ["bleu"], "bleu": 0.5}
    (tmp_path / "samples_bread_th.jsonl").write_text(json.dumps(line) + "\n")
    document = json.loads(command("check", tmp_path, "--against", tmp_path, "--json").stdout)
    assert harmful_rates(document) == {"th": (2, 0.5)}
    assert [(score["value"], score["n"], score["stderr"]) for score in document["scores"]] == [(0.5, 1, None)]
    # A score between 0 and 1 has no pairs to count.
    assert document["score_changes"] == []


def test_language_from_task_name(command: Command, tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path / "a", {"en": 12, "th": 3, "de": 6})
    outcome = command("check", folder, "--json")
    document = json.loads(outcome.stdout)
    assert document["language_from"] == {"task": 36}
    assert harmful_rates(document) == {"en": (12, 1.0), "th": (12, 0.25), "de": (12, 0.5)}
    shown = command("check", folder).stdout
    assert "Thai (th)" in shown
    assert not any(text in shown for text in (*PROMPTS.values(), *REFUSALS.values(), *ANSWERS.values()))


def test_only_the_latest_file_of_a_task_is_read(command: Command, tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path / "a", dict.fromkeys(LANGUAGES, 12))
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("10-00-00", "09-00-00")))
    write_lm_eval(folder, dict.fromkeys(LANGUAGES, 6))
    assert set(harmful_rates(json.loads(command("check", folder, "--json").stdout)).values()) == {(12, 0.5)}


def test_two_models_are_paired(command: Command, tmp_path: Path) -> None:
    before = write_lm_eval(tmp_path / "before", {"en": 12, "th": 0, "de": 2})
    after = write_lm_eval(tmp_path / "after", {"en": 12, "th": 12, "de": 3})
    arguments = ("check", after, "--against", before)
    document = json.loads(command(*arguments, "--json").stdout)
    changes = {change["language"]: change for change in document["comparison"]["harmful_refusal"]["changes"]}
    assert (changes["th"]["gained"], changes["th"]["lost"], changes["de"]["gained"]) == (12, 0, 1)
    # Exact McNemar of 12 to 0, times Holm's 3.
    assert changes["th"]["p_adjusted"] == pytest.approx(3 * 2 * 0.5**12)
    assert changes["de"]["p_adjusted"] == 1.0
    shown = command(*arguments)
    assert document["verdict"] in shown.stdout
    assert "significant in 1 after Holm" in shown.stdout


@pytest.mark.parametrize(
    ("gate", "against", "code"),
    [
        ("worst_asr<=0.80", False, 0),
        ("worst_asr<=0.10", False, 1),
        ("refusal_gain>=0.1", True, 0),
        ("languages_down<=0", True, 0),
        ("refusal_gain>=0.9", True, 1),
        ("refusal_gain>=0.1", False, 2),
    ],
)
def test_gates(command: Command, tmp_path: Path, gate: str, against: bool, code: int) -> None:
    after = write_lm_eval(tmp_path / "after", {"en": 12, "th": 3, "de": 6})
    before = write_lm_eval(tmp_path / "before", {"en": 12, "th": 0, "de": 2})
    outcome = command("check", after, "--require", gate, *(("--against", before) if against else ()))
    assert outcome.code == code, outcome.stderr
    assert len(outcome.error_lines) == (code > 0)
    assert ("--against" in outcome.stderr) == (code == 2)


def test_other_prompts_do_not_pair(command: Command, tmp_path: Path) -> None:
    before = write_lm_eval(tmp_path / "before", dict.fromkeys(LANGUAGES, 1), languages=("en", "th"))
    after = write_lm_eval(tmp_path / "after", dict.fromkeys(LANGUAGES, 1))
    outcome = command("check", after, "--against", before)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "one side only" in outcome.stderr


def test_harmbench(command: Command, tmp_path: Path) -> None:
    replies = [REFUSALS["th"], ANSWERS["th"], REFUSALS["th"], REFUSALS["th"]]
    path = write_harmbench(tmp_path / "made-up.json", replies, labels=[0, 1, 0, 0])
    document = json.loads(command("check", path, "--json").stdout)
    assert document["language_from"] == {"prompt": 4}
    assert harmful_rates(document) == {"th": (4, 0.75)}
    (score,) = document["scores"]
    assert (score["metric"], score["value"], score["n"]) == ("ASR (label)", 0.25, 4)
    # Repeats of a behaviour pair one by one.
    compared = json.loads(command("check", path, "--against", path, "--json").stdout)["comparison"]
    assert compared["harmful_refusal"]["changes"][0]["n"] == 4


def test_languages_from_option(command: Command, tmp_path: Path) -> None:
    path = write_harmbench(tmp_path / "made-up.json", [REFUSALS["de"]])
    document = json.loads(command("check", path, "--languages-from", "made-up=de", "--json").stdout)
    assert (harmful_rates(document), document["language_from"]) == ({"de": (1, 1.0)}, {"option": 1})
    folder = LM_EVAL
    document = json.loads(command("check", folder, "--languages-from", "language", "--json").stdout)
    assert document["language_from"] == {"option": 8}
    outcome = command("check", path, "--languages-from", "made-up=Klingon")
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    outcome = command("check", path, "--languages-from", "no.such.field")
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "--languages-from" in outcome.stderr


def test_kind_option(command: Command, tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path / "a", dict.fromkeys(LANGUAGES, 3))
    document = json.loads(command("check", folder, "--kind", "look-alike", "--json").stdout)
    assert {cell["kind"] for cell in document["cells"]} == {"look-alike"}
    assert command("check", folder, "--kind", "look-alike").code == 0


def test_run_folder_keeps_its_verdicts(command: Command, finished_run: Path) -> None:
    result = json.loads((finished_run / "result.json").read_text())
    document = json.loads(command("check", finished_run, "--json").stdout)
    assert document["judge"] == result["judge"]["name"]
    found = {(cell["language"], cell["kind"]): cell["refused"] for cell in document["cells"]}
    assert found == {(cell["language"], cell["kind"]): cell["refused"] for cell in result["comparison"]["after"]}
    again = json.loads(command("check", finished_run, "--judge", "ngram", "--json").stdout)
    assert again["cells"] == document["cells"]


def _inspect_logs(folder: Path, form: str) -> None:
    """Logs that Inspect itself writes; the canned solver needs no model."""
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import match
    from inspect_ai.solver import solver

    @solver
    def canned() -> Any:
        async def solve(state: Any, _generate: Any) -> Any:
            language = state.metadata["language"]
            state.output = ModelOutput.from_content("made-up", text_of(language, state.metadata["number"] == 0))
            return state

        return solve

    samples = [
        Sample(
            id=f"{number}-{language}",
            input=[ChatMessageSystem(content="Be kind."), ChatMessageUser(content=PROMPTS[language])],
            target="Bread",
            metadata={"language": language, "number": number, "seed_id": str(number)},
        )
        for number in range(2)
        for language in LANGUAGES
    ]
    task = inspect_ai.Task(
        name="bread", dataset=MemoryDataset(samples), solver=canned(), scorer=match(location="begin")
    )
    (log,) = inspect_ai.eval(task, model="mockllm/model", log_dir=str(folder), log_format=form, display="none")
    assert log.status == "success"


@pytest.mark.parametrize("form", ["eval", "json"])
def test_logs_that_inspect_wrote(command: Command, tmp_path: Path, form: str) -> None:
    _inspect_logs(tmp_path, form)
    document = json.loads(command("check", tmp_path, "--json").stdout)
    assert (document["model"], document["formats"]) == ("mockllm/model", {"inspect": 1})
    assert document["language_from"] == {"field": 6}
    assert harmful_rates(document) == dict.fromkeys(LANGUAGES, (2, 0.5))
    scores = {(score["metric"], score["language"]): score["value"] for score in document["scores"]}
    assert (scores["match", "en"], scores["match", "th"]) == (0.5, 0.0)
    assert scores["match accuracy", ""] == pytest.approx(1 / 6)


def test_own_inspect_logs_come_back(command: Command, finished_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    assert command("convert", finished_run, "--to", "inspect", "--out", shown, "--show-text").code == 0
    assert command("convert", finished_run, "--to", "inspect", "--out", hidden).code == 0
    (after,) = shown.glob("*after*")
    run, log = (json.loads(command("check", path, "--json").stdout) for path in (finished_run, after))

    def counted(document: dict[str, Any]) -> set[tuple[Any, ...]]:
        return {(row["language"], row["kind"], row["refused"], row["incoherent"]) for row in document["cells"]}

    assert counted(log) == counted(run)
    (after,) = hidden.glob("*after*")
    outcome = command("check", after)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "without the replies" in outcome.stderr


def test_hostile_texts_do_no_harm(command: Command, tmp_path: Path) -> None:
    line = {
        "doc_id": 0,
        "doc": {"question": HOSTILE, "language": "th", "id": "\u202e[red]\x1b[31m"},
        "arguments": {"gen_args_0": {"arg_0": HOSTILE}},
        "resps": [[HOSTILE]],
        "metrics": ["\x1b[31m\u202eacc" + "m" * 1_000_000],
        "\x1b[31m\u202eacc" + "m" * 1_000_000: 1.0,
    }
    (tmp_path / "samples_x_2026-11-26T10-00-00.000001.jsonl").write_text(json.dumps(line) + "\n")
    write_harmbench(tmp_path / "h.json", [HOSTILE])
    outcome = command("check", tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert not set(outcome.stdout) & set("\x1b\u202e\x00")
    assert len(outcome.stdout) < 10_000
    assert json.loads(command("check", tmp_path, "--json").stdout)["replies"] == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{}", "no known format"),
        ("a.json", "{", "no known format"),
        ("a.json", "[" * 100_000, "no known format"),
        ("a.json", '{"results": 1, "configs": {}}', "damaged at 'results'"),
        ("a.json", '{"results": {"t": {"acc,none": 1' + "0" * 400 + '}}, "configs": {}}', "damaged"),
        ("a.json", '{"b": [{"generation": 1, "test_case": "x"}]}', "damaged at 'b.0.generation'"),
        ("a.jsonl", '{"doc_id": 0, "resps": 1}\n', "damaged at 'resps'"),
        ("a.jsonl", '{"doc_id": 0, "resps": []}\n{', "line 2"),
        ("a.jsonl", '{"text": 1}\n', "no known format"),
        ("a.csv", "x", "no known format"),
    ],
)
def test_bad_files_give_one_line(command: Command, tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    outcome = command("check", path)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1), outcome.stderr
    assert says in outcome.stderr
    assert str(path) in outcome.stderr


def test_bad_inspect_logs_give_one_line(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    (tmp_path / "a.eval").write_bytes(b"PK\x03\x04nonsense")
    (tmp_path / "b.json").write_text('{"version": 2, "status": "success", "eval": {}}')
    for path in tmp_path.iterdir():
        outcome = command("check", path)
        assert (outcome.code, len(outcome.error_lines)) == (2, 1), outcome.stderr
        assert "Inspect cannot read it" in outcome.stderr


def test_nothing_to_read(command: Command, tmp_path: Path) -> None:
    for path, says in ((tmp_path, "no result file"), (tmp_path / "none", "no such file")):
        outcome = command("check", path)
        assert (outcome.code, len(outcome.error_lines)) == (2, 1)
        assert says in outcome.stderr


def test_several_models_are_refused(command: Command, tmp_path: Path) -> None:
    (results,) = LM_EVAL.glob("results_*")
    for name in ("one", "two"):
        document = json.loads(results.read_text()) | {"model_name": name}
        (tmp_path / name).mkdir()
        (tmp_path / name / results.name).write_text(json.dumps(document))
    outcome = command("check", tmp_path)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "2 models" in outcome.stderr


def test_inspect_is_asked_for_by_name(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    (tmp_path / "a.eval").write_bytes(b"")
    outcome = command("check", tmp_path / "a.eval")
    assert (outcome.code, outcome.error_lines) == (
        2,
        ["error: inspect-ai is not installed; run `pip install 'lingualign[inspect]'`"],
    )
