"""Fixtures for all tests: a tiny random chat model made from a configuration, so that nothing is downloaded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from small_disks import Mount

# A loaded machine is no reason to fail; a test's time says nothing about whether it holds.
settings.register_profile("lingualign", deadline=None)
settings.load_profile("lingualign")
# Same sums in every process, and no worker threads where a test forks.
torch.set_num_threads(1)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<turn>' + message['role'] + '\\n' + message['content'] + '<end>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"
)
_LINES = [
    "the quick brown fox jumps over the lazy dog",
    "how do I bake bread at home? tell me the steps, please",
    "¿cómo se hace el pan en casa? dime los pasos, por favor",
    "วิธีทำขนมปังที่บ้าน",
    "家でパンを焼く方法",
]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<bos>", "<eos>", "<turn>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=["<turn>", "<end>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a random Llama: hidden 64, inner 96, 4 blocks, untied, float32. Treat it as read-only."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.15,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_model_folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of the tiny model in float32, loaded anew for each test, so that a test may edit it."""
    from lingualign.models.load import load_model

    loaded = load_model(str(tiny_model_folder), precision="float32", device="cpu")
    return loaded.model, loaded.tokenizer


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system for the test's duration; skips where that is not allowed."""
    mounted: list[Path] = []

    def call(*options: str) -> Path:
        """Options of mount(8), without the place, such as `"-t", "tmpfs", "-o", "size=1m", "tmpfs"`."""
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        program = shutil.which("mount")
        if program is None or subprocess.run([program, *options, str(folder)], capture_output=True).returncode:
            pytest.skip("may not mount a small file system here")
        mounted.append(folder)
        return folder

    yield call
    for folder in mounted:
        # Lazily: what a failed test has open would keep it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(mount: Mount) -> Path:
    """A disk of one mebibyte."""
    return mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
