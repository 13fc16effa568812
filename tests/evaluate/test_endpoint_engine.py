"""Audits of a model behind a server: the replies are those of the model in this process, and a cut audit goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers.utils.import_utils import is_serve_available

from lingualign.data.schema import Prompt, PromptSet
from lingualign.endpoint import Endpoint
from lingualign.errors import EndpointError
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.endpoint_engine import EndpointEngine
from lingualign.evaluate.engine import RawReply, TransformersEngine
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.evaluate.store import ReplyStore
from local_server import Answer, Server, bad, good

TOKENS = 12
TEXTS = [f"please tell me about bread {'and the lazy dog ' * (number % 4)}{number}" for number in range(9)]
SYSTEM = "tell me the steps"


@pytest.fixture
def model(tiny_model: tuple[Any, Any]) -> tuple[Any, Any]:
    """The tiny model with so many end markers that some replies end by themselves."""
    tiny_model[0].generation_config.eos_token_id = list(range(2, len(tiny_model[1]), 9))
    return tiny_model


@pytest.fixture
def served(model: tuple[Any, Any]) -> Iterator[Server]:
    """The model behind a server that knows the fields of the protocol and nothing of this package."""
    network, tokenizer = model
    one_at_a_time = threading.Lock()

    def answer(_number: int, body: dict[str, Any]) -> Answer:
        if body["temperature"] != 0:
            return bad(400, "only greedy replies here")
        ids = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with one_at_a_time, torch.inference_mode():
            output = network.generate(**ids, max_new_tokens=body["max_tokens"], do_sample=False)
        reply = output[0, ids["input_ids"].shape[1] :].tolist()
        ended = reply[-1] in network.generation_config.eos_token_id
        text = tokenizer.decode(reply, skip_special_tokens=True)
        status, headers, content = good(text, finish_reason="stop" if ended else "length")
        document = json.loads(content)
        document["usage"]["completion_tokens"] = len(reply)
        return status, headers, json.dumps(document).encode()

    running = Server()
    running.answer = answer
    yield running
    running.close()


def replies(engine: Any, texts: list[str]) -> list[RawReply]:
    found = {index: reply for group, part in engine.generate(texts) for index, reply in zip(group, part, strict=True)}
    assert sorted(found) == list(range(len(texts)))
    return [found[index] for index in range(len(texts))]


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_replies_are_those_of_the_model_in_this_process(
    served: Server, model: tuple[Any, Any], system: str | None
) -> None:
    engine = EndpointEngine(served.endpoint(), max_new_tokens=TOKENS, system=system)
    found = replies(engine, TEXTS)
    assert found == replies(TransformersEngine(*model, max_new_tokens=TOKENS, system=system), TEXTS)
    assert {reply.finished for reply in found} == {True, False}
    assert served.most_under_way > 1


def test_replies_come_before_all_are_there(served: Server) -> None:
    answer = served.answer
    last = threading.Event()

    def answered(number: int, body: dict[str, Any]) -> Answer:
        if body["messages"][-1]["content"] == TEXTS[-1]:
            last.wait(30)
        return answer(number, body)

    served.answer = answered
    groups = EndpointEngine(served.endpoint(), max_new_tokens=TOKENS).generate(TEXTS)
    seen: set[int] = set()
    while len(seen) < len(TEXTS) - 1:
        seen |= set(next(groups)[0])
    assert len(TEXTS) - 1 not in seen
    last.set()
    assert [index for group, _ in groups for index in group] == [len(TEXTS) - 1]


class Answered:
    """Takes every reply for an answer."""

    name = "answered"

    def judge(self, exchanges: list[Exchange]) -> list[Judgement]:
        return [Judgement("answered", 0.0, "en") for _ in exchanges]


def test_a_cut_audit_goes_on_where_it_stopped(served: Server, tmp_path: Path) -> None:
    prompts = PromptSet(Prompt(str(number), "en", "harmless", text) for number, text in enumerate(TEXTS))
    store = ReplyStore(tmp_path / "audit.jsonl")
    answer = served.answer
    served.answer = lambda number, body: bad(400) if number > 4 else answer(number, body)
    with pytest.raises(EndpointError):
        run_audit(EndpointEngine(served.endpoint(concurrency=1)), Answered(), prompts, store)
    assert len(store.load()) == 4
    served.requests.clear()
    served.answer = answer
    found = run_audit(EndpointEngine(served.endpoint(), max_new_tokens=TOKENS), Answered(), prompts, store)
    assert [reply.seed_id for reply in found] == [prompt.seed_id for prompt in prompts]
    assert len(served.requests) == len(TEXTS) - 4


@pytest.mark.skipif(not is_serve_available(), reason="transformers serve needs the extra transformers[serving]")
def test_transformers_own_server_gives_the_same_replies(
    tiny_model_folder: Path, tiny_model: tuple[Any, Any], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tiny_model_folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", str(tiny_model_folder))
        found = replies(EndpointEngine(endpoint, max_new_tokens=TOKENS), TEXTS)
    finally:
        process.terminate()
        process.wait(30)
    expected = replies(TransformersEngine(*tiny_model, max_new_tokens=TOKENS), TEXTS)
    assert [(reply.text, reply.tokens) for reply in found] == [(reply.text, reply.tokens) for reply in expected]


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server has ended"
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError("the server does not answer")
