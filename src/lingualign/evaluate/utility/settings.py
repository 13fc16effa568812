"""Which utility is measured, and how."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class UtilitySettings(BaseModel):
    """What is measured beside safety.

    Attributes:
        tasks: `lingualign_xcopa_TAG`, `lingualign_sib200_TAG`, or any task or group of lm-evaluation-harness.
        data: folder that holds `xcopa` and `sib200`, for the first two.
        limit: only the first documents of each task.
        chat_template: whether tasks are put into the model's chat template; lm-evaluation-harness leaves it out.
        perplexity: whether the perplexity of harmless prompts is measured.
        kl_tokens: reply tokens over which an edited model is compared with its base; 0 leaves that out.
        batch_size: requests or chats per batch; changes memory and speed only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = Field(default=None, ge=1)
    chat_template: bool = False
    perplexity: bool = True
    kl_tokens: int = Field(default=16, ge=0)
    batch_size: int = Field(default=16, ge=1)
