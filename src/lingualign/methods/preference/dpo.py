"""DPO: Direct Preference Optimization (Rafailov et al., NeurIPS 2023, arXiv 2305.18290), by TRL.

    L = −log σ(β [log π(y_w|x)/π_ref(y_w|x) − log π(y_l|x)/π_ref(y_l|x)])

with log-probabilities summed over the reply. The reference model is the untrained one: the adapter switched off, or a
second copy over the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, Final

from lingualign.edit import Edit
from lingualign.errors import ConfigError, DataError
from lingualign.events import Progress, silent
from lingualign.methods.preference.adapter import shared_copy
from lingualign.methods.preference.encoding import encode_preferences
from lingualign.methods.preference.pairs import PreferencePair, check_pairs, preferences
from lingualign.methods.preference.training import Training, trained_edit
from lingualign.methods.preference.trl_engine import require_trl, run_trainer

#: The paper's learning rate; one epoch; batch of 64.
PUBLISHED: Final = Training(learning_rate=1e-6, num_train_epochs=1, gradient_accumulation_steps=64)
FAITHFULNESS: Final = {
    "equal": ["loss (TRL's `sigmoid`), beta 0.1, learning rate 1e-6, batch 64, reference = the untrained model"],
    "different": [
        "AdamW with warm-up and cosine; the paper has RMSprop with 150 warm-up steps",
        "no SFT before: the base model is a chat model already",
        "full fine-tuning trains linear layers but not embeddings, output head, norms and biases",
    ],
    "unknown": ["the settings of published multilingual DPO baselines"],
}


class DPO:
    """DPO on preference pairs; the constructor only stores parameters, `fit` returns an `Edit`.

    Args:
        beta: β, how strongly the trained model is held to the untrained one.
        include_reference: whether to train on the reference language's preferences too, each once.
        training: settings of the optimisation.
    """

    def __init__(self, *, beta: float = 0.1, include_reference: bool = True, training: Training = PUBLISHED) -> None:
        self.beta = beta
        self.include_reference = include_reference
        self.training = training
        if beta <= 0:
            raise ConfigError("DPO needs beta above 0")

    def settings(self) -> dict[str, Any]:
        """The method's own parameters as plain values."""
        return {name: value for name, value in vars(self).items() if name != "training"}

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
        encoded = list(encode_preferences(tokenizer, sides, self.training.cutoff_len).values())
        if not encoded:
            raise DataError("every prompt is longer than cutoff_len; raise it or give shorter prompts")
        trainee = self.training.trainee(model)
        rows = [
            {
                "prompt_ids": list(item.chosen.ids[: item.chosen.prompt_length]),
                "chosen_ids": list(item.chosen.ids[item.chosen.prompt_length :]),
                "rejected_ids": list(item.rejected.ids[item.rejected.prompt_length :]),
            }
            for item in encoded
        ]

        def make(options: dict[str, Any], data: Any, callbacks: list[Any]) -> Any:
            from trl.trainer.dpo_config import DPOConfig
            from trl.trainer.dpo_trainer import DPOTrainer

            class TokenisedDPOTrainer(DPOTrainer):
                # The data are tokenised; of its trainers only this one has no option for that.
                def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                    return dataset

            return TokenisedDPOTrainer(
                trainee.network,
                # With LoRA, TRL switches the adapter off instead.
                None if trainee.tuning == "lora" else shared_copy(model),
                DPOConfig(beta=self.beta, **options),
                train_dataset=data,
                # Trainers may set its special tokens.
                processing_class=copy.deepcopy(tokenizer),
                callbacks=callbacks,
                peft_config=trainee.lora_config(),
            )

        trained = run_trainer(make, rows, trainee, self.training, progress)
        trained.trained_tokens = self.training.num_train_epochs * sum(item.tokens for item in encoded)
        trained.reference_tokens = trained.trained_tokens
        return trained_edit(
            trainee,
            trained,
            self.training,
            {
                "method": "dpo",
                "citation": "arXiv 2305.18290",
                "engine": "trl",
                "faithfulness": FAITHFULNESS,
                "settings": self.settings(),
                **checked.described(too_long=len(sides) - len(encoded)),
                "examples": len(encoded),
                "model_fingerprint": fingerprint,
                "seconds": {"total": round(time.monotonic() - started, 2)},
            },
        )
