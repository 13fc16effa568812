"""How fast this machine runs a model, from about half a second of measuring: one of its blocks and its output matrix,
with weights that are all the same."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lingualign.features.carry import block_index, stood_in
from lingualign.features.collect import EndOfPassError
from lingualign.models.matrices import MlpMatrices

#: Seconds that each measurement may go on for, and the most that a single pass should take.
BUDGET = 0.05
#: Multiplications in the pass that stands for long prompts, and its fewest and most tokens.
PASS_WORK, PASS_TOKENS = 5e10, (64, 2048)
#: Tokens of a chat in that pass.
CHAT_TOKENS = 32
#: Rows of logits, and bytes of the output matrix, that are measured: more than a processor or an allocator keeps.
LOGIT_ROWS, HEAD_BYTES = 32, 2**27
#: Rows of logits in the pass that stands for long ones.
PASS_LOGITS = 256
#: Share of the speed of plain products that a block reaches which cannot be run by itself: with many tokens, with few.
_MANY, _FEW = 0.6, 0.25
# Typed as Any: transformers leaves it untyped.
_LAYER: Any = DynamicLayer


@dataclass(frozen=True)
class Line:
    """Seconds by number of rows: those of one row, and of each more."""

    first: float
    each: float

    def __call__(self, rows: float) -> float:
        return self.first + self.each * max(0.0, rows - 1)

    def less(self, other: Line) -> Line:
        """What is left of these seconds without the other's."""
        return Line(max(0.0, self.first - other.first), max(0.0, self.each - other.each))


@dataclass(frozen=True)
class Speed:
    """Seconds of a machine.

    Attributes:
        token: of a prompt, through one block, where many go through it at once.
        step: one block, when each of so many chats gains a token.
        around: what the model does besides in such a step.
        head: the output matrix, and the likeliest token of so many rows.
        logits: a row of logits, where there are many.
        log_probabilities: the same row as log-probabilities in single precision.
        single, double: floating-point operations a second of products in main memory.
    """

    token: float
    step: Line
    around: Line
    head: Line
    logits: float
    log_probabilities: float
    single: float
    double: float

    def answering(self, prompt_tokens: int, chats: int, reply_tokens: int, *, blocks: int, batch: float) -> float:
        """Seconds to answer chats.

        Args:
            prompt_tokens: read, of all chats.
            chats: their number.
            reply_tokens: of each reply.
            blocks: of the model.
            batch: chats at once, on average.
        """
        if not chats:
            return 0.0
        steps = chats * (reply_tokens - 1) / batch
        reading = self.reading(prompt_tokens, blocks) + chats / batch * self.head(batch)
        return reading + steps * (self.around(batch) + blocks * self.step(batch) + self.head(batch))

    def reading(self, tokens: float, blocks: float) -> float:
        """Seconds that so many tokens take through so many blocks."""
        return tokens * blocks * self.token

    def scoring(self, tokens: int, blocks: int) -> float:
        """Seconds of the log-probabilities of texts."""
        return self.reading(tokens, blocks) + tokens * (self.logits + self.log_probabilities)


def measure(model: Any, mlps: list[MlpMatrices], dtype: str, device: str, *, chats: int, past: int) -> Speed:
    """Measures a machine with a model that has no weights (on torch's meta device).

    Args:
        model: stays as it is.
        mlps: its MLPs.
        dtype: to compute in.
        device: to compute on.
        chats: answered at once.
        past: tokens that each has when it gains another.
    """
    mlp = mlps[len(mlps) // 2]
    number = getattr(torch, dtype)
    config = model.config.get_text_config()
    size = sum(parameter.numel() for parameter in model.get_submodule(mlp.block).parameters())
    # Another batch, so that there are two points of a line.
    many = max(2, chats)
    fewest, most = PASS_TOKENS
    rows = int(min(most, max(fewest, PASS_WORK / (2 * size)))) // CHAT_TOKENS
    try:
        block = OneBlock(model, mlp, number, device)
        token = fastest(lambda: block.prompts(rows, CHAT_TOKENS), device) / (rows * CHAT_TOKENS)
        block.read(past)
        around = _line(many, lambda count: block.step(count, whole=False), device)
        step = _line(many, block.step, device).less(around)
    # What a model's own code asks of its inputs is not known here; then products of its size stand for the block.
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        rate = _product(512, mlp.hidden_size, mlp.inner_size, number, device)
        token = 2 * size / (_MANY * rate)
        step, around = Line(2 * size / (_FEW * rate), 2 * size / (_FEW * rate)), Line(0.0, 0.0)
    columns = min(config.vocab_size, HEAD_BYTES // (config.hidden_size * number.itemsize))
    share = config.vocab_size / columns
    matrix = torch.full((columns, config.hidden_size), 0.01, dtype=number, device=device)
    inputs = torch.full((max(many, PASS_LOGITS), config.hidden_size), 0.01, dtype=number, device=device)
    head = _line(many, lambda count: linear(inputs[:count], matrix).argmax(-1), device)
    many_logits = fastest(lambda: linear(inputs[:PASS_LOGITS], matrix), device) / PASS_LOGITS
    logits = torch.zeros(LOGIT_ROWS, config.vocab_size, dtype=number, device=device)
    log_probabilities = fastest(lambda: logits.float().log_softmax(-1), device) / LOGIT_ROWS
    width = min(mlp.inner_size, 4096)
    return Speed(
        token,
        step,
        around,
        Line(share * head.first, share * head.each),
        share * many_logits,
        log_probabilities,
        _product(128, width, width, torch.float32, "cpu"),
        _product(128, width, width, torch.float64, "cpu"),
    )


def fastest(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some repetitions: what else the machine does can only add."""
    spent: list[float] = []
    while sum(spent) < BUDGET or len(spent) < 2:
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    return min(spent)


def _line(many: int, work: Callable[[int], object], device: str) -> Line:
    one, all_of_them = fastest(lambda: work(1), device), fastest(lambda: work(many), device)
    return Line(one, max(0.0, all_of_them - one) / (many - 1))


def _product(rows: int, inputs: int, outputs: int, number: torch.dtype, device: str) -> float:
    left = torch.ones(rows, inputs, dtype=number, device=device)
    right = torch.ones(inputs, outputs, dtype=number, device=device)
    return 2 * rows * inputs * outputs / fastest(lambda: left @ right, device)


class OneBlock:
    """Passes through one block of a model without weights: a copy that has some; the blocks before it stand aside.

    Args:
        model: stays as it is, but for tables of positions, which go to the device.
        mlp: of the block.
        number: dtype to compute in.
        device: to compute on.
    """

    def __init__(self, model: Any, mlp: MlpMatrices, number: torch.dtype, device: str) -> None:
        path = mlp.block.rpartition(".")[0]
        self._model = model
        self._index = block_index(path, mlp.block)
        self._blocks: nn.ModuleList = model.get_submodule(path)
        self._hidden = model.config.get_text_config().hidden_size
        self._number, self._device = number, device
        self._block = copy.deepcopy(self._blocks[self._index]).to(number).to_empty(device=device).eval()
        for parameter in self._block.parameters():
            parameter.data.fill_(0.01)
        self._block.register_forward_hook(_end)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(device)
        self._read: Any = _LAYER()

    @torch.inference_mode()
    def read(self, tokens: int) -> None:
        """Reads a chat, behind which `step` goes on."""
        self._read = _LAYER()
        self._pass(1, tokens, self._read, tokens)

    @torch.inference_mode()
    def prompts(self, chats: int, tokens: int) -> None:
        """So many chats of so many tokens."""
        self._pass(chats, tokens, None, tokens)

    @torch.inference_mode()
    def step(self, chats: int, *, whole: bool = True) -> None:
        """Another token for so many chats like the one that was read, up to the block where it is not to be run."""
        layer: Any = _LAYER()
        layer.update(*(states.expand(chats, -1, -1, -1) for states in (self._read.keys, self._read.values)))
        before = None if whole else self._block.register_forward_pre_hook(_end)
        try:
            self._pass(chats, 1, layer, self._read.keys.shape[2] + 1)
        finally:
            if before is not None:
                before.remove()

    def _pass(self, chats: int, tokens: int, layer: Any, masked: int) -> None:
        cache: Any = None
        if layer is not None:
            cache = DynamicCache(config=self._model.config)
            # The model asks the first of them how much was read.
            cache.layers = [layer for _ in cache.layers]
        embedded = torch.full((chats, tokens, self._hidden), 0.01, dtype=self._number, device=self._device)
        mask = torch.ones(chats, masked, dtype=torch.long, device=self._device)
        own = self._blocks[self._index]
        self._blocks[self._index] = self._block
        try:
            with stood_in(self._blocks, self._index, None), suppress(EndOfPassError):
                self._model(
                    inputs_embeds=embedded, attention_mask=mask, past_key_values=cache, use_cache=cache is not None
                )
        finally:
            self._blocks[self._index] = own


def _end(*_: object) -> None:
    raise EndOfPassError
