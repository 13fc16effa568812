"""`lingualign audit --endpoint`: a model behind a server, end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import LANGUAGES, Command
from lingualign.config import load_config
from lingualign.evaluate.store import ReplyStore
from lingualign.result_schema import ResultDocument
from local_server import Answer, Server, good

NAME = "org/some-chat-model"


@pytest.fixture
def server() -> Iterator[Server]:
    def answer(_number: int, body: dict[str, Any]) -> Answer:
        refuses = "harmful" in body["messages"][-1]["content"]
        return good("I'm sorry, but I can't help with that." if refuses else "Take flour, water and salt, and bake it.")

    running = Server()
    running.answer = answer
    yield running
    running.close()


def test_audit_of_a_model_behind_a_server(
    command: Command, server: Server, settings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ("audit", NAME, "--endpoint", server.url, "--config", settings_file, "--out", out)
    outcome = command(*arguments, "--concurrency", 3)
    assert outcome.code == 0, outcome.stderr
    assert f"Model     {NAME} at {server.url}, at most 3 requests at once" in outcome.stdout
    assert "Left out  perplexity, divergence" in outcome.stdout
    assert "audit before: 36/36" in outcome.stderr
    assert len(server.requests) == 36
    assert server.most_under_way <= 3
    assert {(body["model"], body["max_tokens"]) for _, _, body in server.requests} == {(NAME, 6)}
    assert {path.name for path in out.iterdir()} == {
        "run.json", "config.toml", "before.jsonl", "judged", "result.json", "report.html", ".lock",
    }  # fmt: skip
    assert {reply.language for reply in ReplyStore(out / "before.jsonl").load()} == set(LANGUAGES)
    figures = json.loads((out / "result.json").read_text())
    ResultDocument.model_validate(figures)
    assert figures["model"] == {
        "name": NAME,
        "fingerprint": f"{NAME}@{server.url}",
        "parameters": None,
        "dtype": None,
    }
    assert figures["hardware"] == f"the server at {server.url}"
    refused = {cell["kind"]: cell["refused"] for cell in figures["cells"] if cell["language"] == "en"}
    assert refused == {"harmful": 3, "look-alike": 0, "harmless": 0}
    assert figures["prompt_controls"]["length"] == []
    assert figures["utility"] == {"tasks": [], "perplexity": [], "generation": [], "comparison": None}
    assert load_config(out / "config.toml").endpoint.url == server.url
    # The same again asks nothing; how many requests at once changes nothing.
    assert command(*arguments, "--concurrency", 2).code == 0
    assert len(server.requests) == 36


def test_a_folder_belongs_to_its_server(
    command: Command, server: Server, finished_run: Path, settings_file: Path, tiny_model_folder: Path
) -> None:
    arguments = ("audit", tiny_model_folder, "--config", settings_file, "--out", finished_run)
    outcome = command(*arguments, "--endpoint", server.url)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "was made with another model weights" in line
    assert server.requests == []


@pytest.mark.parametrize("name", ["run", "plan", "edit"])
def test_what_needs_weights_is_refused(command: Command, settings_file: Path, tmp_path: Path, name: str) -> None:
    settings = tmp_path / "served.toml"
    settings.write_text(settings_file.read_text() + '[endpoint]\nurl = "http://127.0.0.1:9/v1"\n', encoding="utf-8")
    outcome = command(name, NAME, "--config", settings)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert "only an audit can do without the model's weights; leave endpoint.url out" in line


@pytest.mark.parametrize(
    ("more", "fix"),
    [
        (("--endpoint", "localhost:8000"), "give an address like http://localhost:8000/v1"),
        (("--endpoint", "http://me:secret@host/v1"), "with no user or password in it"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--task", "lingualign_xcopa_th"), "leave out utility.tasks"),
        (("--endpoint", "http://127.0.0.1:9/v1"), "start the server, or correct the address"),
        (("--batch-size", "many"), "audit.batch_size"),
    ],
)
def test_wrong_settings_end_in_one_line(
    command: Command, settings_file: Path, tmp_path: Path, more: tuple[str, ...], fix: str
) -> None:
    outcome = command("audit", NAME, "--config", settings_file, "--out", tmp_path / "run", "--quiet", *more)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert fix in line
