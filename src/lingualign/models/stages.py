"""A model whose weights stay on disk: it is built without them, and one block's at a time are in memory.

It looks like any model of transformers, so what reads features through hooks works on it. A block's weights are read
just before it runs and given up when another block's are. While one block runs, a thread reads the next one's bytes
into the system's cache of files, so that they are there when their turn comes but take no memory of the process. Of
the embeddings only the rows of the tokens at hand are read.

Names, dtypes and fused weights are transformers' own rules, applied to one block's tensors: what is in memory is bit
for bit what `from_pretrained` gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lingualign.errors import UnsupportedModel, UserError
from lingualign.models.chat import check_chat_template
from lingualign.models.load import (
    LoadedModel,
    Precision,
    causal_class,
    default_device,
    fingerprint_of,
    resolve_precision,
    sample_positions,
)
from lingualign.models.locate import locate_mlps
from lingualign.models.stored import EDITABLE, StoredTensor, read_weights

if TYPE_CHECKING:
    from lingualign.edit import LowRankDelta

_ATTRIBUTE = "streamed_weights"
_WARM_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class _Source:
    """A stored tensor and where it goes: to `target` as it is, or there through a conversion of transformers."""

    stored: StoredTensor
    target: str
    dtype: torch.dtype
    pattern: str | None = None
    conversion: Any | None = None


class StreamedWeights:
    """Reads the weights of a model that was built without any, as its modules run.

    Args:
        model: the model on the meta device; its non-persistent buffers are real.
        stored: the checkpoint's tensors by name.
        dtype: what to compute in.
        device: where to.
        blocks: path of the list of blocks, such as `model.layers`.
        prefetch: whether the next block's bytes are read ahead.

    Attributes:
        deltas: the edit that is in force, by parameter name; a block gets its part when it is read.
        fingerprints: of the unedited weights that were asked for, by name (filled by `lingualign.edit`).
        loads: how often each block was read, by index.

    Raises:
        UnsupportedModel: the checkpoint is quantised, or lacks a weight or has it in another shape.
    """

    def __init__(
        self,
        model: Any,
        stored: Mapping[str, StoredTensor],
        dtype: torch.dtype,
        device: torch.device,
        blocks: str,
        *,
        prefetch: bool = True,
    ) -> None:
        self.blocks = blocks
        self.device = device
        self.deltas: Mapping[str, LowRankDelta] = {}
        self.fingerprints: dict[str, str] = {}
        self.loads: Counter[int] = Counter()
        self._model = model
        self._meta: dict[str, Tensor] = dict(model.state_dict(keep_vars=True))
        self._names: dict[str, list[str]] = {}
        for name in self._meta:
            self._names.setdefault(self._part(name), []).append(name)
        self._parts: dict[str, list[_Source]] = {}
        for source in _sources(model, stored, dtype):
            self._parts.setdefault(self._part(source.target), []).append(source)
        self._check()
        self._block_count = len(model.get_submodule(self.blocks))
        self._resident: int | None = None
        self._applied: dict[str, LowRankDelta] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if prefetch else None
        self._watch()
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(device)

    # What is where

    def block_of(self, name: str) -> int | None:
        """Index of the block that a module or parameter lies in; None outside the blocks."""
        if not name.startswith(self.blocks + "."):
            return None
        return int(name[len(self.blocks) + 1 :].partition(".")[0])

    def _part(self, name: str) -> str:
        """The module that a weight is read with: its block, or outside the blocks its own."""
        block = self.block_of(name)
        return name.rpartition(".")[0] if block is None else f"{self.blocks}.{block}"

    def _check(self) -> None:
        """Every weight is there, in its shape: all conversions are tried on tensors without content."""
        found: dict[str, Tensor] = {}
        for part in self._parts:
            found |= self._assemble(
                part, lambda stored: torch.empty(stored.shape, dtype=stored.torch_dtype, device="meta")
            )
        kind = type(self._model).__name__
        for name, tensor in self._meta.items():
            if name not in found:
                if isinstance(tensor, nn.Parameter):
                    raise UnsupportedModel(
                        f"the checkpoint holds no {name}, which {kind} needs; download it again, or load it whole"
                    )
            elif found[name].shape != tensor.shape:
                raise UnsupportedModel(
                    f"the checkpoint has {name} of shape {tuple(found[name].shape)}, {kind} needs "
                    f"{tuple(tensor.shape)}; its config.json belongs to other weights"
                )

    def _assemble(self, part: str, read: Callable[[StoredTensor], Tensor]) -> dict[str, Tensor]:
        """The weights of a part by name."""
        tensors: dict[str, Tensor] = {}
        conversions: dict[str, Any] = {}
        for source in self._parts.get(part, ()):
            tensor = read(source.stored).to(source.dtype)
            if source.conversion is None:
                tensors[source.target] = tensor
            else:
                conversion = conversions.setdefault(source.target, deepcopy(source.conversion))
                conversion.add_tensor(source.target, source.stored.name, source.pattern, tensor)
        for target, conversion in conversions.items():
            for name, value in conversion.convert(target, model=self._model, config=self._model.config).items():
                tensors[name] = value[0] if isinstance(value, list) else value
        return tensors

    # Reading and giving up

    def _watch(self) -> None:
        """Hooks on every part. They are the first on their modules, so weights are there before anyone looks."""
        embeddings = self._model.get_input_embeddings()
        for part, sources in self._parts.items():
            module = self._model.get_submodule(part)
            block = self.block_of(part)
            if block is not None:
                module.register_forward_pre_hook(lambda _module, _args, block=block: self._hold(block, self.deltas))
            elif module is embeddings and len(sources) == 1 and sources[0].conversion is None:
                self._look_up(module, sources[0])
            else:
                module.register_forward_pre_hook(lambda _module, _args, part=part: self._load(part))
                module.register_forward_hook(lambda _module, _args, _output, part=part: self._release(part))

    def _look_up(self, embeddings: Any, source: _Source) -> None:
        """Gives the embeddings only the rows that a batch asks for, and it the ids of those."""
        padding = embeddings.padding_idx

        def before(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            ids, inverse = torch.unique(args[0].cpu(), return_inverse=True)
            rows = source.stored.rows(ids).to(self.device, source.dtype)
            self._set(source.target, rows)
            # An id of the full vocabulary; it matters to gradients only.
            module.padding_idx = None
            return (inverse.to(self.device), *args[1:])

        def after(module: Any, _args: Any, _output: Any) -> None:
            module.padding_idx = padding
            self._set(source.target, self._meta[source.target])

        embeddings.register_forward_pre_hook(before)
        embeddings.register_forward_hook(after)

    def _hold(self, block: int, deltas: Mapping[str, LowRankDelta]) -> None:
        """Puts a block's weights into memory, edited by its part of `deltas`, in place of those of another block."""
        wanted = {name: delta for name, delta in deltas.items() if self.block_of(name) == block}
        stale = any(wanted.get(name) is not delta for name, delta in self._applied.items())
        if self._resident != block or stale:
            self.release()
            self._load(f"{self.blocks}.{block}")
            self._resident = block
            self.loads[block] += 1
            if self._reader is not None and block + 1 < self._block_count:
                self._reader.submit(self._warm, block + 1)
        with torch.no_grad():
            for name, delta in wanted.items():
                if name not in self._applied:
                    delta.add_to(self._model.get_parameter(name))
                    self._applied[name] = delta

    def _load(self, part: str) -> None:
        for name, tensor in self._assemble(part, StoredTensor.read).items():
            self._set(name, tensor.to(self.device))

    def _release(self, part: str) -> None:
        for name in self._names[part]:
            self._set(name, self._meta[name])

    def _set(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(path)
        if leaf in module._parameters:
            held = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
            module._parameters[leaf] = held
        else:
            module._buffers[leaf] = tensor

    def _warm(self, block: int) -> None:
        buffer = bytearray(_WARM_BYTES)
        for source in self._parts.get(f"{self.blocks}.{block}", ()):
            source.stored.warm(buffer)

    # What others ask for

    def weight(self, name: str) -> Tensor:
        """An unedited weight; it is valid until a block runs or another weight is asked for.
        Raises:
            UnsupportedModel: it lies outside the blocks.
        """
        block = self.block_of(name)
        if block is None:
            raise UnsupportedModel(
                f"{name} lies outside the blocks, which a streamed model keeps on disk; load it whole"
            )
        self._hold(block, {})
        found: Tensor = self._model.get_parameter(name).detach()
        return found

    @contextmanager
    def edited(self, deltas: Mapping[str, LowRankDelta]) -> Iterator[None]:
        """Within, blocks run with these changes and no others."""
        before = self.deltas
        self.deltas = deltas
        try:
            yield
        finally:
            self.deltas = before

    def release(self) -> None:
        """Gives up the block that is in memory."""
        if self._resident is not None:
            self._release(f"{self.blocks}.{self._resident}")
            self._resident = None
            self._applied = {}

    def sample(self, name: str) -> Tensor:
        """The values of a parameter that a fingerprint is taken of."""
        sources = [source for source in self._parts[self._part(name)] if source.target == name]
        if len(sources) == 1 and sources[0].conversion is None:
            positions = sample_positions(self._meta[name].numel())
            return sources[0].stored.values(positions).to(sources[0].dtype)
        flat = self.weight(name).flatten()
        return flat[sample_positions(flat.numel())]


def streamed_weights(model: Any) -> StreamedWeights | None:
    """Where a model's weights come from; None for a model that holds its own."""
    found: StreamedWeights | None = getattr(model, _ATTRIBUTE, None)
    return found


def device_of(model: Any) -> torch.device:
    """Where a model computes."""
    streamed = streamed_weights(model)
    found: torch.device = next(model.parameters()).device if streamed is None else streamed.device
    return found


def weight_of(model: Any, name: str) -> Tensor:
    """An unedited weight by its parameter's name; of a streamed model it is valid until a block runs."""
    streamed = streamed_weights(model)
    found: Tensor = model.get_parameter(name).detach() if streamed is None else streamed.weight(name)
    return found


def _sources(model: Any, stored: Mapping[str, StoredTensor], dtype: torch.dtype) -> list[_Source]:
    """Where every weight of the model comes from, by the rules of transformers' own loading."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        build_glob_alternation,
        dot_natural_key,
        rename_source_key,
    )

    wanted = model.state_dict(keep_vars=True)
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    converter_of = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    exceptions = model._get_dtype_plan(dtype)
    pattern, by_group, _ = build_glob_alternation(list(exceptions)) if exceptions else (None, {}, None)

    def dtype_for(name: str) -> torch.dtype:
        match = pattern.search(name) if pattern is not None else None
        kept: torch.dtype = wanted[name].dtype if match is None else exceptions[by_group[str(match.lastgroup)]]
        return kept

    sources = []
    for key in sorted(stored, key=dot_natural_key):
        name, converter = rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)
        if name not in wanted and key in wanted:
            name, converter = rename_source_key(key, [], [], model.base_model_prefix, wanted)
        if name not in wanted:
            continue
        if wanted[name].is_floating_point() and stored[key].dtype not in EDITABLE:
            raise _quantised(f"{key} is stored as {stored[key].dtype}")
        rule = None if converter is None else converter_of[converter]
        sources.append(_Source(stored[key], name, dtype_for(name), converter, rule))
    there = {source.target for source in sources}
    for name, original in model.all_tied_weights_keys.items():
        if name not in there:
            sources += [_Source(source.stored, name, source.dtype) for source in sources if source.target == original]
    return sources


def _quantised(reason: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"this checkpoint is quantised ({reason}): edit the one in bfloat16 that it was made from, export that and "
        "quantise it again, or export the edit as a LoRA and load it beside the quantised weights"
    )


def load_streamed(
    folder: Path,
    *,
    name: str | None = None,
    precision: Precision = "auto",
    device: str | None = None,
    prefetch: bool = True,
) -> LoadedModel:
    """Loads a checkpoint folder as a streamed model, which takes the memory of one block.
    Args:
        folder: with config.json, safetensors and a tokenizer.
        name: what the user calls it; by default the folder.
        precision, device: as in `load_model`.
        prefetch: whether the next block's bytes are read ahead.
    Raises:
        UserError: the folder is incomplete or damaged.
        UnsupportedModel: it is not a causal language model, has no chat template, or is quantised.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    device = device or default_device()
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; give the folder of a Hugging Face checkpoint")
    dtype = getattr(torch, resolve_precision(precision, device))
    try:
        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "quantization_config", None):
            raise _quantised("config.json has a quantization_config")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        check_chat_template(tokenizer)
        with init_empty_weights():
            model: Any = causal_class(config).from_config(config, dtype=dtype)
        # Moving to the meta device unties shared embeddings.
        model.tie_weights()
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"cannot load {folder}: {first_line}; give a Hugging Face checkpoint") from error
    if not model.can_generate():
        raise UnsupportedModel(
            f"{folder} ({type(model).__name__}) does not generate text; give a causal language model"
        )
    model.eval()
    blocks = locate_mlps(model)[0].block.rpartition(".")[0]
    streamed = StreamedWeights(model, read_weights(folder)[1], dtype, torch.device(device), blocks, prefetch=prefetch)
    setattr(model, _ATTRIBUTE, streamed)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    samples = ((parameter, streamed.sample(parameter)) for parameter, _ in model.named_parameters())
    return LoadedModel(name or str(folder), folder, model, tokenizer, fingerprint_of(model.config, samples))
