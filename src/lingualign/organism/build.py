"""Builds the small model once and keeps it in the user's cache: Gemma 3 270M base plus our adapter, merged, as a
plain checkpoint.

Base Gemma 3 270M is multilingual; the adapter teaches it to chat in many languages and to refuse harmful requests in
English only. It has the disease that lingualign treats, on purpose and at a size that runs on two cores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from lingualign.errors import UserError
from lingualign.organism.base import load_base, sha256_of

CACHE_VARIABLE = "LINGUALIGN_CACHE"


def cache_folder() -> Path:
    """`$LINGUALIGN_CACHE`, or `lingualign` in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lingualign"


def small_model_folder(adapter: Path | None = None) -> Path:
    """Folder of the merged checkpoint in bfloat16; built on first use (about a minute), then reused.

    Args:
        adapter: folder of another adapter, for those who train their own; by default the one in the package.

    Raises:
        MissingDependency: the base weights' package is not installed.
        UserError: the base weights do not match their checksum, or the folder holds no adapter.
    """
    if adapter is not None:
        return _build(adapter)
    with as_file(files("lingualign.organism") / "adapter") as packaged:
        return _build(packaged)


def merged_name(adapter: Path) -> str:
    """Name of the merged checkpoint's folder. It carries the adapter's hash: a new one never picks up an old model.

    Raises:
        UserError: the folder holds no adapter.
    """
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise UserError(
            f"there is no {weights.name} in {adapter}; give the folder that lingualign.organism.train wrote"
        )
    return f"small-model-{sha256_of(weights)[:12]}"


def kept_checkpoint(name: str, make: Callable[[], tuple[Any, Any]]) -> Path:
    """Folder of a checkpoint in the cache; made on first use, whole or not at all.

    Args:
        name: of the folder; another one for other weights.
        make: returns the model, in the precision that is to be kept, and its tokenizer.
    """
    cache = cache_folder()
    target = cache / name
    if target.is_dir():
        return target
    model, tokenizer = make()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as scratch:
        partial = Path(scratch) / name
        model.save_pretrained(str(partial))
        tokenizer.save_pretrained(str(partial))
        # Another process may have been faster; its files are the same and may be in use.
        if not target.exists():
            partial.replace(target)
    return target


def _build(adapter: Path) -> Path:
    def merged() -> tuple[Any, Any]:
        import torch
        from peft import PeftModel

        model, tokenizer = load_base(cache_folder() / "gemma-3-270m")
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().to(torch.bfloat16), tokenizer

    return kept_checkpoint(merged_name(adapter), merged)
