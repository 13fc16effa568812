"""Runs chats through a model and hands over what chosen modules read or write at the declared positions.

One forward pass serves all sites (of a streamed model, those of one block); it stops after the last of them, so layers
above and the output projection cost nothing. Rows are float32 whatever the model's dtype. Padding never enters a row:
positions are absolute within each chat, on either padding side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lingualign.errors import NumericalError, UnsupportedModel
from lingualign.features.carry import States
from lingualign.features.positions import Positions
from lingualign.models.chat import EncodedChat
from lingualign.models.stages import device_of


@dataclass(frozen=True)
class Site:
    """A place to read features: the input or the output of a module."""

    module: str
    side: Literal["input", "output"]


class EndOfPassError(Exception):
    """Ends a forward pass early; never leaves `forward`."""


def batches_by_length(chats: Sequence[EncodedChat], tokens: int) -> Iterator[list[int]]:
    """Indices of chats in batches of similar length with at most `tokens` padded tokens each."""
    order = sorted(range(len(chats)), key=lambda index: len(chats[index].ids))
    batch: list[int] = []
    for index in order:
        if batch and len(chats[index].ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(chats: Sequence[EncodedChat], pad_id: int, side: Literal["left", "right"]) -> tuple[Tensor, Tensor, list[int]]:
    """Padded ids (B, T), attention mask (B, T) and the offset of each chat's first token."""
    width = max(len(chat.ids) for chat in chats)
    ids = torch.full((len(chats), width), pad_id)
    mask = torch.zeros(len(chats), width, dtype=torch.long)
    offsets = []
    for row, chat in enumerate(chats):
        offset = width - len(chat.ids) if side == "left" else 0
        ids[row, offset : offset + len(chat.ids)] = torch.tensor(chat.ids)
        mask[row, offset : offset + len(chat.ids)] = 1
        offsets.append(offset)
    return ids, mask, offsets


def forward(model: Any, ids: Tensor, mask: Tensor) -> None:
    """One forward pass for its hooks, which may end it."""
    device = device_of(model)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad(), suppress(EndOfPassError):
        model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            use_cache=False,
        )


def _first_tensor(value: Any) -> Tensor:
    tensor = value[0] if isinstance(value, tuple) else value
    assert isinstance(tensor, Tensor)
    return tensor


def stream_features(
    model: Any,
    chats: Sequence[EncodedChat],
    sites: Sequence[Site],
    positions: Positions,
    *,
    pad_id: int = 0,
    padding_side: Literal["left", "right"] = "right",
    batch_tokens: int = 2048,
    states: States | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Iterator[tuple[list[int], dict[Site, Tensor]]]:
    """Yields (indices of the batch's chats, {site: (B, positions.rows, width) float32 on CPU}).

    All sites of a batch come together, unless `states` has all batches reach one block before any goes on.

    Args:
        model: a causal LM; only forward hooks are used.
        chats: encoded chats, with replies where reply positions are asked for.
        sites: where to read.
        positions: which token positions become rows.
        pad_id: token id for padding; it is masked.
        padding_side: memory layout only; results do not change.
        batch_tokens: padded tokens per batch; memory and speed only, results do not change beyond rounding.
        states: where a pass goes on from, and what it leaves for the next; by default every pass starts anew.
        on_batch: called with the number of chats done, for progress.

    Raises:
        UnsupportedModel: a site's module does not exist or was not run.
        NumericalError: a feature is NaN or infinite.
    """
    modules = dict(model.named_modules())
    for site in sites:
        if site.module not in modules:
            raise UnsupportedModel(f"{type(model).__name__} has no module {site.module}; features cannot be read there")
    paths = list(dict.fromkeys(site.module for site in sites))
    stages = states.stages(paths) if states is not None else [(0, paths)]
    done = 0
    for block, here in stages:
        group = [site for site in sites if site.module in here]
        for batch in batches_by_length(chats, batch_tokens):
            rows = _read(
                model, modules, [chats[index] for index in batch], group, positions, states, block, pad_id, padding_side
            )
            if group:
                yield batch, rows
            done += len(batch)
            if on_batch is not None:
                on_batch(done // len(stages))


def _read(
    model: Any,
    modules: Mapping[str, nn.Module],
    chats: Sequence[EncodedChat],
    sites: Sequence[Site],
    positions: Positions,
    states: States | None,
    block: int,
    pad_id: int,
    padding_side: Literal["left", "right"],
) -> dict[Site, Tensor]:
    """The rows of one batch, from one forward pass that starts at `block` or before."""
    ids, mask, offsets = pad(chats, pad_id, padding_side)
    selection = positions.select(chats, offsets, ids.shape[1])
    rows: dict[Site, Tensor] = {}
    goes_on = False

    def keep(site: Site, value: Tensor) -> None:
        # Mixtures of experts run on tokens in a row, without the batch's axis.
        rows[site] = selection.of(value.detach().reshape(*ids.shape, value.shape[-1])).cpu()
        if len(rows) == len(sites) and not goes_on:
            raise EndOfPassError

    with ExitStack() as stack:
        for site in sites:
            handle = (
                modules[site.module].register_forward_pre_hook(
                    lambda _module, args, site=site: keep(site, _first_tensor(args))
                )
                if site.side == "input"
                else modules[site.module].register_forward_hook(
                    lambda _module, _args, output, site=site: keep(site, _first_tensor(output))
                )
            )
            stack.callback(handle.remove)
        if states is not None:
            goes_on = stack.enter_context(states.resumed(chats, offsets, block))
        forward(model, ids, mask)
    missing = [site for site in sites if site not in rows]
    if missing:
        raise UnsupportedModel(f"module {missing[0].module} was not run in the forward pass; it cannot be edited")
    for site, value in rows.items():
        if not bool(torch.isfinite(value).all()):
            raise NumericalError(
                f"the {site.side} of {site.module} holds NaN or infinite values; "
                "load the model in float32 and check its weights"
            )
    return rows


def collect_rows(
    model: Any, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, **options: Any
) -> dict[Site, Tensor]:
    """All rows in memory, {site: (len(chats), positions.rows, width) float32}, in the order of `chats`. Options as in
    `stream_features`."""
    result: dict[Site, Tensor] = {}
    for batch, rows in stream_features(model, chats, sites, positions, **options):
        for site, value in rows.items():
            if site not in result:
                result[site] = torch.empty(len(chats), *value.shape[1:])
            result[site][batch] = value
    return result
