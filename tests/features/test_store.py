"""The feature cache: the same numbers with and without it, and a killed collection goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lingualign.errors import NotEnoughMemory
from lingualign.features import store
from lingualign.features.collect import Site
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.models.chat import encode_chats
from lingualign.models.locate import locate_mlps
from lingualign.tensor_file import save_tensors
from small_disks import fill

POSITIONS = Positions(template_tokens=2)
TEXTS = [f"question number {index} about {'tea ' * (index % 4)}and cake" for index in range(11)]


class _Stopped(Exception):
    """Stands for a kill."""


def _source(tiny_model, folder: Path | None, progress=None) -> FeatureSource:
    return FeatureSource(tiny_model[0], "weights", cache=folder, shard=4, batch_tokens=64, progress=progress)


def _sites(tiny_model) -> list[Site]:
    first, second = locate_mlps(tiny_model[0])[:2]
    return [Site(first.down, "input"), Site(second.down, "input")]


@pytest.mark.parametrize("form", ["rows", "moments"])
def test_cache_changes_nothing(tiny_model, tmp_path, form) -> None:
    chats, sites = encode_chats(tiny_model[1], TEXTS), _sites(tiny_model)
    plain = getattr(_source(tiny_model, None), form)(chats, sites, POSITIONS, "stage")
    for _ in range(2):
        cached = getattr(_source(tiny_model, tmp_path), form)(chats, sites, POSITIONS, "stage")
        for site in sites:
            left, right = (plain[site], cached[site]) if form == "rows" else (plain[site].outer, cached[site].outer)
            assert torch.equal(left, right)


@pytest.mark.parametrize("form", ["rows", "moments"])
def test_interrupted_collection_resumes(tiny_model, tmp_path, form) -> None:
    chats, sites = encode_chats(tiny_model[1], TEXTS), _sites(tiny_model)
    expected = getattr(_source(tiny_model, None), form)(chats, sites, POSITIONS, "stage")

    def stop_late(_stage: str, done: int, _total: int) -> None:
        if done > 8:
            raise _Stopped

    with pytest.raises(_Stopped):
        getattr(_source(tiny_model, tmp_path, stop_late), form)(chats, sites, POSITIONS, "stage")
    seen: list[int] = []
    source = _source(tiny_model, tmp_path, lambda _stage, done, _total: seen.append(done))
    resumed = getattr(source, form)(chats, sites, POSITIONS, "stage")
    if form == "moments":
        assert min(seen) > 8, "the first two shards were collected again"
    for site in sites:
        left, right = (expected[site], resumed[site]) if form == "rows" else (expected[site].outer, resumed[site].outer)
        assert torch.equal(left, right)


def test_second_collection_runs_no_forward_pass(tiny_model, tmp_path, monkeypatch) -> None:
    chats, sites = encode_chats(tiny_model[1], TEXTS), _sites(tiny_model)
    _source(tiny_model, tmp_path).rows(chats, sites, POSITIONS, "stage")
    monkeypatch.setattr(tiny_model[0], "forward", lambda *_args, **_kwargs: pytest.fail("the model was run"))
    _source(tiny_model, tmp_path).rows(chats, sites[:1], POSITIONS, "stage")


def test_damaged_entry_is_collected_again(tiny_model, tmp_path) -> None:
    chats, sites = encode_chats(tiny_model[1], TEXTS), _sites(tiny_model)[:1]
    expected = _source(tiny_model, tmp_path).rows(chats, sites, POSITIONS, "stage")
    for entry in tmp_path.iterdir():
        entry.write_bytes(entry.read_bytes()[:100])
    assert torch.equal(
        _source(tiny_model, tmp_path).rows(chats, sites, POSITIONS, "stage")[sites[0]], expected[sites[0]]
    )


@pytest.mark.parametrize("form", ["rows", "moments"])
def test_full_disk_is_one_line_and_the_collection_goes_on_from_there(tiny_model, small_disk, form) -> None:
    chats, sites = encode_chats(tiny_model[1], TEXTS), _sites(tiny_model)
    expected = getattr(_source(tiny_model, None), form)(chats, sites, POSITIONS, "stage")
    cache = small_disk / "features"
    getattr(_source(tiny_model, cache), form)(chats[:4], sites, POSITIONS, "stage")
    there = sorted(cache.iterdir())
    filler = fill(small_disk, 0)
    with pytest.raises(NotEnoughMemory, match=f"the disk of {cache} is full") as caught:
        getattr(_source(tiny_model, cache), form)(chats, sites, POSITIONS, "stage")
    assert "\n" not in str(caught.value)
    assert sorted(cache.iterdir()) == there, "half an entry is left"
    filler.unlink()
    seen: list[int] = []
    source = _source(tiny_model, cache, lambda _stage, done, _total: seen.append(done))
    found = getattr(source, form)(chats, sites, POSITIONS, "stage")
    assert min(seen) >= 4, "the first shard was collected again"
    for site in sites:
        left, right = (expected[site], found[site]) if form == "rows" else (expected[site].outer, found[site].outer)
        assert torch.equal(left, right)


def test_rows_of_small_batches_come_together(monkeypatch) -> None:
    monkeypatch.setattr(store, "ROWS_AT_ONCE", 5)
    first, second = Site("first", "input"), Site("second", "input")
    rows = torch.arange(32.0).view(8, 2, 2)
    batches = [([0, 1], rows[:2]), ([2], rows[2:3]), ([3, 4, 5, 6], rows[3:7]), ([7], rows[7:])]
    found: dict[Site, list[torch.Tensor]] = {first: [], second: []}
    for site, values in store._joined((indices, {first: part, second: -part}) for indices, part in batches):
        found[site].append(values)
    for site, sign in ((first, 1), (second, -1)):
        assert [len(values) for values in found[site]] == [4, 2, 8, 2]
        assert torch.equal(torch.cat(found[site]), sign * rows.flatten(0, 1))
    assert list(store._joined([])) == []


def test_leftovers_of_a_killed_save_go_with_the_next(tmp_path) -> None:
    (tmp_path / ".a.safetensors.partial").mkdir()
    (tmp_path / ".a.safetensors.partial" / ".tmpXYZ").write_text("half")
    save_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
