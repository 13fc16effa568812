"""What the cost benchmarks share: where their results lie, and a clock that waits for the device."""

from __future__ import annotations

import re
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def result_file(name: str, device: str) -> Path:
    """`results/NAME.json` for the CPU, `results/DEVICE/NAME.json` for a GPU, such as `results/nvidia-h100/`."""
    if not device.startswith("cuda"):
        return RESULTS / f"{name}.json"
    import torch

    return RESULTS / device_folder(torch.cuda.get_device_name(device)) / f"{name}.json"


def device_folder(device_name: str) -> str:
    """A GPU's maker and model out of its name: `nvidia-h100` for `NVIDIA H100 80GB HBM3`."""
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    # What follows the first word with a digit is memory and socket.
    model = next((index for index, word in enumerate(words) if re.search(r"\d", word)), len(words) - 1)
    return "-".join(words[: model + 1])


def clock(device: str) -> float:
    """`time.perf_counter()` once the device has done all that it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()
