"""Streamed models: the whole model's edit, with one block in memory, each read once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lingualign.data.schema import KINDS, Prompt, PromptSet
from lingualign.edit import Edit, LowRankDelta
from lingualign.errors import FingerprintMismatch, UnsupportedModel, UserError
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.streamed_engine import StreamedEngine
from lingualign.features.block_major import OnePass
from lingualign.features.collect import Site, batches_by_length, collect_rows
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.sparse_weight_edit import SparseWeightEdit
from lingualign.models.chat import encode_chats
from lingualign.models.load import LoadedModel, load_model
from lingualign.models.stages import StreamedWeights, load_streamed, streamed_weights
from lingualign.models.stored import read_weights

POSITIONS = Positions(template_tokens=2)
LAYERS = (1, 2, 3)
WORDS = ("tea", "bread", "river", "stone", "music")
TEXTS = ["please tell me the steps at home", "bread", "the lazy dog", "วิธีทำขนมปังที่บ้าน", "bread"]


def _shard(folder: Path) -> None:
    """Splits the single file in two with an index, neighbours apart."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture(scope="module")
def gemma_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied and scaled embeddings, norms after the MLP, sliding and full attention; sharded."""
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    folder = tmp_path_factory.mktemp("gemma")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=4,
        initializer_range=0.15,
        layer_types=["sliding_attention", "full_attention"] * 2,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _shard(folder)
    return folder


@pytest.fixture(params=["llama", "gemma"])
def folder(request: pytest.FixtureRequest, tiny_model_folder: Path, gemma_folder: Path) -> Path:
    return tiny_model_folder if request.param == "llama" else gemma_folder


@pytest.fixture
def copied(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama, in two shards, to be spoilt."""
    copy = tmp_path / "copied"
    shutil.copytree(tiny_model_folder, copy)
    _shard(copy)
    return copy


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    prompts = [
        Prompt(str(number), language, kind, f"{kind} {language} {word} {number}")
        for language in ("en", "it")
        for kind in KINDS
        for number, word in enumerate(WORDS)
    ]
    return build_anchors(PromptSet(prompts), "en", ("it",))


def _fit(loaded: LoadedModel, anchors: Anchors, cache: Path | None = None, **settings: Any) -> Edit:
    method = SparseWeightEdit(**{"layers": LAYERS, "positions": POSITIONS, "rank": 4, **settings})
    return method.fit(loaded.model, loaded.tokenizer, anchors, cache=cache, fingerprint=loaded.fingerprint)


def _distance(edit: Edit, other: Edit) -> float:
    assert list(edit.deltas) == list(other.deltas)
    assert edit.base == other.base
    return max(
        float((delta.dense() - other.deltas[name].dense()).norm() / other.deltas[name].dense().norm())
        for name, delta in edit.deltas.items()
    )


def _weights(loaded: LoadedModel) -> StreamedWeights:
    found = streamed_weights(loaded.model)
    assert found is not None
    return found


# The same edit


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"propagation": "none"},
        {"family": "paper", "selection": "paper", "fraction": 0.3, "layers": (1, 3), "propagation": "split"},
        {"family": "residual"},
    ],
    ids=["sequential", "none", "neurons", "residual"],
)
def test_the_edit_is_the_whole_models(folder: Path, anchors: Anchors, settings: dict[str, Any]) -> None:
    whole = load_model(str(folder), precision="float32", device="cpu")
    streamed = load_streamed(folder, precision="float32", device="cpu")
    assert streamed.fingerprint == whole.fingerprint
    assert _distance(_fit(streamed, anchors, **settings), _fit(whole, anchors, **settings)) < 1e-5


def test_in_bfloat16(folder: Path, anchors: Anchors) -> None:
    whole = load_model(str(folder), precision="bfloat16", device="cpu")
    streamed = load_streamed(folder, precision="bfloat16", device="cpu")
    assert streamed.fingerprint == whole.fingerprint
    assert _distance(_fit(streamed, anchors), _fit(whole, anchors)) < 1e-5


def test_layers_are_chosen_as_in_the_whole_model(tiny_model_folder: Path, anchors: Anchors) -> None:
    whole = load_model(str(tiny_model_folder), precision="float32", device="cpu")
    streamed = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    chosen = _fit(streamed, anchors, layers="auto", layer_count=2)
    expected = _fit(whole, anchors, layers="auto", layer_count=2)
    assert chosen.manifest["layers"] == expected.manifest["layers"]
    assert chosen.manifest["layer_scores"] == pytest.approx(expected.manifest["layer_scores"], abs=1e-5)
    # Once to choose, once to fit.
    last = chosen.manifest["layers"][-1]
    assert _weights(streamed).loads == Counter({block: 1 + (block <= last) for block in range(4)})


def test_prefetch_and_a_mapped_file_change_nothing(
    tiny_model_folder: Path, anchors: Anchors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_streamed(tiny_model_folder, precision="float32", device="cpu", prefetch=False)
    expected = _fit(plain, anchors)
    mapped: list[Path] = []
    original = torch.from_file

    def from_file(name: str, **options: Any) -> torch.Tensor:
        mapped.append(Path(name))
        return original(name, **options)

    monkeypatch.setattr(torch, "from_file", from_file)
    monkeypatch.setattr("lingualign.features.block_major.IN_MEMORY_BYTES", 0)
    found = _fit(load_streamed(tiny_model_folder, precision="float32", device="cpu"), anchors, tmp_path / "features")
    assert mapped
    assert not any(file.exists() for file in mapped)
    for name, delta in found.deltas.items():
        assert torch.equal(delta.dense(), expected.deltas[name].dense())


def test_fused_experts_are_put_together_as_transformers_does(tmp_path: Path) -> None:
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    whole = MixtralForCausalLM(config).eval()
    whole.save_pretrained(tmp_path)
    stored = read_weights(tmp_path)[1]
    assert "model.layers.0.block_sparse_moe.experts.3.w1.weight" in stored
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    StreamedWeights(model, stored, torch.float32, torch.device("cpu"), "model.layers")
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, whole(ids).logits)


# One block at a time


def test_a_fit_reads_each_block_once(
    tiny_model_folder: Path, anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    weights, model = _weights(loaded), loaded.model
    most = 0

    def count(*_: Any) -> None:
        nonlocal most
        held = [block for block in model.model.layers if any(not value.is_meta for value in block.parameters())]
        most = max(most, len(held))
        assert model.lm_head.weight.is_meta
        assert len(model.model.embed_tokens.weight) < 320 or model.model.embed_tokens.weight.is_meta

    for block in model.model.layers:
        block.mlp.register_forward_pre_hook(count)
    # Several batches in each group.
    monkeypatch.setitem(FeatureSource.__init__.__kwdefaults__, "batch_tokens", 60)
    _fit(loaded, anchors, layers=(1, 2))
    assert weights.loads == Counter({0: 1, 1: 1, 2: 1})
    assert most == 1
    weights.release()
    assert all(value.is_meta for value in model.parameters())


def test_one_pass_reads_each_block_once_for_all_batches(tiny_model_folder: Path) -> None:
    whole = load_model(str(tiny_model_folder), precision="float32", device="cpu")
    loaded = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    chats = encode_chats(loaded.tokenizer, TEXTS)
    sites = [Site("model.layers.0", "output"), Site("model.layers.2.mlp.down_proj", "input")]
    batches = [tuple(chats[index] for index in batch) for batch in batches_by_length(chats, 40)]
    assert len(batches) > 1
    states = OnePass(loaded.model, batches)
    rows = collect_rows(loaded.model, chats, sites, POSITIONS, states=states, batch_tokens=40)
    assert _weights(loaded).loads == Counter({0: 1, 1: 1, 2: 1})
    expected = collect_rows(whole.model, chats, sites, POSITIONS, batch_tokens=40)
    for site in sites:
        assert torch.equal(rows[site], expected[site])
    # Without states every batch is a pass of its own, as for any model.
    plain = collect_rows(loaded.model, chats, sites, POSITIONS, batch_tokens=40)
    assert all(torch.equal(plain[site], expected[site]) for site in sites)


def test_the_whole_forward_pass_is_the_models_own(folder: Path) -> None:
    whole = load_model(str(folder), precision="float32", device="cpu")
    streamed = load_streamed(folder, precision="float32", device="cpu")
    ids = torch.tensor([encode_chats(whole.tokenizer, TEXTS)[0].ids])
    with torch.no_grad():
        assert torch.equal(streamed.model(input_ids=ids).logits, whole.model(input_ids=ids).logits)


def test_replies_are_the_whole_models(folder: Path) -> None:
    whole = load_model(str(folder), precision="float32", device="cpu")
    streamed = load_streamed(folder, precision="float32", device="cpu")
    (indices, replies), *others = StreamedEngine(streamed.model, streamed.tokenizer, max_new_tokens=4).generate(TEXTS)
    assert not others
    # Each of the tokens takes one pass; the end marker may come earlier.
    assert set(_weights(streamed).loads.values()) <= {1, 2, 3, 4}
    found = dict(zip(indices, replies, strict=True))
    expected = {
        index: reply
        for batch, group in TransformersEngine(whole.model, whole.tokenizer, max_new_tokens=4).generate(TEXTS)
        for index, reply in zip(batch, group, strict=True)
    }
    assert found == expected


# Edits


@pytest.fixture
def edit(tiny_model_folder: Path, anchors: Anchors) -> Edit:
    return _fit(load_model(str(tiny_model_folder), precision="float32", device="cpu"), anchors)


def test_an_edit_is_applied_and_taken_back(tiny_model_folder: Path, edit: Edit) -> None:
    whole = load_model(str(tiny_model_folder), precision="float32", device="cpu")
    streamed = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    ids = torch.tensor([encode_chats(whole.tokenizer, TEXTS)[0].ids])

    def logits(loaded: LoadedModel) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = loaded.model(input_ids=ids).logits
        return found

    before = logits(streamed)
    with edit.applied(streamed.model), edit.applied(whole.model):
        assert torch.equal(logits(streamed), logits(whole))
        assert not torch.equal(logits(streamed), before)
        with pytest.raises(FingerprintMismatch), edit.applied(streamed.model):
            pass
    assert torch.equal(logits(streamed), before)
    other = Edit(edit.deltas, dict.fromkeys(edit.base, "another"))
    with pytest.raises(FingerprintMismatch), other.applied(streamed.model):
        pass
    edit.apply_permanently(streamed.model)
    edit.apply_permanently(whole.model)
    assert torch.equal(logits(streamed), logits(whole))


def test_only_blocks_are_edited(tiny_model_folder: Path) -> None:
    streamed = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    shape = tuple(streamed.model.lm_head.weight.shape)
    delta = LowRankDelta(torch.ones(shape[0], 1), torch.ones(shape[1], 1), (shape[0], shape[1]))
    outside = Edit({"lm_head.weight": delta}, {"lm_head.weight": ""})
    with (
        pytest.raises(UnsupportedModel, match=r"lm_head.weight lies outside the blocks"),
        outside.applied(streamed.model),
    ):
        pass


def test_a_killed_fit_goes_on(tiny_model_folder: Path, anchors: Anchors, tmp_path: Path, edit: Edit) -> None:
    streamed = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    calls = 0

    def kill(_stage: str, _done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt

    method = SparseWeightEdit(layers=LAYERS, positions=POSITIONS, rank=4)
    options: dict[str, Any] = {"cache": tmp_path / "features", "fingerprint": streamed.fingerprint}
    with pytest.raises(KeyboardInterrupt):
        method.fit(streamed.model, streamed.tokenizer, anchors, progress=kill, **options)
    kept = {file.name for file in (tmp_path / "features").iterdir()}
    assert kept
    assert {name.rpartition(".")[2] for name in kept} == {"safetensors"}
    again = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    assert _distance(method.fit(again.model, again.tokenizer, anchors, **options), edit) < 1e-5
    # A third needs no pass at all.
    third = load_streamed(tiny_model_folder, precision="float32", device="cpu")
    assert _distance(method.fit(third.model, third.tokenizer, anchors, **options), edit) < 1e-5
    assert 0 not in _weights(third).loads


# What is wrong with a checkpoint


def _cut(folder: Path) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-64])


def _lose_shard(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def _spoil_header(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:8] + b"x" + file.read_bytes()[9:])


def _index(change: Callable[[dict[str, str]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        change(content["weight_map"])
        index.write_text(json.dumps(content))

    return spoil


def _swap(weight_map: dict[str, str]) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    weight_map[name] = next(file for file in weight_map.values() if file != weight_map[name])


def _half_an_index(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text()[:-20])


def _quantise_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))


def _quantise_weights(folder: Path) -> None:
    for file in folder.glob("model-*.safetensors"):
        tensors = {
            name: tensor.to(torch.int8) if name.endswith("down_proj.weight") else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})


def _narrow(folder: Path) -> None:
    for file in folder.glob("model-*.safetensors"):
        tensors = {
            name: tensor[:, :-1].contiguous() if name.endswith("1.mlp.down_proj.weight") else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})


def _drop(folder: Path) -> None:
    for file in folder.glob("model-*.safetensors"):
        tensors = {
            name: tensor for name, tensor in load_file(file).items() if not name.endswith("1.mlp.down_proj.weight")
        }
        save_file(tensors, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.layers.1.mlp.down_proj.weight"]
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_cut, "model-00002-of-00002.safetensors is truncated or not a safetensors file"),
        (_lose_shard, "names 'model-00002-of-00002.safetensors', which is missing"),
        (_spoil_header, "model-00001-of-00002.safetensors is truncated or not a safetensors file"),
        (_index(_swap), "looks for 'model.layers.1.mlp.down_proj.weight' in .*, which does not hold it"),
        (_drop, "the checkpoint holds no model.layers.1.mlp.down_proj.weight"),
        (_half_an_index, "is truncated or not JSON"),
        (_quantise_config, r"this checkpoint is quantised \(config.json has a quantization_config\): edit the one in"),
        (_quantise_weights, "this checkpoint is quantised .*down_proj.weight is stored as I8"),
        (_narrow, r"the checkpoint has model.layers.1.mlp.down_proj.weight of shape \(64, 95\)"),
    ],
)
def test_a_spoilt_checkpoint_is_one_line(copied: Path, spoil: Callable[[Path], None], line: str) -> None:
    spoil(copied)
    with pytest.raises(UserError, match=line) as caught:
        load_streamed(copied, precision="float32", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_while_it_is_read_is_one_line(copied: Path, anchors: Anchors) -> None:
    loaded = load_streamed(copied, precision="float32", device="cpu")
    _cut(copied)
    _, cut = sorted(copied.glob("model-*.safetensors"))
    cut.write_bytes(cut.read_bytes()[: len(cut.read_bytes()) // 2])
    with pytest.raises(UserError, match=r"00002.safetensors has become shorter"):
        _fit(loaded, anchors)
