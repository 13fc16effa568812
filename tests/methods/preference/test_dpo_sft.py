"""DPO and SFT by TRL: the losses are those of the equations on our tokens, and the model is left alone."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lingualign.errors import ConfigError, DataError, MissingDependency, NumericalError
from lingualign.methods.preference.dpo import DPO
from lingualign.methods.preference.encoding import both, encode_preferences, reply_log_probs
from lingualign.methods.preference.pairs import PreferencePair, preferences
from lingualign.methods.preference.sft import SFT
from lingualign.methods.preference.training import Training

pytest.importorskip("trl")

TRAINING = Training(
    learning_rate=2e-3, num_train_epochs=2, per_device_train_batch_size=12, tuning="lora", warmup_ratio=0.0
)


@torch.no_grad()
def _log_probs(model: Any, tokenizer: Any, pairs: list[PreferencePair]) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = encode_preferences(tokenizer, preferences(pairs), 1024)
    return reply_log_probs(model, both(list(encoded.values())), tokenizer.pad_token_id)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_dpo_steps_have_the_papers_loss(tiny_model: Any, pairs: list[PreferencePair], tuning: Any) -> None:
    model, tokenizer = tiny_model
    training = replace(TRAINING, tuning=tuning)
    # All pairs in one batch, so the first step is the same however many follow.
    once = DPO(training=replace(training, num_train_epochs=1)).fit(model, tokenizer, pairs)
    twice = DPO(training=training).fit(model, tokenizer, pairs)
    losses = [step["loss"] for step in twice.manifest["loss_curve"]]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    reference = _log_probs(model, tokenizer, pairs)[0]
    with once.applied(model):
        policy = _log_probs(model, tokenizer, pairs)[0]
    chosen, rejected = (policy - reference).chunk(2)
    expected = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()
    assert losses[1] == pytest.approx(float(expected), abs=2e-4)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_sft_steps_have_the_mean_cross_entropy_of_reply_tokens(
    tiny_model: Any, pairs: list[PreferencePair], tuning: Any
) -> None:
    model, tokenizer = tiny_model
    training = replace(TRAINING, tuning=tuning)
    edit = SFT(training=replace(training, num_train_epochs=1)).fit(model, tokenizer, pairs)
    (step,) = edit.manifest["loss_curve"]
    sums, lengths = (values.chunk(2)[0] for values in _log_probs(model, tokenizer, pairs))
    before = float(-sums.sum() / lengths.sum())
    assert step["loss"] == pytest.approx(before, rel=1e-3)
    with edit.applied(model):
        sums = _log_probs(model, tokenizer, pairs)[0].chunk(2)[0]
    assert float(-sums.sum() / lengths.sum()) < before


@pytest.mark.parametrize("method", [DPO, SFT])
def test_a_trained_model_prefers_chosen_replies(tiny_model: Any, pairs: list[PreferencePair], method: Any) -> None:
    model, tokenizer = tiny_model
    training = replace(TRAINING, learning_rate=1e-2, num_train_epochs=15, per_device_train_batch_size=4)
    edit = method(training=training).fit(model, tokenizer, pairs)
    with edit.applied(model):
        sums, lengths = _log_probs(model, tokenizer, pairs)
    chosen, rejected = (sums / lengths).chunk(2)
    assert bool((chosen > rejected).all())


@pytest.mark.parametrize("method", [DPO, SFT])
@pytest.mark.parametrize(("precision", "tuning"), [(torch.float32, "lora"), (torch.bfloat16, "full")])
def test_nothing_of_the_users_changes_and_nothing_is_printed(
    tiny_model: Any, pairs: list[PreferencePair], method: Any, precision: Any, tuning: Any, capfd: Any, recwarn: Any
) -> None:
    model, tokenizer = tiny_model[0].to(precision), tiny_model[1]
    tokenizer_before = str(tokenizer)
    config = model.config.to_dict()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]  # typed as a dict or a tuple
    calls: list[tuple[str, int, int]] = []
    edits = [
        method(training=replace(TRAINING, tuning=tuning)).fit(
            model, tokenizer, pairs, progress=lambda *call: calls.append(call)
        )
        for _ in range(2)
    ]
    assert calls == [("training", 1, 2), ("training", 2, 2)] * 2
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert "forward" not in vars(model)
    assert not model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert str(tokenizer) == tokenizer_before
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert (np.random.get_state()[1] == generators[2]).all()
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)
    first, second = ([delta.dense() for delta in edit.deltas.values()] for edit in edits)
    assert all(torch.equal(*both_deltas) for both_deltas in zip(first, second, strict=True))


@pytest.mark.parametrize("method", [DPO, SFT])
def test_the_output_matrix_reads_reply_tokens_and_nothing_else(
    tiny_model: Any, pairs: list[PreferencePair], method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import utils

    before = utils._use_triton
    read: list[int] = []

    theirs = utils._ChunkedLogProbFunction.apply

    def counting(hidden: torch.Tensor, *rest: Any) -> Any:
        read.append(len(hidden))
        return theirs(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=counting))
    method(training=replace(TRAINING, num_train_epochs=1)).fit(*tiny_model, pairs)
    chosen, rejected = _log_probs(*tiny_model, pairs)[1].chunk(2)
    expected = int(chosen.sum() + rejected.sum()) if method is DPO else int(chosen.sum())
    # DPO asks the reference as well.
    assert read == [expected] * (2 if method is DPO else 1)
    assert utils._use_triton is before


def test_the_reference_language_may_be_left_out(tiny_model: Any, pairs: list[PreferencePair]) -> None:
    for method in (DPO, SFT):
        for include, count in ((True, 12), (False, 6)):
            edit = method(include_reference=include, training=TRAINING).fit(*tiny_model, pairs)
            assert edit.manifest["examples"] == count


def test_what_cannot_be_trained_on_is_refused_in_one_line(
    tiny_model: Any, pairs: list[PreferencePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="beta above 0"):
        DPO(beta=-1.0)
    for method in (DPO, SFT):
        with pytest.raises(DataError, match="longer than cutoff_len"):
            method(training=replace(TRAINING, cutoff_len=4)).fit(*tiny_model, pairs)
        for epochs, message in ((2, "loss became infinite"), (1, "weights are not finite")):
            wild = replace(TRAINING, learning_rate=1e30, num_train_epochs=epochs, tuning="full")
            with pytest.raises(NumericalError, match=message):
                method(training=wild).fit(*tiny_model, pairs)
    monkeypatch.setitem(sys.modules, "trl", None)
    for method in (DPO, SFT):
        with pytest.raises(MissingDependency, match=r"pip install 'lingualign\[train\]'"):
            method(training=TRAINING).fit(*tiny_model, pairs)
