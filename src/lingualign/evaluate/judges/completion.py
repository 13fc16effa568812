"""What answers a judge's queries: a model in this process or one behind a server, and a cache on disk before either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lingualign.endpoint import Endpoint
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judges.formats.base import Query
from lingualign.lines import append_lines, damaged, load_lines
from lingualign.models.chat import EncodedChat
from lingualign.models.load import load_model
from lingualign.runs import content_hash

if TYPE_CHECKING:
    from lingualign.models.load import LoadedModel, Precision

#: Queries answered before the cache is written: what a kill may cost.
_CACHE_BATCH = 64


class Completer(Protocol):
    """Anything that answers queries greedily."""

    @property
    def model(self) -> str:
        """Name of the model that answers."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Length limit of an output."""
        ...

    def complete(self, queries: Sequence[Query]) -> list[str]:
        """One output for each query, in their order. The queries of a call are all chats or all raw text."""
        ...


class LocalCompleter:
    """A model in this process, loaded at the first query.

    Args:
        model: a checkpoint folder or hub id.
        max_new_tokens: length limit of an output.
        generation_prompt: whether the chat template opens the model's turn.
        batch_size: queries per batch.
        precision, device: as of `load_model`.
    """

    def __init__(
        self,
        model: str,
        *,
        max_new_tokens: int,
        generation_prompt: bool = True,
        batch_size: int = 8,
        precision: Precision = "auto",
        device: str | None = None,
    ) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.generation_prompt = generation_prompt
        self.batch_size = batch_size
        self.precision = precision
        self.device = device
        self._loaded: LoadedModel | None = None

    def complete(self, queries: Sequence[Query]) -> list[str]:
        if not queries:
            return []
        if self._loaded is None:
            needs_template = not isinstance(queries[0], str)
            self._loaded = load_model(self.model, precision=self.precision, device=self.device, chat=needs_template)
        engine = TransformersEngine(
            self._loaded.model,
            self._loaded.tokenizer,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        outputs = [""] * len(queries)
        for indices, replies in engine.generate_encoded([self._encode(query) for query in queries]):
            for index, reply in zip(indices, replies, strict=True):
                outputs[index] = reply.text
        return outputs

    def _encode(self, query: Query) -> EncodedChat:
        assert self._loaded is not None
        tokenizer = self._loaded.tokenizer
        if isinstance(query, str):
            ids = tokenizer(query)["input_ids"]
        else:
            rendered = tokenizer.apply_chat_template(
                list(query), tokenize=False, add_generation_prompt=self.generation_prompt
            )
            ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return EncodedChat(tuple(ids), (0, len(ids)), len(ids))


class EndpointCompleter:
    """A model behind an OpenAI-compatible server.

    Chats go to `/chat/completions`, where the server applies the model's template; raw text to `/completions`.

    Args:
        endpoint: the server.
        max_new_tokens: length limit of an output.
    """

    def __init__(self, endpoint: Endpoint, *, max_new_tokens: int) -> None:
        self.endpoint = endpoint
        self.model = endpoint.model
        self.max_new_tokens = max_new_tokens

    def complete(self, queries: Sequence[Query]) -> list[str]:
        texts = [query for query in queries if isinstance(query, str)]
        chats = [query for query in queries if not isinstance(query, str)]
        settings = {"max_tokens": self.max_new_tokens, "temperature": 0}
        found = self.endpoint.complete(texts, **settings) if texts else self.endpoint.chat(chats, **settings)
        return [completion.text for completion in found]


class CachedCompleter:
    """Answers from a file what was asked before, so that a killed audit does not pay twice.

    The file holds JSON lines of `key` (hash of model, length limit and query) and `output`; each batch is on the disk
    before the next is asked. Queries are not stored: they hold harmful text.

    Args:
        completer: answers what the file does not.
        path: the file; need not exist.
    """

    def __init__(self, completer: Completer, path: Path) -> None:
        self.completer = completer
        self.path = path
        self.model = completer.model
        self.max_new_tokens = completer.max_new_tokens
        self._known: dict[str, str] | None = None

    def complete(self, queries: Sequence[Query]) -> list[str]:
        """One output for each query.

        Raises:
            DataError: the file is damaged.
        """
        known = self._load()
        keys = [self._key(query) for query in queries]
        missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in known}
        names = list(missing)
        for start in range(0, len(names), _CACHE_BATCH):
            batch = names[start : start + _CACHE_BATCH]
            outputs = self.completer.complete([missing[name] for name in batch])
            found = dict(zip(batch, outputs, strict=True))
            append_lines(self.path, ({"key": key, "output": output} for key, output in found.items()))
            known.update(found)
        return [known[key] for key in keys]

    def _key(self, query: Query) -> str:
        asked = query if isinstance(query, str) else [dict(turn) for turn in query]
        return content_hash({"model": self.model, "limit": self.max_new_tokens, "query": asked})

    def _load(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            for number, row in enumerate(load_lines(self.path), start=1):
                if not (isinstance(row.get("key"), str) and isinstance(row.get("output"), str)):
                    raise damaged(self.path, number)
                self._known[row["key"]] = row["output"]
        return self._known
