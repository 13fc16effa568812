"""The edit on tiny random models of every architecture it is said to work on: what is found, what changes, what is
written, and the one clear line where a mixture of experts has nothing to edit.

Weights are small multiples of 1/128 drawn as integers, so that they are the same on every machine and torch version.
`architectures.json` holds, for each architecture, the SHA-256 of the exported changed tensors for an edit whose factors
are small integers (every sum is exact), and the norms of the fitted edits.
Renew it with `LINGUALIGN_RENEW_GOLDEN=1 pytest tests/models/test_architectures.py` after looking at what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from lingualign.data.schema import KINDS, Prompt, PromptSet
from lingualign.edit import Edit, LowRankDelta, tensor_fingerprint
from lingualign.errors import UnsupportedModel
from lingualign.export.checkpoint import export_checkpoint
from lingualign.features.collect import Site, collect_rows
from lingualign.features.positions import Positions
from lingualign.methods.alpha_edit import Memit
from lingualign.methods.anchors import Anchors, build_anchors
from lingualign.methods.sparse_weight_edit import Family, SparseWeightEdit
from lingualign.models.changed import changed_matrices
from lingualign.models.chat import encode_chats
from lingualign.models.coverage import coverage
from lingualign.models.load import causal_class, load_model
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import BlockMatrix, MlpMatrices
from lingualign.models.projections import locate_projections
from lingualign.models.stored import read_weights
from tiny_sizes import HIDDEN, INNER, SMALL

GOLDEN = Path(__file__).with_name("architectures.json")
RENEW = bool(os.environ.get("LINGUALIGN_RENEW_GOLDEN"))
POSITIONS = Positions(template_tokens=2)
#: As deep and as wide as the language model.
VISION = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Case:
    """An architecture.

    Attributes:
        model_type: transformers' name of it.
        options: what its tiny configuration needs beside `SMALL`.
        text: whether `SMALL` describes the model itself, else its text part.
        blocks: path of its blocks.
        inner: weights of gate and up, relative to the MLP; one where they are fused or there is no gate.
        down: weight of the output map.
        mixtures: by block, what of it is edited: the shared expert's path, or None.
        mlp: name of the MLP or mixture in its block.
        attention: the attention's output map in its block.
    """

    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    text: bool = True
    blocks: str = "model.layers"
    inner: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    mixtures: dict[int, str | None] = field(default_factory=dict)
    mlp: str = "mlp"
    attention: str = "self_attn.o_proj"

    def build(self, vocabulary: int) -> Any:
        small = {**SMALL, "vocab_size": vocabulary}
        options = {**small, **self.options} if self.text else self._with_text(small)
        config = AutoConfig.for_model(self.model_type, **options)
        model = causal_class(config).from_config(config).eval()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(torch.randint(-32, 33, parameter.shape, generator=generator) / 128)
        return model

    def _with_text(self, small: dict[str, Any]) -> dict[str, Any]:
        return {**self.options, "text_config": {**small, **self.options["text_config"]}}

    @property
    def editable(self) -> list[int]:
        """The blocks of the first two that have something to edit."""
        return [layer for layer in (0, 1) if self.mixtures.get(layer, "") is not None]

    @property
    def dense(self) -> list[int]:
        return [layer for layer in (0, 1) if layer not in self.mixtures]

    def tensors(self, layer: int, family: Family) -> set[str]:
        """The weights that a family changes in a block."""
        if family == "attention":
            return {f"{self.blocks}.{layer}.{self.attention}.weight"}
        inside = self.mixtures.get(layer)
        mlp = f"{self.blocks}.{layer}.{self.mlp}" + (f".{inside}" if inside else "")
        return {f"{mlp}.{name}.weight" for name in ((self.down,) if family == "output" else self.inner)}


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEPSEEK = {
    **EXPERTS,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
MULTIMODAL_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
CASES: dict[str, Case] = {
    "Llama 3": Case(
        "llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": True}
    ),
    "Qwen2": Case("qwen2"),
    # Qwen2.5 is Qwen2 to transformers; its small models tie their embeddings.
    "Qwen2.5": Case("qwen2", {"tie_word_embeddings": True}),
    "Qwen3": Case("qwen3"),
    "Qwen3-MoE": Case("qwen3_moe", {**EXPERTS, "num_experts": 4}, mixtures={0: None, 1: None}),
    "Qwen3-MoE, a dense block": Case(
        "qwen3_moe", {**EXPERTS, "num_experts": 4, "mlp_only_layers": [0]}, mixtures={1: None}
    ),
    "Gemma 2": Case("gemma2"),
    "Gemma 3": Case("gemma3_text"),
    "Gemma 3 with vision": Case(
        "gemma3",
        {
            "text_config": {},
            "vision_config": {**VISION, "image_size": 8, "patch_size": 4},
            "mm_tokens_per_image": 4,
        },
        text=False,
        blocks="model.language_model.layers",
    ),
    "Mistral": Case("mistral"),
    "Mixtral": Case("mixtral", {"num_local_experts": 4}, mixtures={0: None, 1: None}),
    "Phi-3": Case("phi3", inner=("gate_up_proj",)),
    # Phi-4 is Phi-3 to transformers, with groups of queries and rotary embeddings on a part of each head.
    "Phi-4": Case("phi3", {"num_key_value_heads": 1, "partial_rotary_factor": 0.5}, inner=("gate_up_proj",)),
    "GPT-2": Case(
        "gpt2",
        {"n_positions": 512, "n_inner": INNER},
        blocks="transformer.h",
        inner=("c_fc",),
        down="c_proj",
        attention="attn.c_proj",
    ),
    "OLMo 2": Case("olmo2"),
    "Granite": Case("granite", {"residual_multiplier": 0.22}),
    "DeepSeek-V3": Case("deepseek_v3", DEEPSEEK, mixtures={1: "shared_experts", 2: "shared_experts"}),
    "Llama 4": Case(
        "llama4_text",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 40,
            "interleave_moe_layer_step": 2,
        },
        mixtures={1: "shared_expert"},
        mlp="feed_forward",
    ),
    "SmolLM": Case("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "SmolLM3": Case("smollm3"),
    "Qwen2-VL": Case(
        "qwen2_vl",
        {
            "text_config": {"rope_parameters": MULTIMODAL_ROPE},
            # Deeper than the language model, and as wide.
            "vision_config": {"depth": 5, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2},
            "image_token_id": 5,
            "video_token_id": 6,
            "vision_start_token_id": 7,
            "vision_end_token_id": 8,
        },
        text=False,
        blocks="model.language_model.layers",
    ),
    "Qwen2-Audio": Case(
        "qwen2_audio",
        {
            "text_config": {"model_type": "qwen2"},
            "audio_config": {
                "num_mel_bins": 8,
                "encoder_layers": 4,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "d_model": 16,
                "max_source_positions": 20,
            },
            "audio_token_index": 5,
        },
        text=False,
        blocks="model.language_model.layers",
    ),
}
FAMILIES: tuple[Family, ...] = ("output", "paper", "attention")


@dataclass(frozen=True)
class Built:
    """A tiny model with its tokenizer and what was found in it."""

    name: str
    case: Case
    model: Any
    tokenizer: Any
    mlps: list[MlpMatrices]

    def layers(self, family: Family) -> list[int]:
        if family == "attention":
            return [0, 1]
        return self.case.editable if family == "output" else self.case.dense

    def matrices(self, family: Family, layer: int) -> list[BlockMatrix]:
        return [matrix for matrix, _ in changed_matrices(self.model, self.mlps[layer], family)]

    def fit(self, family: Family, layers: list[int] | None = None) -> Edit:
        method = SparseWeightEdit(
            family=family,
            layers=self.layers(family) if layers is None else layers,
            keep_weight=0.0,
            ridge=1e-6,
            rank=None,
            positions=POSITIONS,
        )
        return method.fit(self.model, self.tokenizer, anchors())


def anchors() -> Anchors:
    words = ("tea", "bread", "river")
    prompts = [
        Prompt(word, language, kind, f"{kind} {language} {word}")
        for language in ("en", "it")
        for kind in KINDS
        for word in words
    ]
    return build_anchors(PromptSet(prompts), "en", ("it",))


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest, tokenizer: Any) -> Built:
    model = CASES[request.param].build(len(tokenizer))
    return Built(request.param, CASES[request.param], model, tokenizer, locate_mlps(model))


@pytest.fixture(scope="module")
def edits(built: Built) -> dict[Family, Edit]:
    return {family: built.fit(family) for family in FAMILIES if built.layers(family)}


@pytest.fixture(scope="module")
def checkpoint(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    built.model.save_pretrained(folder)
    return folder


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in read_weights(folder)[0] for name, tensor in load_file(file).items()}


# What is found


def test_located(built: Built) -> None:
    case = built.case
    assert [mlp.block for mlp in built.mlps] == [f"{case.blocks}.{layer}" for layer in range(len(built.mlps))]
    assert len(built.mlps) == built.model.config.get_text_config(decoder=True).num_hidden_layers
    parameters = dict(built.model.named_parameters())
    for layer, mlp in enumerate(built.mlps):
        assert mlp.mlp.startswith(f"{mlp.block}.{case.mlp}")
        assert bool(mlp.routed) == (layer in case.mixtures)
        assert (mlp.obstacle is None) == (case.mixtures.get(layer, "") is not None)
        if mlp.obstacle is None:
            assert {mlp.down_matrix.parameter} == case.tensors(layer, "output")
            assert {matrix.parameter for matrix in mlp.inner_matrices} == case.tensors(layer, "paper")
        for matrix in (*mlp.matrices, *mlp.routed):
            shape = tuple(parameters[matrix.parameter].shape[-2:])
            rows, columns = shape[::-1] if matrix.transposed else shape
            assert columns == matrix.in_width
            # A fused tensor holds gate and up, each in its own half.
            halves = len([other for other in (*mlp.matrices, *mlp.routed) if other.parameter == matrix.parameter])
            assert rows == halves * matrix.out_width
            assert matrix.first_row == (matrix.out_width if halves == 2 and matrix.role == "up" else 0)


def test_coverage_gives_every_matrix_of_every_block_a_role(built: Built) -> None:
    found = coverage(built.model, built.mlps)
    inside = {
        name
        for name, parameter in built.model.named_parameters()
        if name.startswith(f"{built.case.blocks}.") and parameter.dim() > 1
    }
    assert {part.parameter for part in found.parts} == inside
    wanted: set[str] = set()
    for layer, mlp in enumerate(built.mlps):
        families: tuple[Family, ...] = ("output",) if mlp.routed else ("output", "paper")
        wanted |= {name for family in families if mlp.obstacle is None for name in built.case.tensors(layer, family)}
        wanted |= built.case.tensors(layer, "attention")
    assert {part.parameter for part in found.parts if part.edited} == wanted
    assert found.editable == pytest.approx(
        sum(built.model.get_parameter(name).numel() for name in wanted)
        / sum(parameter.numel() for parameter in built.model.parameters())
    )


@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2-Audio"])
def test_models_that_also_see_or_hear_are_loaded(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = CASES[name].build(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), precision="float32", device="cpu").model
    assert type(loaded) is type(model)
    assert not changed(weights(model), weights(loaded))


# What the edit does


def test_only_located_weights_change_and_all_come_back(built: Built, edits: dict[Family, Edit]) -> None:
    before = weights(built.model)
    for family, edit in edits.items():
        with edit.applied(built.model):
            touched = changed(before, weights(built.model))
        expected = {name for layer in built.layers(family) for name in built.case.tensors(layer, family)}
        assert touched == expected == set(edit.deltas)
        assert not changed(before, weights(built.model))


def test_effect_of_a_matrix_is_the_change_times_its_input(built: Built, edits: dict[Family, Edit]) -> None:
    for family, edit in edits.items():
        for matrix in (matrix for layer in built.layers(family) for matrix in built.matrices(family, layer)):
            layer = built.model.get_submodule(matrix.module)
            inputs = torch.randn(5, matrix.in_width, generator=torch.Generator().manual_seed(3))
            with torch.no_grad():
                before = layer(inputs)
                with edit.applied(built.model):
                    after = layer(inputs)
            effect = inputs @ edit.deltas[matrix.parameter].dense().T
            assert effect.abs().max() > 1e-3
            torch.testing.assert_close(after - before, effect, rtol=1e-4, atol=1e-5 * float(effect.abs().max() + 1))


def test_effect_on_a_mixture_is_that_on_its_shared_expert(built: Built, edits: dict[Family, Edit]) -> None:
    for layer, mlp in enumerate(built.mlps):
        if not mlp.routed or layer not in built.case.editable:
            continue
        mixture, down = built.model.get_submodule(mlp.mlp), built.model.get_submodule(mlp.down)
        seen: list[torch.Tensor] = []
        handle = down.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0]))
        inputs = torch.randn(2, 3, HIDDEN, generator=torch.Generator().manual_seed(3))

        def out(mixture: nn.Module = mixture, inputs: torch.Tensor = inputs) -> torch.Tensor:
            value = mixture(inputs)
            return (value[0] if isinstance(value, tuple) else value).reshape(-1, HIDDEN)

        with torch.no_grad():
            before = out()
            with edits["output"].applied(built.model):
                after = out()
        handle.remove()
        effect = seen[0].reshape(-1, mlp.inner_size) @ edits["output"].deltas[mlp.down_matrix.parameter].dense().T
        torch.testing.assert_close(after - before, effect, rtol=1e-4, atol=1e-5 * float(effect.abs().max() + 1))


def test_outputs_move_to_the_reference(built: Built, edits: dict[Family, Edit]) -> None:
    """Without a keep set and with hardly any ridge, an anchor's output becomes its reference's."""
    pairs = anchors().pairs
    reference, low = (encode_chats(built.tokenizer, [pair[side].text for pair in pairs]) for side in (0, 1))
    for family, edit in edits.items():
        for layer in built.layers(family):
            paths = [output for _, output in changed_matrices(built.model, built.mlps[layer], family)]
            sites = [Site(path, "output") for path in dict.fromkeys(paths)]
            wanted = collect_rows(built.model, reference, sites, POSITIONS)
            before = collect_rows(built.model, low, sites, POSITIONS)
            with edit.applied(built.model):
                after = collect_rows(built.model, low, sites, POSITIONS)
            for site in sites:
                assert (wanted[site] - after[site]).norm() < 0.1 * (wanted[site] - before[site]).norm(), site


def test_selected_neurons_alone_change(built: Built, edits: dict[Family, Edit]) -> None:
    """A third of the neurons, drawn: their rows of gate and up, in the half of a fused weight that is each one's, or
    their columns of down or of the attention's output."""
    for family in edits:
        layer = built.layers(family)[0]
        method = SparseWeightEdit(
            family=family, layers=[layer], selection="random", fraction=1 / 3, rank=2, positions=POSITIONS
        )
        edit = method.fit(built.model, built.tokenizer, anchors())
        for matrix in built.matrices(family, layer):
            dense = edit.deltas[matrix.parameter].dense()
            if family == "paper":
                dense = dense[matrix.first_row : matrix.first_row + matrix.out_width]
            neurons = matrix.out_width if family == "paper" else matrix.in_width
            assert int((dense.abs().amax(dim=1 if family == "paper" else 0) > 0).sum()) == round(neurons / 3)


def test_both_that_write_to_the_residual_stream_change_at_once(built: Built) -> None:
    if not built.case.editable:
        with pytest.raises(UnsupportedModel, match="holds only 4 routed experts"):
            built.fit("residual", [0])
        return
    layer = built.case.editable[0]
    edit = built.fit("residual", [layer])
    assert set(edit.deltas) == built.case.tensors(layer, "output") | built.case.tensors(layer, "attention")
    # The first block's input is the same in either model, so its attention is what it is when changed alone.
    if layer == 0:
        (name,) = built.case.tensors(0, "attention")
        alone = built.fit("attention", [0]).deltas[name].dense()
        torch.testing.assert_close(edit.deltas[name].dense(), alone)


@pytest.mark.parametrize("name", ["GPT-2", "Llama 4"])
def test_other_editors_of_the_output_matrix_move_it_too(name: str, tokenizer: Any) -> None:
    """AlphaEdit's relatives read and write the same places: a transposed weight, and the output of a mixture."""
    model = CASES[name].build(len(tokenizer))
    mlp = locate_mlps(model)[1]
    edit = Memit(mom2_update_weight=1e-6, layers=[1], positions=POSITIONS).fit(model, tokenizer, anchors())
    assert set(edit.deltas) == CASES[name].tensors(1, "output")
    reference, low = (encode_chats(tokenizer, [pair[side].text for pair in anchors().pairs]) for side in (0, 1))
    site = Site(mlp.output, "output")
    wanted, before = (collect_rows(model, chats, [site], POSITIONS)[site] for chats in (reference, low))
    with edit.applied(model):
        after = collect_rows(model, low, [site], POSITIONS)[site]
    assert (wanted - after).norm() < 0.1 * (wanted - before).norm()


@pytest.mark.parametrize("name", ["GPT-2", "Phi-3", "Llama 4"])
def test_methods_that_score_neurons_of_plain_layers_refuse_others(name: str, tokenizer: Any) -> None:
    with pytest.raises(UnsupportedModel, match="is no dense MLP with a linear layer for each of gate, up and down"):
        locate_projections(CASES[name].build(len(tokenizer)), ("gate", "up", "down"))


# What is refused


def test_mixtures_say_what_is_possible(built: Built) -> None:
    for layer, inside in built.case.mixtures.items():
        if layer > 1:
            continue
        path = f"{built.case.blocks}.{layer}.{built.case.mlp}".replace(".", r"\.")
        message = rf"^{path} is a mixture of experts, .*use family = 'output'$"
        if inside is None:
            holder = f"{built.case.blocks}.{built.case.editable[0] if built.case.editable else 0}"
            path = path if built.case.editable else f"{holder}.{built.case.mlp}".replace(".", r"\.")
            message = rf"^{path} holds only 4 routed experts, whose weights lingualign does not edit"
        with pytest.raises(UnsupportedModel, match=message) as caught:
            built.fit("paper", [layer])
        assert "\n" not in str(caught.value)
        if inside is None:
            with pytest.raises(UnsupportedModel, match=message):
                built.fit("output", [layer])


# What is written


def test_exported_checkpoint_computes_what_the_applied_edit_does(
    built: Built, edits: dict[Family, Edit], checkpoint: Path, tmp_path: Path
) -> None:
    ids = torch.arange(10, 26).reshape(2, 8)
    for family, edit in edits.items():
        out = export_checkpoint(checkpoint, edit, tmp_path / family)
        assert len(changed(stored(checkpoint), stored(out))) == len(edit.deltas)
        baked = type(built.model).from_pretrained(out, dtype=torch.float32).eval()
        with torch.no_grad(), edit.applied(built.model):
            wanted = built.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            assert torch.equal(baked(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, wanted)
        assert not torch.equal(built.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, wanted)


def test_saved_edit_is_the_same_edit(built: Built, edits: dict[Family, Edit], tmp_path: Path) -> None:
    for family, edit in edits.items():
        loaded = Edit.load(edit.save(tmp_path / f"{family}.safetensors"))
        assert loaded.fingerprint == edit.fingerprint
        assert all(loaded.deltas[name].stored_shape == delta.stored_shape for name, delta in edit.deltas.items())
        with edit.applied(built.model):
            wanted = weights(built.model)
        with loaded.applied(built.model):
            assert not changed(wanted, weights(built.model))


def integer_edit(model: nn.Module, matrices: list[BlockMatrix]) -> Edit:
    """A change of rank 2 of every matrix whose entries are multiples of 1/16, so that no sum is rounded."""
    generator = torch.Generator().manual_seed(5)
    edit = Edit({}, {})
    for matrix in matrices:
        weight = model.get_parameter(matrix.parameter)
        shape = tuple(weight.shape[::-1]) if matrix.transposed else tuple(weight.shape)
        out_factor, in_factor = (
            torch.randint(-2, 3, (size, 2), generator=generator) / 4.0 for size in (matrix.out_width, matrix.in_width)
        )
        rows = torch.arange(matrix.first_row, matrix.first_row + matrix.out_width)
        delta = LowRankDelta(out_factor, in_factor, (shape[0], shape[1]), rows, None, matrix.transposed)
        edit = edit + Edit({matrix.parameter: delta}, {matrix.parameter: tensor_fingerprint(weight)})
    return edit


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-3)


def test_golden(
    built: Built, edits: dict[Family, Edit], checkpoint: Path, tmp_path: Path, golden: Callable[[str, Any], Any]
) -> None:
    digests = {}
    for family in edits:
        matrices = [matrix for layer in built.layers(family) for matrix in built.matrices(family, layer)]
        edit = integer_edit(built.model, matrices)
        before, after = stored(checkpoint), stored(export_checkpoint(checkpoint, edit, tmp_path / family))
        digest = hashlib.sha256()
        for name in sorted(changed(before, after)):
            digest.update(f"{name} {tuple(after[name].shape)} ".encode())
            digest.update(after[name].contiguous().numpy().tobytes())
        digests[family] = digest.hexdigest()
    norms = {
        family: {name: float(delta.dense().norm()) for name, delta in sorted(edit.deltas.items())}
        for family, edit in edits.items()
    }
    known = golden(built.name, {"sha256": digests, "norms": norms})
    assert digests == known["sha256"]
    assert norms == {
        family: {name: close(norm) for name, norm in group.items()} for family, group in known["norms"].items()
    }


@pytest.fixture(scope="module")
def golden() -> Iterator[Callable[[str, Any], Any]]:
    """What is recorded for an architecture; where records are renewed, what was just found."""
    known: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))

    def look_up(name: str, found: Any) -> Any:
        if RENEW:
            known[name] = found
        return known[name]

    yield look_up
    if RENEW:
        GOLDEN.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def test_every_architecture_has_its_golden_record() -> None:
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == set(CASES)
