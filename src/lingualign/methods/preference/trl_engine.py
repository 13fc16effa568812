"""Runs a trainer of TRL on a trainee, quietly, and takes its losses. DPO and SFT use it.

TRL patches the model it is given (forward pass, dropout, configuration); it is given the trainee's private copy. Its
trainers get our token ids, so that all methods learn from the same sequences.
"""

from __future__ import annotations

import importlib
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lingualign.errors import MissingDependency, NumericalError
from lingualign.events import Progress
from lingualign.methods.preference.adapter import Trainee
from lingualign.methods.preference.training import Trained, Training


def require_trl() -> None:
    """Raises MissingDependency where TRL, PEFT or datasets is not installed."""
    for package in ("datasets", "peft", "trl"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingDependency(package, "train") from None


def run_trainer(
    make: Callable[[dict[str, Any], Any, list[Any]], Any],
    rows: Sequence[dict[str, Any]],
    trainee: Trainee,
    training: Training,
    progress: Progress,
) -> Trained:
    """Trains, and returns the loss curve.

    Args:
        make: makes the trainer from keyword arguments of its configuration, a `datasets.Dataset` and callbacks.
        rows: the data set.
        trainee: the copy to train.
        training: settings of the optimisation.
        progress: called with (stage, done, total).

    Raises:
        NumericalError: the loss is not finite.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 (their signature)
            progress("training", state.global_step, state.max_steps)

    states = random.getstate(), np.random.get_state()
    with (
        # Trainers seed every global generator and want a folder, even to write nothing to it.
        torch.random.fork_rng(),
        tempfile.TemporaryDirectory() as folder,
        # TRL still uses names that transformers has deprecated.
        warnings.catch_warnings(action="ignore", category=FutureWarning),
        _replies_alone(),
    ):
        try:
            options = {
                "output_dir": folder,
                "learning_rate": training.learning_rate,
                "num_train_epochs": training.num_train_epochs,
                "per_device_train_batch_size": training.per_device_train_batch_size,
                "gradient_accumulation_steps": training.gradient_accumulation_steps,
                "warmup_steps": training.warmup_steps(len(rows)),
                "max_grad_norm": training.max_grad_norm,
                "max_length": training.cutoff_len,
                "seed": training.seed,
                "lr_scheduler_type": "cosine",
                "optim": "adamw_torch",
                "weight_decay": 0.0,
                "bf16": trainee.mixed,
                "use_cpu": trainee.network.device.type == "cpu",
                "gradient_checkpointing": False,
                "logging_steps": 1,
                # Otherwise a loss that is not finite is logged as the mean of those before it.
                "logging_nan_inf_filter": False,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
            }
            trainer = make(options, Dataset.from_list(list(rows)), [Watch()])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
    curve = [
        {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    if not np.isfinite([entry["loss"] for entry in curve]).all():
        raise NumericalError("the loss became infinite or undefined; lower learning_rate or load in float32")
    return Trained(curve)


@contextmanager
def _replies_alone() -> Iterator[None]:
    """Has TRL multiply the output matrix with the states that predict reply tokens, on every device.

    Off a GPU it would take those of prompts and padding too, and put zeros for them: for compilers that start anew with
    each shape. Here nothing is compiled, and with a large vocabulary those products are most of a step.
    """
    from trl.trainer import utils

    # A private name: where a later TRL has another one, training is slower and the same.
    name = "_use_triton"
    before = getattr(utils, name, None)
    if before is None:
        yield
        return
    setattr(utils, name, lambda _device: True)
    try:
        yield
    finally:
        setattr(utils, name, before)
