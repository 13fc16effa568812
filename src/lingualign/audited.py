"""What a result tells of the model that answered: one in this process, or one behind a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lingualign.hardware import hardware_line
from lingualign.models.load import LoadedModel


@dataclass(frozen=True)
class AuditedModel:
    """The audited model.

    Attributes:
        name: what the user asked for.
        fingerprint: identifies the weights; behind a server, where they are not seen, name and address.
        parameters: their number; None behind a server.
        dtype: what they are computed in; None behind a server.
        hardware: one line.
        tokenizer: the model's; None behind a server.
    """

    name: str
    fingerprint: str
    parameters: int | None
    dtype: str | None
    hardware: str
    tokenizer: Any | None

    @classmethod
    def in_process(cls, loaded: LoadedModel) -> AuditedModel:
        """A loaded model."""
        parameters = list(loaded.model.parameters())
        return cls(
            loaded.name,
            loaded.fingerprint,
            sum(parameter.numel() for parameter in parameters),
            loaded.precision,
            hardware_line(str(parameters[0].device)),
            loaded.tokenizer,
        )

    @classmethod
    def served(cls, name: str, url: str) -> AuditedModel:
        """A model that a server knows as `name`."""
        return cls(name, f"{name}@{url}", None, None, f"the server at {url}", None)
