"""Steering: activations changed while the model runs, by hooks; no weight is touched.

At a site the activation h of a token becomes h + s(h) with s(h) = b + A(Bᵀh): a constant direction (A empty), a linear
map of low rank (b zero), or both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import ConfigError, FingerprintMismatch, UnsupportedModel, UserError
from lingualign.features.collect import Site
from lingualign.models.load import model_fingerprint
from lingualign.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
#: Which tokens are steered. `all`: every token, each by its own activation. `prompt`: every token of the prompt, by the
#: activation of its last one. `prompt-last`: the prompt's last token. `generated`: the reply's tokens.
SteeredTokens = Literal["all", "prompt", "prompt-last", "generated"]


@dataclass(frozen=True)
class SteeringTerm:
    """s(h) = offset + out_factor · (in_factorᵀ h) at one site.

    Attributes:
        offset: (d,) float32.
        out_factor: (d, r) float32; r may be 0.
        in_factor: (d, r) float32.
    """

    offset: Tensor
    out_factor: Tensor
    in_factor: Tensor

    @classmethod
    def constant(cls, direction: Tensor) -> SteeringTerm:
        """The same direction (d,) for every token."""
        empty = torch.zeros(len(direction), 0)
        return cls(direction.float().contiguous(), empty, empty.clone())

    @classmethod
    def linear(cls, out_factor: Tensor, in_factor: Tensor) -> SteeringTerm:
        """Δh with Δ = out_factor · in_factorᵀ."""
        return cls(torch.zeros(len(out_factor)), out_factor.float().contiguous(), in_factor.float().contiguous())

    @property
    def width(self) -> int:
        return len(self.offset)

    @property
    def is_zero(self) -> bool:
        return not bool(self.offset.any()) and not (bool(self.out_factor.any()) and bool(self.in_factor.any()))

    def scaled(self, factor: float) -> SteeringTerm:
        return replace(self, offset=self.offset * factor, out_factor=self.out_factor * factor)

    def to(self, device: torch.device) -> SteeringTerm:
        return SteeringTerm(self.offset.to(device), self.out_factor.to(device), self.in_factor.to(device))

    def __call__(self, states: Tensor) -> Tensor:
        """s of each of the states (…, d), float32."""
        return self.offset + (states.float() @ self.in_factor) @ self.out_factor.T


@dataclass
class _Pass:
    """One forward pass: whether it reads a prompt, and the index of each row's last token in it."""

    is_prompt: bool = True
    last: Tensor | None = None


@dataclass(frozen=True)
class Steering:
    """A treatment of a model's activations.

    A pass without past keys and values is taken for a prompt, one with them for a reply: so `all` is the only choice
    whose meaning is the same where a prompt and its reply are read in one pass, or generated without a cache.

    Attributes:
        terms: what is added, by site.
        base: `model_fingerprint` of the model it was made for.
        tokens: which tokens are steered.
        manifest: method, settings, diagnostics and provenance; JSON-serialisable.
    """

    terms: Mapping[Site, SteeringTerm]
    base: str
    tokens: SteeredTokens = "all"
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tokens not in get_args(SteeredTokens):
            raise ConfigError(f"tokens is {self.tokens!r}; give one of {', '.join(get_args(SteeredTokens))}")

    @property
    def fingerprint(self) -> str:
        """Identifies the steering by its numbers. First 16 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.base} {self.tokens}".encode())
        for site, term in sorted(self.terms.items(), key=lambda item: (item[0].module, item[0].side)):
            digest.update(f"{site.module}:{site.side}".encode())
            for part in (term.offset, term.out_factor, term.in_factor):
                digest.update(str(tuple(part.shape)).encode())
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def scaled(self, factor: float) -> Steering:
        """The same steering at `factor` times its strength."""
        return replace(
            self,
            terms={site: term.scaled(factor) for site, term in self.terms.items()},
            manifest={**self.manifest, "scale": factor * float(self.manifest.get("scale", 1.0))},
        )

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Steers the model for the duration of a `with` block; then every hook is gone, whatever happened.

        Works with batches, padding on either side and cached generation.

        Args:
            model: the causal LM; it must be called itself, with keyword arguments as transformers' `generate` does.

        Raises:
            FingerprintMismatch: the model is not the one the steering was made for.
            UnsupportedModel: a site is missing.
        """
        if model_fingerprint(model) != self.base:
            raise FingerprintMismatch(
                "this is not the model the steering was made for (fingerprint differs); load that one, or fit it anew"
            )
        modules = dict(model.named_modules())
        missing = [site.module for site in self.terms if site.module not in modules]
        if missing:
            raise UnsupportedModel(f"{type(model).__name__} has no module {missing[0]}; use the steering's own model")
        current = _Pass()
        with ExitStack() as stack:
            hook = model.register_forward_pre_hook(
                lambda _module, args, kwargs: _note(current, args, kwargs), with_kwargs=True
            )
            stack.callback(hook.remove)
            for site, term in self.terms.items():
                # A term of zero strength must not even turn -0.0 into 0.0.
                if not term.is_zero:
                    stack.callback(_steer(modules[site.module], site, term, self.tokens, current).remove)
            yield model

    # Weights

    def to_edit(self, model: nn.Module) -> Edit:
        """The same change as an edit of weights, where there is one: m + Δm = (W + ΔW)x with ΔW = A(BᵀW).

        Exact up to rounding for a linear map of every token (`tokens = "all"`, no offset) at the output of a linear
        layer without bias: `down_proj`, before any norm that follows it (Gemma 2 and 3, OLMo 2). Behind such a norm, or
        on the residual stream, whose h reaches the next block past all weights, no weight does the same.

        Raises:
            ConfigError: the steering is not of that form.
            UnsupportedModel: a site's module is no linear layer without bias.
        """
        if self.tokens != "all":
            raise ConfigError(f"a weight acts on every token, not on {self.tokens!r}; steer with tokens='all'")
        deltas: dict[str, LowRankDelta] = {}
        base: dict[str, str] = {}
        for site, term in self.terms.items():
            module = model.get_submodule(site.module)
            if site.side != "output" or bool(term.offset.any()):
                raise ConfigError(
                    f"no weight does what the steering does at the {site.side} of {site.module}; "
                    "only a linear map of a layer's output can be folded into it, so fit AlphaSteer with site='mlp'"
                )
            if not isinstance(module, torch.nn.Linear) or module.bias is not None:
                raise UnsupportedModel(f"{site.module} is not a linear layer without bias, so nothing can be folded")
            weight = module.weight.detach()
            name = f"{site.module}.weight"
            deltas[name] = LowRankDelta(
                term.out_factor,
                (weight.cpu().double().T @ term.in_factor.double()).float().contiguous(),
                (weight.shape[0], weight.shape[1]),
            )
            base[name] = tensor_fingerprint(weight)
        return Edit(deltas, base, {**self.manifest, "folded": True})

    # Files

    def save(self, path: Path) -> Path:
        """Writes tensors and manifest as one safetensors file, atomically."""
        if path.suffix != ".safetensors":
            raise ConfigError(f"a steering is saved as .safetensors, not {path.name!r}; name it steering.safetensors")
        sites = list(self.terms)
        tensors = {
            f"{index}:{part}": getattr(self.terms[site], part)
            for index, site in enumerate(sites)
            for part in ("offset", "out_factor", "in_factor")
        }
        metadata = {
            "format": f"lingualign-steering-{FORMAT_VERSION}",
            "sites": json.dumps([asdict(site) for site in sites]),
            "base": self.base,
            "tokens": self.tokens,
            "manifest": json.dumps(dict(self.manifest), ensure_ascii=False),
        }
        return write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> Steering:
        """Reads a steering file.

        Raises:
            UserError: the file is missing, truncated or not a steering.
        """
        if not path.is_file():
            raise UserError(f"no steering file at {path}; fit one and save it there")
        tensors, metadata = read_tensors(path, remedy="fit it again")
        if metadata.get("format") != f"lingualign-steering-{FORMAT_VERSION}":
            raise UserError(f"{path} is not a lingualign steering of format {FORMAT_VERSION}; fit it again")
        terms = {
            Site(site["module"], site["side"]): SteeringTerm(
                *(tensors[f"{index}:{part}"] for part in ("offset", "out_factor", "in_factor"))
            )
            for index, site in enumerate(json.loads(metadata["sites"]))
        }
        tokens: Any = metadata["tokens"]
        return cls(terms, metadata["base"], tokens, json.loads(metadata["manifest"]))


def _note(current: _Pass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Notes what kind of pass begins."""
    past = kwargs.get("past_key_values")
    current.is_prompt = past is None or int(past.get_seq_length()) == 0
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        # The last token that is no padding, on either side.
        current.last = mask.shape[1] - 1 - mask.flip(1).to(torch.uint8).argmax(1)
        return
    ids = kwargs.get("input_ids", args[0] if args else None)
    tokens = kwargs["inputs_embeds"] if ids is None else ids
    current.last = torch.full((tokens.shape[0],), tokens.shape[1] - 1, device=tokens.device)


def _steer(module: nn.Module, site: Site, term: SteeringTerm, tokens: SteeredTokens, current: _Pass) -> Any:
    """Registers the hook of one site; returns its handle."""
    moved: dict[torch.device, SteeringTerm] = {}

    def steered(states: Tensor) -> Tensor:
        if tokens in ("prompt", "prompt-last") and not current.is_prompt:
            return states
        if tokens == "generated" and current.is_prompt:
            return states
        if states.device not in moved:
            moved[states.device] = term.to(states.device)
        local = moved[states.device]
        if tokens in ("all", "generated"):
            return (states.float() + local(states)).to(states.dtype)
        assert current.last is not None
        rows = torch.arange(states.shape[0], device=states.device)
        last = current.last.to(states.device)
        step = local(states[rows, last])
        if tokens == "prompt":
            return (states.float() + step[:, None]).to(states.dtype)
        changed = states.clone()
        changed[rows, last] = (states[rows, last].float() + step).to(states.dtype)
        return changed

    def replaced(value: Any) -> Any:
        return (steered(value[0]), *value[1:]) if isinstance(value, tuple) else steered(value)

    if site.side == "input":
        return module.register_forward_pre_hook(lambda _module, args: replaced(args))
    return module.register_forward_hook(lambda _module, _args, output: replaced(output))
