"""Benchmarks from the Hugging Face hub: the published files, downloaded once into the hub's own cache."""

from __future__ import annotations

import os
from pathlib import Path

from lingualign.data.benchmarks.spec import Benchmark
from lingualign.errors import DataError


def download(benchmark: Benchmark) -> Path:
    """The folder with the benchmark's files, downloaded where the cache lacks them. HF_HUB_OFFLINE is respected.

    Raises:
        DataError: the benchmark is not on the hub, wants accepted terms, or the hub cannot be reached.
    """
    name, hub = benchmark.name, benchmark.hub
    instead = f"download it from {benchmark.homepage} and give {name}:FOLDER"
    if hub is None:
        raise DataError(f"{name} is not on the hub; {instead}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub.repository, repo_type="dataset", allow_patterns=list(hub.files)))
    except GatedRepoError:
        raise DataError(
            f"{name}: {hub.repository} is gated; accept its terms at {hub.url} and run `hf auth login`, or {instead}"
        ) from None
    except RepositoryNotFoundError:
        raise DataError(
            f"{name}: no data set {hub.repository} on the hub, or it wants `hf auth login`; {instead}"
        ) from None
    except Exception:  # The hub's own errors, and those of an HTTP library that differs between its versions.
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        fix = "unset HF_HUB_OFFLINE" if offline else "check the network"
        raise DataError(
            f"{name}: {hub.repository} cannot be reached and is not in the hub's cache; {fix}, or {instead}"
        ) from None
