"""Replies of a model behind an OpenAI-compatible server, which batches the requests itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lingualign.endpoint import Endpoint
from lingualign.evaluate.engine import RawReply


class EndpointEngine:
    """Greedy generation by a server, which applies the model's chat template.

    Args:
        endpoint: the server, and how many requests it is sent at once.
        max_new_tokens: length limit of a reply.
        system: optional system line.
    """

    def __init__(self, endpoint: Endpoint, *, max_new_tokens: int = 24, system: str | None = None) -> None:
        self.endpoint = endpoint
        self.max_new_tokens = max_new_tokens
        self.system = system

    def generate(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[RawReply]]]:
        """Yields (indices into `texts`, their replies) as they come; while they are judged, requests go on.

        Raises:
            EndpointError: the server cannot be reached, refuses the requests, or kept failing.
        """
        first = [{"role": "system", "content": self.system}] if self.system else []
        chats = [[*first, {"role": "user", "content": text.strip()}] for text in texts]
        for group in self.endpoint.chat_as_answered(chats, max_tokens=self.max_new_tokens, temperature=0):
            replies = [RawReply(each.text.strip(), each.tokens, each.finished) for each in group.values()]
            yield list(group), replies
