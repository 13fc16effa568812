"""Bytes that each stage of a run takes beside the weights: exact sizes of the tensors that are there at its peak.

What is `on the device` lies where the model does; features and solver are in main memory always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.evaluate.batch_size import bytes_per_chat

SINGLE, DOUBLE = 4, 8


@dataclass(frozen=True)
class ModelSizes:
    """What of a model its memory depends on.

    Attributes:
        config: of the language model (`get_text_config()`).
        parameters: their number, shared ones once.
        hidden, inner: H, and I of an MLP.
        width: bytes of a number in the model's dtype.
        stored_width: the same in its files.
    """

    config: Any
    parameters: int
    hidden: int
    inner: int
    width: int
    stored_width: int

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.width

    @property
    def vocabulary(self) -> int:
        """Number of tokens that logits are over."""
        size: int = self.config.vocab_size
        return size

    @property
    def converted(self) -> int:
        """Bytes of the files' own numbers, which are beside the weights while these are converted."""
        return 0 if self.stored_width == self.width else self.parameters * self.stored_width

    def one_pass(self, tokens: int) -> int:
        """Activations at the widest place of a block: gate, up and their product, and the residual stream."""
        return tokens * (3 * self.inner + 4 * self.hidden) * self.width

    def answering(self, chats: int, tokens: int) -> int:
        """Chats of at most `tokens` tokens, prompt and reply, that are answered at once."""
        return chats * bytes_per_chat(self.config, tokens, self.width, self.inner)


@dataclass(frozen=True)
class FitSizes:
    """What a fit reads of each edited block.

    Attributes:
        blocks: number of edited blocks.
        widths: inputs and outputs of each matrix that changes in a block.
        positions: rows of each chat.
        pairs, references, keep, kinds: numbers of pairs, of reference prompts, of chats to keep, and of their kinds.
        tokens: of all chats, in the batches that they are read in.
        dual: whether the keep set's rows are kept in place of its second moments.
        rank: of the edit; None for no constraint.
    """

    blocks: int
    widths: tuple[tuple[int, int], ...]
    positions: int
    pairs: int
    references: int
    keep: int
    kinds: int
    tokens: int
    dual: bool
    rank: int | None

    @property
    def rows(self) -> int:
        """N, rows that a matrix is solved from."""
        return self.pairs * self.positions

    def _kept(self, inputs: int) -> int:
        """Of the keep set, as it is in the cache, for one matrix."""
        if self.dual:
            return SINGLE * self.keep * self.positions * inputs
        # Second moments, sum and number of rows.
        return self.kinds * DOUBLE * (inputs**2 + inputs + 1)

    def _low(self, inputs: int, outputs: int) -> int:
        """Rows of the pairs: inputs and outputs."""
        return SINGLE * self.rows * (inputs + outputs)

    @property
    def feature_files(self) -> int:
        """Bytes in the cache of features, headers apart."""
        return self.blocks * sum(
            self._low(inputs, outputs) + SINGLE * self.references * self.positions * outputs + self._kept(inputs)
            for inputs, outputs in self.widths
        )

    @property
    def edit_file(self) -> int:
        """Bytes of the edit's factors, in single precision."""
        return self.blocks * sum(
            SINGLE * (min(widths) if self.rank is None else self.rank) * sum(widths) for widths in self.widths
        )

    def carried(self, sizes: ModelSizes) -> int:
        """Hidden states that wait before a block."""
        return self.tokens * sizes.hidden * sizes.width

    @property
    def in_main_memory(self) -> int:
        """At the peak of a block's fit: while it is read, or while one of its matrices is solved."""
        held = sum(self._low(*widths) + SINGLE * self.rows * widths[1] for widths in self.widths)
        kept = [self._kept(inputs) for inputs, _ in self.widths]
        if self.dual:
            # Rows as read, counted, and in double precision beside the pairs'.
            return held + max(2 * sum(kept), sum(kept) + max(self._dual_solve(*widths) for widths in self.widths))
        moments = [DOUBLE * inputs**2 for inputs, _ in self.widths]
        # By kind, each weighted, and their sum.
        reading = 2 * sum(kept) + sum(moments)
        return held + max(reading, sum(moments) + max(self._primal_solve(*widths) for widths in self.widths))

    def _dual_solve(self, inputs: int, outputs: int) -> int:
        """Rows in double precision, as they are and stacked, and the kernel with its decomposition."""
        system = self.rows + self.keep * self.positions
        return 2 * DOUBLE * system * (inputs + outputs) + 4 * DOUBLE * system**2

    def _primal_solve(self, inputs: int, outputs: int) -> int:
        """The keep set's mean and its weighted copy, the moments of the rows, the system, its factor and the
        factorisation's workspace; then cross products, two solutions and the parts of their decomposition."""
        doubled = DOUBLE * self.rows * (inputs + outputs)
        return 6 * DOUBLE * inputs**2 + doubled + 5 * DOUBLE * inputs * outputs


def scoring(sizes: ModelSizes, tokens: int, logits_per_batch: int, rows_at_a_time: int) -> int:
    """Perplexity: a batch's logits in the model's dtype, and some rows of them in single precision.

    Args:
        sizes: of the model.
        tokens: of the texts that are scored together, so that a batch cannot have more.
        logits_per_batch: limit of a batch.
        rows_at_a_time: rows in single precision; as they are and as log-probabilities.
    """
    logits = min(logits_per_batch, tokens * sizes.vocabulary)
    return logits * sizes.width + 2 * SINGLE * min(rows_at_a_time, tokens) * sizes.vocabulary


def diverging(
    sizes: ModelSizes, prompt_lengths: Sequence[int], reply_tokens: int, logits_per_batch: int, kept_bytes: int
) -> int:
    """Divergence: the base model's logits that wait, a batch's logits as they are computed, joined and cut into
    replies, and the two sides of one reply in single precision.

    Args:
        sizes: of the model.
        prompt_lengths: of the prompts that are compared together.
        reply_tokens: compared of each.
        logits_per_batch, kept_bytes: limits.
    """
    row = sizes.vocabulary * sizes.width
    longest = max(prompt_lengths) + reply_tokens
    chats = max(1, min(len(prompt_lengths), logits_per_batch // sizes.vocabulary // longest))
    batch = chats * reply_tokens * row
    kept = max(batch, min(kept_bytes, len(prompt_lengths) * reply_tokens * row))
    return kept + 3 * batch + 5 * SINGLE * reply_tokens * sizes.vocabulary
