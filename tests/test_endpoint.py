"""The client of an OpenAI-compatible server, against a real one on this machine that misbehaves as it is told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lingualign.endpoint import Completion, Endpoint
from lingualign.errors import EndpointError
from lingualign.evaluate.judge import Exchange
from lingualign.evaluate.judges.registry import make_judge
from local_server import Answer, Server, bad, good

KEY = "sk-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    running = Server()
    yield running
    running.close()


def chat(endpoint: Endpoint, *texts: str) -> list[Completion]:
    return endpoint.chat([[{"role": "user", "content": text}] for text in texts], max_tokens=9, temperature=0)


def test_chats_and_raw_text_go_to_their_routes(server: Server) -> None:
    endpoint = server.endpoint()
    assert chat(endpoint, "hello") == [Completion("fine", True, 3)]
    assert endpoint.complete(["[INST] hello [/INST]"], max_tokens=9) == [Completion("fine", True, 3)]
    (path, headers, body), (raw_path, _, raw_body) = server.requests
    assert (path, raw_path) == ("/v1/chat/completions", "/v1/completions")
    assert headers["authorization" if "authorization" in headers else "Authorization"] == f"Bearer {KEY}"
    messages = [{"role": "user", "content": "hello"}]
    assert body == {"model": "guard", "messages": messages, "max_tokens": 9, "temperature": 0}
    assert raw_body == {"model": "guard", "prompt": "[INST] hello [/INST]", "max_tokens": 9}


def test_answers_keep_the_order_of_the_questions(server: Server) -> None:
    def late_first(_number: int, body: dict[str, Any]) -> Answer:
        text = body["messages"][0]["content"]
        time.sleep(0.1 if text == "0" else 0)
        return good(text)

    server.answer = late_first
    asked = [str(number) for number in range(20)]
    assert [found.text for found in chat(server.endpoint(), *asked)] == asked


def test_no_more_requests_at_once_than_allowed(server: Server) -> None:
    def slow(_number: int, _body: dict[str, Any]) -> Answer:
        time.sleep(0.05)
        return good("fine")

    server.answer = slow
    chat(server.endpoint(concurrency=3), *"abcdefghijkl")
    assert server.most_under_way == 3
    assert len(server.requests) == 12


@pytest.mark.parametrize("first", [bad(429), bad(500), bad(503), bad(408), (0, {}, b""), (502, {}, b"<html>")])
def test_what_may_pass_is_tried_again(server: Server, first: Answer) -> None:
    server.answer = lambda number, _body: first if number <= 2 else good("fine")
    assert chat(server.endpoint(), "hello") == [Completion("fine", True, 3)]
    assert len(server.requests) == 3


def test_the_pause_that_the_server_asks_for_is_kept(server: Server) -> None:
    server.answer = lambda number, _body: bad(429, Retry_After="0.3") if number == 1 else good("fine")
    start = time.monotonic()
    chat(server.endpoint(), "hello")
    assert time.monotonic() - start >= 0.3


def test_a_date_to_wait_for_is_understood(server: Server) -> None:
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.answer = lambda number, _body: (
        bad(503, Retry_After=past if number == 1 else "soon") if number < 3 else good("")
    )
    start = time.monotonic()
    chat(server.endpoint(), "hello")
    assert time.monotonic() - start < 5


def test_a_server_that_keeps_failing_ends_in_one_line(server: Server) -> None:
    server.answer = lambda _number, _body: bad(500, f"out of\nmemory \x1b[31m {KEY}")
    with pytest.raises(EndpointError) as caught:
        chat(server.endpoint(attempts=3), "hello")
    line = str(caught.value)
    assert "failed 3 times (status 500: out of memory [31m ***)" in line
    assert "give the same command again" in line
    assert "\n" not in line
    assert len(server.requests) == 3


def test_a_slow_server_is_given_up(server: Server) -> None:
    def slow(_number: int, _body: dict[str, Any]) -> Answer:
        time.sleep(0.5)
        return good("late")

    server.answer = slow
    with pytest.raises(EndpointError, match=r"failed 2 times \(no answer within 0\.1 s\)"):
        chat(server.endpoint(timeout=0.1, attempts=2), "hello")


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "put a valid API key into OPENAI_API_KEY"),
        (403, "API key that may use guard"),
        (404, "ends in /v1 and that the server knows the model guard"),
        (400, "change what the message says"),
    ],
)
def test_what_will_not_pass_ends_at_once(server: Server, status: int, fix: str) -> None:
    server.answer = lambda _number, _body: bad(status, f"Incorrect API key provided: {KEY}")
    with pytest.raises(EndpointError) as caught:
        chat(server.endpoint(concurrency=1), *"abcdef")
    assert fix in str(caught.value)
    assert KEY not in str(caught.value)
    # Those that waited are not sent any more.
    assert len(server.requests) <= 2


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b"[1]"])
def test_another_kind_of_server_is_told(server: Server, body: bytes) -> None:
    server.answer = lambda _number, _body: (200, {}, body)
    with pytest.raises(EndpointError, match="does not answer as an OpenAI-compatible server; give the address"):
        chat(server.endpoint(), "hello")


def test_an_answer_without_text_is_empty(server: Server) -> None:
    server.answer = lambda _number, _body: good(None, finish_reason="content_filter")
    assert chat(server.endpoint(), "hello") == [Completion("", False, 3)]


def test_nobody_there_is_told_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(EndpointError, match=r"cannot reach http://127\.0\.0\.1:9/v1 .*start the server") as caught:
        chat(Endpoint("http://user:pass@127.0.0.1:9/v1/", "guard"), "hello")
    assert time.monotonic() - start < 5
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://[", "ftp://host/v1"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(EndpointError, match="address"):
        chat(Endpoint(url, "guard"), "hello")


def test_a_key_that_cannot_be_one_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ge\nheim")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY holds characters") as caught:
        chat(server.endpoint(), "hello")
    assert "heim" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert chat(server.endpoint(), "hello")


def test_a_judge_behind_a_server_pays_once(server: Server, tmp_path: Path) -> None:
    server.answer = lambda _number, _body: good("Safety: Safe\nCategories: None\nRefusal: Yes")
    exchanges = [Exchange("bread?", f"I cannot help with recipe {number}, sorry.", "en", True) for number in range(9)]
    specification = f"qwen3guard:any/model@{server.url}"
    for _ in range(2):
        judge = make_judge(specification, cache=tmp_path / "cache.jsonl")
        assert {found.outcome for found in judge.judge(exchanges)} == {"refused"}
    assert len(server.requests) == 9
    assert server.requests[0][2]["max_tokens"] == 128
    assert KEY not in (tmp_path / "cache.jsonl").read_text()


def test_hostile_replies_reach_the_server(server: Server) -> None:
    server.answer = lambda _number, _body: good("Harmful request: no\nResponse refusal: no\nHarmful response: no")
    replies = ["\x00", "\ud800", "x" * 10**6, "<|user|>"]
    judge = make_judge(f"wildguard@{server.url}")
    assert len(judge.judge([Exchange("?", reply, "en", True) for reply in replies])) == 4
    assert {path for path, _, _ in server.requests} == {"/v1/completions"}
