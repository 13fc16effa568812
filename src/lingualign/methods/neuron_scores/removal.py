"""What the removal of each neuron changes in its own layer, for attention and MLP, one forward pass per prompt.

PLND's parallel forms (arXiv 2402.18815, as SN-Tune reads them): ‖Layer without neuron(h) - Layer(h)‖₂ over the tokens.

- gate, up, down: ‖h_k‖ ‖W_down[:, k]‖, see `plnd.py`; removing row k of gate or up, or column k of down, is the same.
- query, key: ‖softmax((QKᵀ - Q[:, k]K[k, :]) / √d) - softmax(QKᵀ / √d)‖; for a key of several query heads over all of
  them.
- value, output: the change of the attention's output behind W_o. The published text gives no formula for these two; it
  is the definition above.

Queries and keys are taken behind the rotary embedding, where dimension k mixes rows k and k + d/2 of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from lingualign.errors import NumericalError, UnsupportedModel
from lingualign.models.chat import EncodedChat
from lingualign.models.locate import locate_mlps
from lingualign.models.projections import ATTENTION, Projection, Role

_NAME: Final = "lingualign_recorded"


def query_key_importance(query: Tensor, key: Tensor, mask: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Change of the attention map when one dimension of a head is removed.

    Args:
        query: (heads, tokens, size).
        key: (key heads, tokens, size); each serves heads / key heads queries, in order.
        mask: (tokens, tokens), added to the scaled scores.
        scaling: 1/√d.

    Returns:
        (heads, size) for query dimensions and (key heads, size) for key dimensions.
    """
    heads, _, size = query.shape
    shared = heads // key.shape[0]
    squares = query.new_empty(heads, size)
    for head in range(heads):
        q, k = query[head], key[head // shared]
        scores = q @ k.T * scaling + mask
        without = scores - torch.einsum("ti,si->its", q, k) * scaling
        squares[head] = (without.softmax(-1) - scores.softmax(-1)).square().sum((1, 2))
    return squares.sqrt(), squares.view(-1, shared, size).sum(1).sqrt()


def value_output_importance(attended: Tensor, weight: Tensor, key_heads: int) -> tuple[Tensor, Tensor]:
    """Change of the attention's output when one dimension of a value, or one input of W_o, is removed.

    Args:
        attended: (tokens, heads, size), what enters W_o.
        weight: W_o, (width, heads · size).
        key_heads: number of value heads; each serves several query heads, which lose the dimension together.

    Returns:
        (key heads, size) for value dimensions and (heads, size) for inputs of W_o.
    """
    tokens, heads, size = attended.shape
    grouped = attended.reshape(tokens, key_heads, -1, size)
    out = weight.view(-1, key_heads, heads // key_heads, size)
    # ‖Σₕ aₕwₕᵀ‖² = Σₕₕ' (aₕ·aₕ')(wₕ·wₕ') over the heads h of a group.
    pairs = torch.einsum("tgnj,tgmj->gjnm", grouped, grouped) * torch.einsum("ognj,ogmj->gjnm", out, out)
    value = pairs.sum((-1, -2)).clamp_min(0).sqrt()
    output: Tensor = attended.norm(dim=0) * weight.norm(dim=0).view(heads, size)
    return value, output


def removal_importance(
    model: Any,
    chats: Sequence[EncodedChat],
    projections: Sequence[Projection],
    on_chat: Callable[[int], None] | None = None,
) -> dict[Projection, Tensor]:
    """{projection: (chats, neurons) float32 on CPU}. Only hooks and the attention function are used, and put back.

    Args:
        model: the causal LM.
        chats: one forward pass each; no padding.
        projections: maps whose neurons are scored.
        on_chat: called with the number of chats done, for progress.

    Raises:
        NumericalError: an importance is NaN or infinite.
        UnsupportedModel: the model's attention cannot be recorded.
    """
    found: dict[Projection, list[Tensor]] = {projection: [] for projection in projections}
    by_module: dict[nn.Module, dict[Role, Projection]] = {}
    for projection in projections:
        if projection.role in ATTENTION:
            attention_module = model.get_submodule(projection.module.rpartition(".")[0])
            by_module.setdefault(attention_module, {})[projection.role] = projection

    def attention(module: Any, query: Tensor, key: Tensor, mask: Tensor, scaling: float, attended: Tensor) -> None:
        asked = by_module.get(module, {})
        values: dict[Role, Tensor] = {}
        if asked.keys() & {"query", "key"}:
            values["query"], values["key"] = query_key_importance(query, key, mask, scaling)
        if asked.keys() & {"value", "output"}:
            values["value"], values["output"] = value_output_importance(
                attended, module.o_proj.weight.float(), key.shape[0]
            )
        for role, projection in asked.items():
            found[projection].append(values[role].flatten().cpu())

    device = next(model.parameters()).device
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if by_module:
            stack.enter_context(_recorded_attention(model, attention))
        for layer, down in _downs(model, projections).items():
            own = [p for p in projections if p.layer == layer and p.role not in ATTENTION]

            def keep(module: Any, args: tuple[Any, ...], own: list[Projection] = own) -> None:
                values = args[0][0].float().norm(dim=0) * module.weight.float().norm(dim=0)
                for projection in own:
                    found[projection].append(values.cpu())

            stack.callback(down.register_forward_pre_hook(keep).remove)
        for index, chat in enumerate(chats):
            model(input_ids=torch.tensor([chat.ids], device=device), use_cache=False, logits_to_keep=1)
            if on_chat is not None:
                on_chat(index + 1)
    if unseen := [projection.module for projection, rows in found.items() if not rows]:
        raise UnsupportedModel(
            f"{unseen[0]} was not recorded: {type(model).__name__} does not use transformers' attention interface; "
            "leave the attention out (roles gate, up, down)"
        )
    importance = {projection: torch.stack(rows) for projection, rows in found.items()}
    for projection, rows in importance.items():
        if not bool(torch.isfinite(rows).all()):
            raise NumericalError(
                f"the importance of {projection.module} holds NaN or infinite values; "
                "load the model in float32 and check its weights"
            )
    return importance


def _downs(model: Any, projections: Sequence[Projection]) -> dict[int, nn.Module]:
    """`down_proj` of each layer that has an MLP map among the projections."""
    layers = {projection.layer for projection in projections if projection.role not in ATTENTION}
    return {layer: model.get_submodule(mlp.down) for layer, mlp in enumerate(locate_mlps(model)) if layer in layers}


@contextmanager
def _recorded_attention(model: Any, record: Callable[..., None]) -> Iterator[None]:
    """Within, attention runs in plain float32 arithmetic and hands over what it computed from."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        scaling: float,
        **options: Any,
    ) -> tuple[Tensor, None]:
        if options.get("softcap") is not None:
            raise UnsupportedModel(
                "this model caps its attention scores, which the query and key scores do not cover; "
                "leave the attention out (roles gate, up, down)"
            )
        q, k, v, mask = query[0].float(), key[0].float(), value[0].float(), attention_mask[0, 0].float()
        shared = q.shape[0] // k.shape[0]
        scores = q @ k.repeat_interleave(shared, 0).transpose(1, 2) * scaling + mask
        attended = (scores.softmax(-1) @ v.repeat_interleave(shared, 0)).transpose(0, 1)
        record(module, q, k, mask, scaling, attended)
        return attended[None].to(query.dtype), None

    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
