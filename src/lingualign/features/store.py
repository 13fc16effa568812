"""Features cached on disk by content, so that a re-solve needs no forward pass and a killed collection goes on where
it stopped.

Every entry is named by the hash of all that determines it: the model's fingerprint, the token ids, the sites, the
positions. An entry is written shard by shard (a few hundred chats); killing the process loses at most the shard in
flight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.features.collect import Site, collect_rows, stream_features
from lingualign.features.moments import Moments
from lingualign.features.positions import Positions
from lingualign.models.chat import EncodedChat

Progress = Callable[[str, int, int], None]


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress."""


class FeatureSource:
    """Collects features of one model, through a cache folder if one is given.

    Args:
        model: the causal LM.
        fingerprint: identifies the model's weights; must change when they change (an edit in memory included).
        pad_id: token id for padding.
        cache: folder of the cache, or None to keep nothing.
        shard: chats per shard.
        batch_tokens: padded tokens per forward pass.
        progress: called with (stage, done, total).
    """

    def __init__(
        self,
        model: Any,
        fingerprint: str,
        *,
        pad_id: int = 0,
        cache: Path | None = None,
        shard: int = 512,
        batch_tokens: int = 2048,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint
        self.pad_id = pad_id
        self.cache = cache
        self.shard = shard
        self.batch_tokens = batch_tokens
        self.progress = progress or _silent

    def rows(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Tensor]:
        """{site: (len(chats), positions.rows, width) float32}, cached shard by shard."""
        shards = [chats[start : start + self.shard] for start in range(0, len(chats), self.shard)]
        parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
        done = 0
        for part in shards:
            path = self._path("rows", part, sites, positions)
            tensors = _load(path)
            if tensors is None:
                rows = collect_rows(
                    self.model,
                    part,
                    sites,
                    positions,
                    pad_id=self.pad_id,
                    batch_tokens=self.batch_tokens,
                    on_batch=lambda count, base=done: self.progress(stage, base + count, len(chats)),
                )
                tensors = {_name(site): rows[site] for site in sites}
                _save(path, tensors)
            for site in sites:
                parts[site].append(tensors[_name(site)])
            done += len(part)
            self.progress(stage, done, len(chats))
        return {site: torch.cat(tensors) for site, tensors in parts.items()}

    def moments(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Moments]:
        """{site: moments of all rows}; the running sums are saved after each shard, under the hash of what they
        hold."""
        starts = list(range(0, len(chats), self.shard))
        sums: dict[Site, Moments] = {}
        first = 0
        # The longest prefix of shards whose sums lie on disk; later runs go on from there.
        for index in reversed(range(len(starts))):
            stored = _load(self._path("moments", chats[: starts[index] + self.shard], sites, positions))
            if stored is not None:
                sums = {site: _unpack(stored, site) for site in sites}
                first = index + 1
                break
        previous = self._path("moments", chats[: first * self.shard], sites, positions) if first else None
        for start in starts[first:]:
            part = chats[start : start + self.shard]
            for _, rows in stream_features(
                self.model,
                part,
                sites,
                positions,
                pad_id=self.pad_id,
                batch_tokens=self.batch_tokens,
                on_batch=lambda count, base=start: self.progress(stage, base + count, len(chats)),
            ):
                for site, value in rows.items():
                    if site not in sums:
                        sums[site] = Moments.empty(value.shape[-1])
                    sums[site].add(value)
            path = self._path("moments", chats[: start + self.shard], sites, positions)
            _save(path, {key: tensor for site in sites for key, tensor in _pack(sums[site], site).items()})
            if previous is not None:
                previous.unlink(missing_ok=True)
            previous = path
        self.progress(stage, len(chats), len(chats))
        return sums

    def _path(
        self, form: str, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions
    ) -> Path | None:
        if self.cache is None:
            return None
        content = {
            "form": form,
            "model": self.fingerprint,
            "sites": [asdict(site) for site in sites],
            "positions": asdict(positions),
            "chats": [[chat.ids, chat.content, chat.prompt_length] for chat in chats],
        }
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return self.cache / f"{form}-{digest[:24]}.safetensors"


def _name(site: Site) -> str:
    return f"{site.module}:{site.side}"


def _pack(moments: Moments, site: Site) -> dict[str, Tensor]:
    name = _name(site)
    return {
        f"{name}:count": torch.tensor([moments.count]),
        f"{name}:total": moments.total,
        f"{name}:outer": moments.outer,
    }


def _unpack(tensors: dict[str, Tensor], site: Site) -> Moments:
    name = _name(site)
    return Moments(int(tensors[f"{name}:count"]), tensors[f"{name}:total"], tensors[f"{name}:outer"])


def _load(path: Path | None) -> dict[str, Tensor] | None:
    """The entry, or None when it is absent or was damaged (then it is collected again)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path is None or not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError:
        return None


def _save(path: Path | None, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)
