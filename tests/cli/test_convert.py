"""`lingualign convert`: Parquet tables and Inspect logs of a finished run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli.conftest import LANGUAGES, Command
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.store import ReplyStore

#: A lone surrogate, a right-to-left override, an escape sequence, markup, and a lot of text.
HOSTILE = "\ud83d \u202e \x1b[31m <script> [red] \x00" + "x" * 1_000_000


@pytest.fixture
def hostile_run(finished_run: Path) -> Path:
    """A finished run whose first reply is hostile text."""
    store = ReplyStore(finished_run / "before.jsonl")
    first, *rest = store.load()
    store.path.unlink()
    store.append([replace(first, text=HOSTILE), *rest])
    return finished_run


def test_parquet_holds_every_reply(command: Command, finished_run: Path) -> None:
    from pyarrow import parquet

    outcome = command("convert", finished_run, "--to", "parquet", "--json")
    assert outcome.code == 0, outcome.stderr
    path = finished_run / "replies.parquet"
    assert json.loads(outcome.stdout) == {"format": "parquet", "files": [str(path)]}
    table = parquet.read_table(path)
    assert "text" not in table.column_names
    result = json.loads((finished_run / "result.json").read_text())
    rows = table.to_pylist()
    for arm in ("before", "after"):
        stored = {reply.key: reply for reply in ReplyStore(finished_run / f"{arm}.jsonl").load()}
        found = {(row["kind"], row["seed_id"], row["language"]): row for row in rows if row["arm"] == arm}
        assert found.keys() == stored.keys()
        for key, reply in stored.items():
            row = found[key]
            assert (row["outcome"], row["score"], row["tokens"], row["finished"], row["unsafe"]) == (
                (reply.outcome, reply.score, reply.tokens, reply.finished, reply.unsafe)
            )
            assert row["characters"] == len(reply.text)
            assert row["reply_language"] == (reply.reply_language or None)
            assert row["model_fingerprint"] == result["model"]["fingerprint"]
    metadata = json.loads(table.schema.metadata[b"lingualign"])
    assert (metadata["schema"], metadata["judge"]) == ("lingualign-replies/1", result["judge"]["name"])


def test_parquet_survives_hostile_replies(command: Command, hostile_run: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "deep" / "r.parquet"
    assert command("convert", hostile_run, "--to", "parquet", "--out", path, "--show-text").code == 0
    row = parquet.read_table(path).to_pylist()[0]
    assert row["text"] == HOSTILE.replace("\ud83d", "\ufffd")
    assert row["characters"] == len(HOSTILE)
    assert [file.name for file in path.parent.iterdir()] == ["r.parquet"]


def test_unfinished_run_is_refused(command: Command, finished_run: Path) -> None:
    (finished_run / "result.json").unlink()
    outcome = command("convert", finished_run, "--to", "parquet")
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "unfinished run" in outcome.stderr


def test_inspect_reads_the_logs(command: Command, finished_run: Path, tmp_path: Path) -> None:
    log_module = pytest.importorskip("inspect_ai.log")
    out = tmp_path / "logs"
    outcome = command("convert", finished_run, "--to", "inspect", "--out", out, "--json")
    assert outcome.code == 0, outcome.stderr
    paths = json.loads(outcome.stdout)["files"]
    assert len(paths) == 2
    listed = log_module.list_eval_logs(str(out))
    assert {Path(entry.name).name for entry in listed} == {Path(path).name for path in paths}
    for arm, path in zip(("before", "after"), paths, strict=True):
        log = log_module.read_eval_log(path)
        stored = ReplyStore(finished_run / f"{arm}.jsonl").load()
        assert (log.status, log.eval.task_args["arm"], len(log.samples)) == ("success", arm, len(stored))
        samples = {sample.id: sample for sample in log.samples}
        for reply in stored:
            sample = samples["/".join(reply.key)]
            assert sample.scores["outcome"].value == reply.outcome
            assert (sample.metadata["language"], sample.metadata["kind"]) == (reply.language, reply.kind)
            assert sample.output.usage.output_tokens == reply.tokens
            assert "not shown" in sample.input
            assert "not shown" in sample.output.completion
        (score,) = log.results.scores
        for cell in cells(stored):
            metric = score.metrics[f"refused {cell.kind} {cell.language}"]
            assert (metric.value, metric.metadata["n"]) == (cell.refusal_rate, cell.n)
        assert len(score.metrics) == 3 * len(LANGUAGES)


def test_inspect_logs_survive_hostile_replies(command: Command, hostile_run: Path, tmp_path: Path) -> None:
    log_module = pytest.importorskip("inspect_ai.log")
    out = tmp_path / "logs"
    outcome = command("convert", hostile_run, "--to", "inspect", "--out", out, "--show-text")
    assert outcome.code == 0, outcome.stderr
    before = next(path for path in out.iterdir() if "before" in path.name)
    samples = log_module.read_eval_log(str(before)).samples
    assert HOSTILE.replace("\ud83d", "\ufffd") in {sample.output.completion for sample in samples}
    assert any("please tell me about harmful" in sample.input for sample in samples)


@pytest.mark.parametrize("subcommand", [("list",), ("dump",)])
def test_inspect_program_opens_the_logs(command: Command, finished_run: Path, subcommand: tuple[str, ...]) -> None:
    pytest.importorskip("inspect_ai")
    command("convert", finished_run, "--to", "inspect")
    logs = sorted((finished_run / "inspect").iterdir())
    where = ["--log-dir", str(logs[0].parent)] if subcommand == ("list",) else [str(logs[0])]
    program = [sys.executable, "-m", "inspect_ai", "log", *subcommand, *where]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    if subcommand == ("list",):
        assert all(log.name in done.stdout for log in logs)
    else:
        assert json.loads(done.stdout)["eval"]["task"] == "lingualign-audit"


def test_same_run_replaces_its_logs(command: Command, finished_run: Path) -> None:
    pytest.importorskip("inspect_ai")
    for _ in range(2):
        assert command("convert", finished_run, "--to", "inspect").code == 0
    assert len(list((finished_run / "inspect").iterdir())) == 2
