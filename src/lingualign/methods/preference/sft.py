"""SFT: supervised fine-tuning on the chosen replies (cross-entropy over reply tokens), by TRL. Translated safe replies
are the oldest baseline of multilingual safety (xSFT in arXiv 2401.13136)."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, Final

from lingualign.edit import Edit
from lingualign.errors import DataError
from lingualign.events import Progress, silent
from lingualign.methods.preference.encoding import encode_preferences
from lingualign.methods.preference.pairs import PreferencePair, check_pairs, preferences
from lingualign.methods.preference.training import Training, trained_edit
from lingualign.methods.preference.trl_engine import require_trl, run_trainer

#: TRL's own learning rate and epochs; no publication fixes them.
DEFAULT: Final = Training(learning_rate=2e-5, num_train_epochs=3, per_device_train_batch_size=8)
FAITHFULNESS: Final = {
    "equal": ["loss: mean cross-entropy over reply tokens"],
    "different": ["full fine-tuning trains linear layers but not embeddings, output head, norms and biases"],
    "unknown": ["the settings of published multilingual SFT baselines; learning rate and epochs are TRL's defaults"],
}


class SFT:
    """SFT on the chosen replies; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        include_reference: whether to train on the reference language's chosen replies too, each once.
        training: settings of the optimisation.
    """

    def __init__(self, *, include_reference: bool = True, training: Training = DEFAULT) -> None:
        self.include_reference = include_reference
        self.training = training

    def settings(self) -> dict[str, Any]:
        """The method's own parameters as plain values."""
        return {"include_reference": self.include_reference}

    def fit(
        self,
        model: Any,
        tokenizer: Any,
        pairs: Sequence[PreferencePair],
        *,
        fingerprint: str = "",
        progress: Progress = silent,
    ) -> Edit:
        """Trains on the pairs. The model is never written to. Arguments and errors as in `MPO.fit`.

        Raises:
            MissingDependency: TRL is not installed.
        """
        require_trl()
        started = time.monotonic()
        checked = check_pairs(pairs)
        sides = preferences(checked.pairs, include_reference=self.include_reference)
        encoded = encode_preferences(tokenizer, sides, self.training.cutoff_len).values()
        # Preferences that differ in the rejected reply alone are one example here.
        chats = list(dict.fromkeys(item.chosen for item in encoded))
        if not chats:
            raise DataError("every prompt is longer than cutoff_len; raise it or give shorter prompts")
        trainee = self.training.trainee(model)
        rows = [
            {
                "input_ids": list(chat.ids),
                "labels": [-100] * chat.prompt_length + list(chat.ids[chat.prompt_length :]),
            }
            for chat in chats
        ]

        def make(options: dict[str, Any], data: Any, callbacks: list[Any]) -> Any:
            from trl.trainer.sft_config import SFTConfig
            from trl.trainer.sft_trainer import SFTTrainer

            return SFTTrainer(
                trainee.network,
                SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, **options),
                train_dataset=data,
                # Trainers may set its special tokens.
                processing_class=copy.deepcopy(tokenizer),
                callbacks=callbacks,
                peft_config=trainee.lora_config(),
            )

        trained = run_trainer(make, rows, trainee, self.training, progress)
        trained.trained_tokens = self.training.num_train_epochs * sum(len(chat.ids) for chat in chats)
        return trained_edit(
            trainee,
            trained,
            self.training,
            {
                "method": "sft",
                "citation": "arXiv 2401.13136",
                "engine": "trl",
                "faithfulness": FAITHFULNESS,
                "settings": self.settings(),
                **checked.described(too_long=len(sides) - len(encoded)),
                "examples": len(chats),
                "model_fingerprint": fingerprint,
                "seconds": {"total": round(time.monotonic() - started, 2)},
            },
        )
