"""Loads a causal language model from the hub, a folder, or the built-in small model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lingualign.errors import UnsupportedModel, UserError
from lingualign.models.chat import check_chat_template

if TYPE_CHECKING:
    from torch import Tensor

#: The name under which commands reach the built-in small model.
SMALL_MODEL = "small"
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        name: what the user asked for.
        folder: local checkpoint folder, or None when it came straight from the hub's cache.
        model: the transformers model in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        fingerprint: hash of configuration and a sample of every weight; changes when the checkpoint changes.
    """

    name: str
    folder: Path | None
    model: Any
    tokenizer: Any
    fingerprint: str

    @property
    def precision(self) -> str:
        """Name of the dtype of the weights, such as `bfloat16`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")


def resolve_precision(precision: Precision, device: str) -> str:
    """bfloat16 where the device computes in it natively, else float32."""
    import torch

    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "bfloat16" if capabilities == "AVX512" and torch.cpu._is_avx512_bf16_supported() else "float32"


def default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def sample_positions(count: int) -> slice:
    """Which of a parameter's values, flattened, its fingerprint is taken of: 64, evenly spaced."""
    step = max(1, count // 64)
    return slice(0, min(count, 64 * step), step)


def fingerprint_of(config: Any, samples: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over a configuration and, by name, each parameter's values at `sample_positions` as bfloat16."""
    import torch

    values = {key: value for key, value in config.to_dict().items() if not key.startswith("_") and "dtype" not in key}
    values.pop("transformers_version", None)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for name, sample in samples:
        digest.update(name.encode())
        digest.update(sample.to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def causal_class(config: Any) -> Any:
    """The automatic class that builds a model of this configuration: for causal language models, or for those that also
    see or hear and are no plain causal language model to transformers."""
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING

    known, multimodal = (
        type(config) in mapping for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING)
    )
    return AutoModelForMultimodalLM if multimodal and not known else AutoModelForCausalLM


def model_fingerprint(model: Any) -> str:
    """The fingerprint of a model's configuration and weights."""
    flat = ((name, parameter.detach().flatten()) for name, parameter in model.named_parameters())
    return fingerprint_of(model.config, ((name, values[sample_positions(len(values))]) for name, values in flat))


def load_model(
    name: str,
    *,
    precision: Precision = "auto",
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat: bool = True,
) -> LoadedModel:
    """Loads `name`: `small` for the built-in model, a checkpoint folder, or a hub id.

    Args:
        chat: whether the tokenizer needs a chat template; a guard that is asked in raw text does not.

    Raises:
        UserError: there is no such model, or its files are damaged.
        UnsupportedModel: it is not a causal language model, or has no chat template.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer

    device = device or default_device()
    source = name
    if name == SMALL_MODEL:
        from lingualign.organism.build import small_model_folder

        source = str(small_model_folder())
    folder = Path(source) if Path(source).is_dir() else None
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; give the folder of a Hugging Face checkpoint")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        if chat:
            check_chat_template(tokenizer)
        model = causal_class(AutoConfig.from_pretrained(source, **options)).from_pretrained(
            source, dtype=getattr(torch, resolve_precision(precision, device)), **options
        )
    except SafetensorError as error:
        raise UserError(f"the weights of {name} are truncated or damaged ({error}); download them again") from error
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot load {name}: {first_line} (give a local folder, a hub id you can reach, or `small`)"
        ) from error
    if not model.can_generate():
        raise UnsupportedModel(f"{name} ({type(model).__name__}) does not generate text; give a causal language model")
    # Typed as a plain module: transformers' wrapper of `to` hides its arguments.
    module: Any = model
    model = module.to(device).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(name, folder, model, tokenizer, model_fingerprint(model))
