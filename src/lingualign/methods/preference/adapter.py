"""What is trained: a private copy of the model that shares its weights, with LoRA or full fine-tuning on top; and the
way back, from what was learned to an `Edit`.

The copy has modules, flags and configuration of its own, so a trainer may patch it as it likes: the user's model is
never written to. With LoRA the copy costs the adapter alone; with full fine-tuning a float32 copy of what is trained.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, MissingDependency, UnsupportedModel

Tuning = Literal["lora", "full"]


def shared_copy(model: Any) -> Any:
    """The same network as new modules over the same weight storage, frozen, in evaluation mode."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, memo).eval()


def linear_modules(model: Any) -> list[str]:
    """Paths of the linear layers, the output head left out.

    Raises:
        UnsupportedModel: there is none.
    """
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    if not names:
        raise UnsupportedModel(f"{type(model).__name__} has no linear layers to train; give a decoder-only transformer")
    return names


def linear_weights(model: Any) -> int:
    """Weights of all linear layers, the output head included: each takes two operations per token and pass."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))


@dataclass
class Trainee:
    """The copy that is trained.

    Attributes:
        network: the copy, a Hugging Face causal LM.
        base: the user's model.
        tuning: `lora` or `full`.
        modules: paths of the trained linear layers.
        rank, alpha: of LoRA.
    """

    network: Any
    base: Any
    tuning: Tuning
    modules: list[str]
    rank: int
    alpha: int

    @classmethod
    def of(cls, model: Any, tuning: Tuning, *, rank: int, alpha: int) -> Trainee:
        """Copies a model for training. The adapter is added later, by `add_adapter` or by a trainer that is given
        `lora_config`.

        Raises:
            ConfigError: the model is in float16, whose gradients underflow.
            UnsupportedModel: it has no linear layers.
        """
        dtype = next(model.parameters()).dtype
        if dtype not in (torch.float32, torch.bfloat16):
            raise ConfigError(f"cannot train a model in {dtype}; load it with precision float32 or bfloat16")
        trainee = cls(shared_copy(model), model, tuning, linear_modules(model), rank, alpha)
        if tuning == "full":
            # Master weights in float32: steps of a published size round away in bfloat16.
            for name in trainee.modules:
                module = trainee.network.get_submodule(name)
                module.weight = nn.Parameter(module.weight.detach().to(torch.float32, copy=True))
        return trainee

    @property
    def mixed(self) -> bool:
        """Whether float32 weights are used in bfloat16 arithmetic."""
        return self.tuning == "full" and next(self.base.parameters()).dtype == torch.bfloat16

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of forward passes, for the reference as for the trained network."""
        return torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.mixed)

    def lora_config(self) -> Any:
        """PEFT's configuration, or None for full fine-tuning.

        Raises:
            MissingDependency: PEFT is not installed.
        """
        if self.tuning == "full":
            return None
        try:
            from peft import LoraConfig
        except ImportError:
            raise MissingDependency("peft", "train") from None
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=0.0, target_modules=self.modules, task_type="CAUSAL_LM"
        )

    def add_adapter(self) -> None:
        """Adds LoRA layers to the copy, B = 0, A from torch's global generator; nothing for full fine-tuning."""
        config = self.lora_config()
        if config is not None:
            from peft import get_peft_model

            # PEFT still reads names that transformers has deprecated.
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                get_peft_model(self.network, config)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def edit(self, rank: int | None) -> Edit:
        """What was learned, as an edit of the user's model; the manifest holds the diagnostics only.

        LoRA: ΔW = (α/r) B A exactly. Full: the float32 difference, exactly (one factor is the identity), or its best
        approximation of rank `rank`.
        """
        deltas, base, diagnostics = {}, {}, []
        for name in self.modules:
            module = self.network.get_submodule(name)
            weight = self.base.get_parameter(f"{name}.weight").detach()
            if self.tuning == "lora":
                out_factor = module.lora_B["default"].weight.detach().float() * module.scaling["default"]
                in_factor = module.lora_A["default"].weight.detach().float().T
                residual = 0.0
            else:
                difference = module.weight.detach() - weight.float()
                out_factor, in_factor, residual = factors(difference, rank)
            if not (bool(out_factor.any()) and bool(in_factor.any())):
                continue
            parameter = f"{name}.weight"
            delta = LowRankDelta(
                out_factor.cpu().contiguous(), in_factor.cpu().contiguous(), (weight.shape[0], weight.shape[1])
            )
            deltas[parameter], base[parameter] = delta, tensor_fingerprint(weight)
            rows, columns = delta.shape
            diagnostics.append(
                {
                    "tensor": parameter,
                    "rank": delta.rank,
                    "rows": rows,
                    "columns": columns,
                    **_sizes(delta, weight),
                    "residual": residual,
                }
            )
        return Edit(deltas, base, {"diagnostics": diagnostics})


def factors(difference: Tensor, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """(out_factor, in_factor, residual) of a dense change (d_out, d_in).

    Exact for `rank` None: the identity on the narrower side. Otherwise the truncated singular value decomposition,
    with the Frobenius norm of what it leaves out relative to the whole.
    """
    if rank is None or rank >= min(difference.shape):
        out_size, in_size = difference.shape
        if in_size <= out_size:
            return difference, torch.eye(in_size, device=difference.device), 0.0
        return torch.eye(out_size, device=difference.device), difference.T, 0.0
    left, sigma, right = torch.linalg.svd(difference, full_matrices=False)
    total = float(sigma.square().sum().sqrt())
    left_out = float(sigma[rank:].square().sum().sqrt())
    return left[:, :rank] * sigma[:rank], right[:rank].T, left_out / total if total else 0.0


def _sizes(delta: LowRankDelta, weight: Tensor) -> dict[str, float]:
    """The change relative to the weight, and how much of it is left once the sum is rounded to the weight's dtype."""
    change = delta.dense().to(weight.device)
    before = weight.float()
    realised = (before + change).to(weight.dtype).float() - before
    norm = float(change.norm())
    return {"relative_change": norm / float(before.norm()), "realised": float(realised.norm()) / norm}
