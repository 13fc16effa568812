"""What a run ran on: the machine in one line, package versions, free memory and disk."""

from __future__ import annotations

import contextlib
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lingualign.errors import ConfigError

PACKAGES = ("lingualign", "torch", "transformers", "safetensors", "tokenizers", "scipy", "scikit-learn", "peft")
GIBIBYTE = 1024**3
#: Seconds between two readings of this process's memory.
SAMPLING = 0.02


def cpu_name() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware_line(device: str) -> str:
    """One line such as `AMD EPYC 7B13, 2 threads, 23 GiB` or `1 x NVIDIA H100, 79 GiB; 16 threads, 128 GiB`."""
    import torch

    host = f"{torch.get_num_threads()} threads, {total_memory() / GIBIBYTE:.0f} GiB"
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return f"1 x {properties.name}, {properties.total_memory / GIBIBYTE:.0f} GiB; {host}"
    return f"{cpu_name()}, {host}"


def check_device(device: str) -> None:
    """Refuses a device that this machine does not have.

    Raises:
        ConfigError: it is not there.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ConfigError(f"there is no device {device!r} here; leave --device out, or give cpu") from None


def total_memory() -> int:
    """Bytes of main memory."""
    import psutil

    return int(psutil.virtual_memory().total)


def free_memory(device: str) -> int:
    """Bytes that a new computation on the device can have."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def resident_memory() -> int:
    """Bytes of main memory that this process has."""
    import psutil

    return int(psutil.Process().memory_info().rss)


@dataclass
class Peak:
    """Most memory that was seen.

    Attributes:
        resident: bytes of main memory.
        device: bytes of tensors on the GPUs, of each at its own peak; 0 where torch uses none.
    """

    resident: int = 0
    device: int = 0


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """The most memory that this process has within; known at the end.

    Main memory is read fifty times a second. The kernel keeps a mark of its own, which can only be reset for the whole
    process: then `time -v` would tell the peak of the last stage.
    """
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLING):
            peak.resident = max(peak.resident, resident_memory())

    torch: Any = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if on_gpu else ()
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    peak.resident = resident_memory()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
        peak.resident = max(peak.resident, resident_memory())
        peak.device = sum(torch.cuda.max_memory_allocated(device) for device in devices)


def free_disk(folder: Path) -> int:
    """Free bytes on the file system that holds `folder`, which need not exist."""
    import shutil

    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def others_seconds() -> float:
    """Seconds of processor time that all other processes took since the machine started, about."""
    import psutil

    every, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return float(every.user + every.system + getattr(every, "nice", 0.0) - own.user - own.system)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on; absent packages are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        version = installed_version(name)
        if version:
            found[name] = version
    return found


def installed_version(package: str) -> str:
    """The version of an installed distribution, or "" where there is none."""
    if package == "lingualign":
        from lingualign import __version__

        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
