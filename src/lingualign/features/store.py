"""Features cached on disk by content, so that a re-solve needs no forward pass and a killed collection goes on where
it stopped.

Every entry is named by the hash of all that determines it: the model's fingerprint, the token ids, the site, the
positions. An entry is written shard by shard (a few hundred chats); killing the process loses at most the shard in
flight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lingualign.features.block_major import Batch, OnePass
from lingualign.features.carry import States
from lingualign.features.collect import Site, batches_by_length, collect_rows, stream_features
from lingualign.features.moments import Moments
from lingualign.features.positions import Positions
from lingualign.features.ranks import largest, share, size, total
from lingualign.models.chat import EncodedChat
from lingualign.models.stages import streamed_weights
from lingualign.solvers.gram import ROWS_AT_ONCE
from lingualign.tensor_file import save_tensors

Progress = Callable[[str, int, int], None]


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress."""


class FeatureSource:
    """Collects features of one model, through a cache folder if one is given; of several ranks each reads its part of
    the chats, and all get the whole (`features.ranks`).

    Args:
        model: the causal LM.
        fingerprint: identifies the model's weights; must change when they change (an edit in memory included).
        pad_id: token id for padding.
        cache: folder of the cache, or None to keep nothing.
        shard: chats per shard.
        batch_tokens: padded tokens per forward pass.
        states: where a pass goes on from, for a model that is edited block by block; None to start every pass anew.
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
        states: States | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint
        self.pad_id = pad_id
        self.cache = cache
        self.shard = shard
        self.batch_tokens = batch_tokens
        self.states = states
        self.progress = progress or _silent

    def rows(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Tensor]:
        """{site: (len(chats), positions.rows, width) float32}, cached shard by shard."""
        mine = self._mine(chats)
        found = self._rows([chats[index] for index in mine], sites, positions, stage)
        if size() == 1:
            return found
        whole = {}
        for site in sites:
            # A rank without chats does not know how wide its rows are.
            width = largest(found[site].shape[-1] if site in found else 0)
            whole[site] = torch.zeros(len(chats), positions.rows, width)
            if site in found:
                whole[site][mine] = found[site]
            total(whole[site])
        return whole

    def _rows(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Tensor]:
        """Those of this rank's chats; without chats nothing."""
        parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
        shard = self._shard(chats)
        for start in range(0, len(chats), shard):
            part = chats[start : start + shard]
            known = {site: tensors["rows"] for site in sites if (tensors := self._load("rows", part, site, positions))}
            missing = [site for site in sites if site not in known]
            if missing:
                found = collect_rows(
                    self.model, part, missing, positions, **self._options(stage, part, start, len(chats))
                )
                for site, tensor in found.items():
                    self._save("rows", part, site, positions, {"rows": tensor})
                known |= found
            for site in sites:
                parts[site].append(known[site])
            self.progress(stage, start + len(part), len(chats))
        return {site: torch.cat(tensors) for site, tensors in parts.items() if tensors}

    def moments(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Moments]:
        """{site: moments of all rows}; running sums are saved after each shard, under the hash of what they hold."""
        found = self._moments([chats[index] for index in self._mine(chats)], sites, positions, stage)
        if size() == 1:
            return found
        whole = {}
        for site in sites:
            width = largest(len(found[site].total) if site in found else 0)
            held = found.get(site) or Moments.empty(width)
            whole[site] = Moments(int(total(torch.tensor(held.count))), total(held.total), total(held.outer))
        return whole

    def _moments(
        self, chats: Sequence[EncodedChat], sites: Sequence[Site], positions: Positions, stage: str
    ) -> dict[Site, Moments]:
        """Those of this rank's chats; without chats nothing."""
        shard = self._shard(chats)
        ends = [min(start + shard, len(chats)) for start in range(0, len(chats), shard)]
        sums: dict[Site, Moments] = {}
        # Sites that are done at the same place go on together, in one forward pass.
        groups: dict[int, list[Site]] = {}
        for site in sites:
            first = 0
            for end in reversed(ends):
                stored = self._load("moments", chats[:end], site, positions)
                if stored is not None:
                    sums[site] = Moments(int(stored["count"]), stored["total"], stored["outer"])
                    first = end
                    break
            groups.setdefault(first, []).append(site)
        for first, group in groups.items():
            done = first
            for end in (end for end in ends if end > first):
                options = self._options(stage, chats[done:end], done, len(chats))
                for site, rows in _joined(stream_features(self.model, chats[done:end], group, positions, **options)):
                    if site not in sums:
                        sums[site] = Moments.empty(rows.shape[-1])
                    sums[site].add(rows)
                for site in group:
                    held = sums[site]
                    values = {"count": torch.tensor(held.count), "total": held.total, "outer": held.outer}
                    self._save("moments", chats[:end], site, positions, values)
                    if done:
                        self._forget("moments", chats[:done], site, positions)
                done = end
        self.progress(stage, len(chats), len(chats))
        return sums

    def batches(self, chats: Sequence[EncodedChat]) -> list[Batch]:
        """The batches in which this rank's part of these chats goes through the model, where states are carried."""
        chats = [chats[index] for index in self._mine(chats)]
        parts = [chats[start : start + self.shard] for start in range(0, len(chats), self.shard)]
        return [batch for part in parts for batch in self._batches(part)]

    @staticmethod
    def _mine(chats: Sequence[EncodedChat]) -> list[int]:
        return share(chats, lambda chat: len(chat.ids))

    def _batches(self, part: Sequence[EncodedChat]) -> list[Batch]:
        return [tuple(part[index] for index in batch) for batch in batches_by_length(part, self.batch_tokens)]

    def _one_pass(self, part: Sequence[EncodedChat]) -> OnePass:
        return OnePass(self.model, self._batches(part), self.cache)

    def _shard(self, chats: Sequence[EncodedChat]) -> int:
        # A pass from the start reads a streamed model's blocks once, however many chats go through them.
        return max(1, len(chats)) if self._streams else self.shard

    @property
    def _streams(self) -> bool:
        return self.states is None and streamed_weights(self.model) is not None

    def _options(self, stage: str, part: Sequence[EncodedChat], done: int, total: int) -> dict[str, Any]:
        return {
            "pad_id": self.pad_id,
            "batch_tokens": self.batch_tokens,
            "states": self._one_pass(part) if self._streams else self.states,
            "on_batch": lambda count: self.progress(stage, done + count, total),
        }

    def _path(self, form: str, chats: Sequence[EncodedChat], site: Site, positions: Positions) -> Path | None:
        if self.cache is None:
            return None
        content = {
            "form": form,
            "model": self.fingerprint,
            "site": asdict(site),
            "positions": asdict(positions),
            "chats": [[chat.ids, chat.content, chat.prompt_length] for chat in chats],
        }
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return self.cache / f"{form}-{digest[:24]}.safetensors"

    def _load(
        self, form: str, chats: Sequence[EncodedChat], site: Site, positions: Positions
    ) -> dict[str, Tensor] | None:
        """The entry, or None when it is absent or was damaged (then it is collected again)."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(form, chats, site, positions)
        if path is None or not path.is_file():
            return None
        try:
            return load_file(path)
        except SafetensorError:
            return None

    def _save(
        self, form: str, chats: Sequence[EncodedChat], site: Site, positions: Positions, tensors: dict[str, Tensor]
    ) -> None:
        path = self._path(form, chats, site, positions)
        if path is None:
            return
        save_tensors(path, {name: tensor.contiguous() for name, tensor in tensors.items()})

    def _forget(self, form: str, chats: Sequence[EncodedChat], site: Site, positions: Positions) -> None:
        path = self._path(form, chats, site, positions)
        if path is not None:
            path.unlink(missing_ok=True)


def _joined(batches: Iterable[tuple[list[int], dict[Site, Tensor]]]) -> Iterator[tuple[Site, Tensor]]:
    """Rows (n, width) of each site, those of several batches together, as many as one product sums: so the moments,
    which are large, are read and written less often."""
    waiting: dict[Site, list[Tensor]] = {}
    for _, found in batches:
        for site, value in found.items():
            rows = value.flatten(0, 1)
            held = waiting.setdefault(site, [])
            if sum(map(len, held), len(rows)) > ROWS_AT_ONCE and held:
                yield site, torch.cat(held)
                held.clear()
            held.append(rows)
    for site, held in waiting.items():
        yield site, torch.cat(held)
