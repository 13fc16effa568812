"""What each stage of a run needs: seconds, memory beside the weights, and disk."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

from lingualign.config import RunConfig
from lingualign.data.schema import Prompt
from lingualign.evaluate.batch_size import bytes_per_chat, chats_in
from lingualign.evaluate.engine import REFILL
from lingualign.evaluate.live_batch import fits, shared_prefix
from lingualign.evaluate.utility.divergence import KEPT_BYTES
from lingualign.evaluate.utility.perplexity import LOGITS_PER_BATCH, ROWS_AT_A_TIME
from lingualign.footprint import SINGLE, FitSizes, ModelSizes, diverging, scoring
from lingualign.hardware import free_memory, others_seconds
from lingualign.layer_search import candidate_windows
from lingualign.models.changed import changed_matrices, is_editable
from lingualign.models.chat import EncodedChat, encode_chats
from lingualign.models.matrices import MlpMatrices
from lingualign.prompts import RunPrompts
from lingualign.speed import CHAT_TOKENS, measure

#: Padded tokens that features are read from at once (`FeatureSource`).
BATCH_TOKENS = 2048
#: Bytes of a stored reply: its identity and judgement, and each token of its text.
REPLY_BYTES, REPLY_TOKEN_BYTES = 230, 6
#: Bytes of the report and its figures, and of one text's utility.
REPORT_BYTES, TEXT_BYTES = 500_000, 500


@dataclass(frozen=True)
class Need:
    """What a stage needs.

    Attributes:
        seconds: estimate.
        on_device: bytes where the model is, beside its weights.
        in_main: bytes in main memory besides.
        on_disk: bytes that it leaves in the run folder.
    """

    seconds: float = 0.0
    on_device: int = 0
    in_main: int = 0
    on_disk: int = 0


class Needs:
    """The needs of one run's stages, for a model without weights. Measures the machine.

    Args:
        config: the settings.
        prompts: the resolved prompts.
        model, tokenizer: the model on torch's meta device, and its tokenizer.
        mlps: its MLPs.
        sizes: its sizes.
        dtype, device: what it will compute in, and where.

    Attributes:
        audited: the audited prompts, encoded.
        edited: number of blocks that an edit changes.
        disturbed: share of the processors that other processes took while the machine was measured.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: RunPrompts,
        model: Any,
        tokenizer: Any,
        mlps: list[MlpMatrices],
        sizes: ModelSizes,
        *,
        dtype: str,
        device: str,
    ) -> None:
        self._config = config
        self._prompts = prompts
        self._model = model
        self._tokenizer = tokenizer
        self._mlps = mlps
        self._sizes = sizes
        self._free = max(0, free_memory(device) - sizes.weights)
        self.audited = self._encoded(prompts.report)
        layers = config.edit.layers
        self.edited = min(len(mlps), config.edit.layer_count if isinstance(layers, str) else len(layers))
        lengths, new = [len(chat.ids) for chat in self.audited] or [CHAT_TOKENS], config.audit.max_new_tokens
        chats, past = self._batch(max(lengths) + new), sum(lengths) // len(lengths) + new // 2
        start, others = time.monotonic(), others_seconds()
        self._speed = measure(model, mlps, dtype, device, chats=chats, past=past)
        self.disturbed = (others_seconds() - others) / (time.monotonic() - start) / (os.cpu_count() or 1)

    def audit(self) -> Need:
        """An audit of the reported prompts."""
        return self._answering(self.audited, self._config.audit.max_new_tokens)

    def after_edit(self, need: Need) -> Need:
        """The same in the edited model: the weights as they were are kept, and one changes at a time."""
        sizes = [inputs * outputs for inputs, outputs in self._widths]
        held = self.edited * sum(sizes) * self._sizes.width + 2 * SINGLE * max(sizes)
        return replace(need, on_device=need.on_device + held)

    def fit(self, fit: FitSizes, *, streamed: bool) -> Need:
        """The fit of an edit, its own replies among it."""
        anchors, settings = self._prompts.anchors(), self._config.edit
        replies = Need()
        blocks, speed = len(self._mlps), self._speed
        if own := settings.positions.reply_tokens:
            asked = self._encoded([*anchors.reference_harmful, *anchors.keep])
            replies = self._answering(asked, own + 1)
            if streamed:
                # Every token is another pass over all chats.
                again = speed.reading(sum(len(chat.ids) for chat in asked), blocks) * (own + 1)
                replies = replace(replies, seconds=again + len(asked) * (own + 1) * speed.logits, on_device=0)
        # A block that is edited runs once to be read and once more to be passed.
        last = blocks if isinstance(settings.layers, str) else max(settings.layers) + 1
        reading = speed.reading(fit.tokens, last + fit.blocks - 1)
        if settings.layers == "auto":
            reading += speed.reading(fit.tokens, blocks)
        solving = sum(self._solving(fit, *widths) for widths in fit.widths)
        seconds = replies.seconds + reading + fit.blocks * solving
        return Need(
            seconds,
            max(replies.on_device, self._sizes.one_pass(BATCH_TOKENS) + (0 if streamed else fit.carried(self._sizes))),
            fit.in_main_memory + (fit.carried(self._sizes) if streamed else 0),
            fit.feature_files + fit.edit_file + (replies.on_disk if own else 0),
        )

    def choosing(self, fit: Need) -> Need:
        """Blocks that are chosen by trying: the select split is audited, and once more for every window's edit."""
        trial = self._answering(self._encoded(self._prompts.select), self._config.audit.max_new_tokens)
        windows = len(candidate_windows(self.edited, len(self._mlps)))
        seconds = trial.seconds + windows * (fit.seconds + trial.seconds)
        return replace(
            self.after_edit(trial), seconds=seconds, on_disk=windows * fit.on_disk + (windows + 1) * trial.on_disk
        )

    def utility(self, *, edited: bool) -> Need:
        """Perplexity of the harmless prompts, and in the edited model its divergence from the base. How long tasks take
        depends on their documents, which are not read here."""
        settings, sizes, speed = self._config.utility, self._sizes, self._speed
        texts = self._prompts.report.where(kinds=["harmless"]).limited(settings.seeds)
        groups: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in texts:
            groups[prompt.language].append(prompt)
        need = Need(on_disk=TEXT_BYTES * len(texts))
        if settings.tasks:
            # The harness computes logits at every position, and their log-probabilities in single precision.
            need = replace(need, on_device=LOGITS_PER_BATCH * (sizes.width + 2 * SINGLE))
        for group in groups.values():
            chats = self._encoded(group)
            tokens = sum(len(chat.ids) for chat in chats)
            seconds, held = 0.0, 0
            if settings.perplexity:
                seconds += speed.scoring(tokens, len(self._mlps))
                held = scoring(sizes, tokens, LOGITS_PER_BATCH, ROWS_AT_A_TIME)
            if edited and settings.kl_tokens:
                answers = self._answering(chats, settings.kl_tokens, most=settings.batch_size)
                compared = len(chats) * settings.kl_tokens
                # Both models read prompts and replies; each side of a comparison is cast, normalised and searched for
                # its likeliest token, then both are put together.
                seconds += answers.seconds + 2 * speed.reading(tokens + compared, len(self._mlps))
                seconds += compared * (2 * speed.logits + 5 * speed.log_probabilities)
                lengths = [len(chat.ids) for chat in chats]
                held = max(held, diverging(sizes, lengths, settings.kl_tokens, LOGITS_PER_BATCH, KEPT_BYTES))
            need = replace(need, seconds=need.seconds + seconds, on_device=max(need.on_device, held))
        return self.after_edit(need) if edited else need

    @cached_property
    def fit_sizes(self) -> FitSizes:
        """What the fit reads and solves."""
        anchors, settings = self._prompts.anchors(), self._config.edit
        chats = self._encoded([*anchors.reference_harmful, *(low for _, low in anchors.pairs), *anchors.keep])
        read = settings.positions
        positions = read.template_tokens + read.prompt_mean + read.reply_tokens
        narrow = (len(anchors.pairs) + len(anchors.keep)) * positions < min(map(min, self._widths))
        return FitSizes(
            blocks=self.edited,
            widths=self._widths,
            positions=positions,
            pairs=len(anchors.pairs),
            references=len(anchors.reference_harmful),
            keep=len(anchors.keep),
            kinds=len({prompt.kind for prompt in anchors.keep}),
            tokens=sum(len(chat.ids) for chat in chats) + settings.positions.reply_tokens * len(chats),
            dual=settings.solver == "dual" or (settings.solver == "auto" and narrow and settings.null_space is None),
            rank=settings.rank,
        )

    @cached_property
    def _widths(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each matrix that changes in a block; those of the first block that can be edited."""
        family = self._config.edit.family
        mlp = next((mlp for mlp in self._mlps if is_editable(mlp, family)), None)
        if mlp is None:
            # What is verified may be another method's.
            return ((self._sizes.inner, self._sizes.hidden),)
        return tuple((matrix.in_width, matrix.out_width) for matrix, _ in changed_matrices(self._model, mlp, family))

    def _encoded(self, prompts: Iterable[Prompt]) -> list[EncodedChat]:
        return encode_chats(self._tokenizer, [prompt.text for prompt in prompts])

    def _batch(self, tokens: int) -> int:
        """Most chats at once."""
        size = self._config.audit.batch_size
        if size != "auto":
            return size
        sizes = self._sizes
        return chats_in(self._free, bytes_per_chat(sizes.config, tokens, sizes.width, 4 * sizes.hidden))

    def _answering(self, chats: Sequence[EncodedChat], new: int, most: int | None = None) -> Need:
        """Chats answered by the engine, every reply at its longest; `most` takes the place of the settings' batch."""
        if not chats:
            return Need()
        # Neighbours are of a length, and are padded to the longest.
        lengths = sorted((len(chat.ids) for chat in chats), reverse=True)
        tokens = lengths[0] + new
        batch = min(len(chats), self._batch(tokens) if most is None else most)
        padded = sum(lengths[start] * len(lengths[start : start + batch]) for start in range(0, len(lengths), batch))
        if fits(self._model, tokens):
            read = padded - (len(chats) - 1) * len(shared_prefix(self._model, chats))
            # Others come when a share of the batch is free.
            filled = batch * (1 - REFILL / 2) if len(chats) > batch else batch
        else:
            read, filled = padded, len(chats) / ceil(len(chats) / batch)
        return Need(
            self._speed.answering(read, len(chats), new, blocks=len(self._mlps), batch=filled),
            self._sizes.answering(batch, tokens),
            0,
            len(chats) * (REPLY_BYTES + REPLY_TOKEN_BYTES * new),
        )

    def _solving(self, fit: FitSizes, inputs: int, outputs: int) -> float:
        """Seconds for one matrix: products and factorisations, by their leading terms."""
        rows = fit.rows
        kept = fit.keep * fit.positions
        narrow = min(inputs, outputs)
        decomposition = 4 * max(inputs, outputs) * narrow**2 + 22 * narrow**3
        if fit.dual:
            system = rows + kept
            work = 2 * system**2 * (inputs + 2 * outputs) + 9 * system**3 + decomposition
            return work / self._speed.double
        moments = 2 * kept * inputs**2 / self._speed.single
        products = 2 * rows * inputs * (inputs + outputs)
        factorisation = inputs**3 / 3 + 2 * inputs**2 * outputs
        return moments + (products + factorisation + decomposition) / self._speed.double
