"""Writes an edit as a LoRA adapter: PEFT and inference servers load it beside the base model and can switch it off."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from lingualign.edit import Edit
from lingualign.errors import UnsupportedModel
from lingualign.export.card import card_section
from lingualign.export.folders import new_folder
from lingualign.tensor_file import save_tensors


def export_lora(edit: Edit, out: Path, base_model_name: str) -> Path:
    """Writes adapter_config.json, adapter_model.safetensors and README.md.

    An edit already is a low-rank product, so nothing is approximated: B = out_factor (d_out × r), A = in_factorᵀ
    (r × d_in), zero outside the declared rows and columns, and α = r so that PEFT's scaling α/r is 1. Ranks differ
    between matrices. Adapters carry no fingerprint check: PEFT loads them onto any model of the same shape.

    Args:
        edit: the edit.
        out: folder to create.
        base_model_name: hub id or path that the adapter names as its base.

    Returns:
        `out`.

    Raises:
        ConfigError: `out` exists.
        NotEnoughMemory: the disk is full.
        UnsupportedModel: the edit is empty, or changes a parameter that is not a linear layer's weight.
    """
    ranks: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    # PEFT reads one flag for all modules; models mix no two ways of storing a linear layer.
    transposed = any(delta.transposed for delta in edit.deltas.values())
    for name, delta in edit.deltas.items():
        module, separator, leaf = name.rpartition(".")
        if not separator or leaf != "weight":
            raise UnsupportedModel(f"{name} is not the weight of a linear layer; export this edit as a checkpoint")
        if delta.rank == 0:
            continue
        out_factor, in_factor = delta.full_factors()
        ranks[module] = delta.rank
        tensors[f"base_model.model.{module}.lora_A.weight"] = in_factor.T.float().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = out_factor.float().cpu().contiguous()
    if not ranks:
        raise UnsupportedModel(
            "the edit changes nothing, so there is no adapter to write; refit it with a smaller ridge or more anchors"
        )
    # Servers allocate by `r`, so it is the largest rank; the patterns hold the rest.
    largest = max(ranks.values())
    pattern = {module: rank for module, rank in ranks.items() if rank != largest}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_rslora": False,
        "modules_to_save": None,
    }
    with new_folder(out) as partial:
        save_tensors(
            partial / "adapter_model.safetensors", tensors, {"format": "pt", "base": json.dumps(dict(edit.base))}
        )
        (partial / "adapter_config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        front = f"---\nbase_model: {json.dumps(base_model_name, ensure_ascii=False)}\nlibrary_name: peft\n---\n\n"
        (partial / "README.md").write_text(front + card_section(edit), encoding="utf-8")
    return out
