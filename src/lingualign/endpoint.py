"""Client of an OpenAI-compatible inference server (vLLM, SGLang, llama.cpp, hosted services).

Requests run side by side up to a bound. What may pass (429, 5xx, a broken connection, a timeout) is tried again with
growing, jittered pauses; what will not (a wrong address, key or model) ends at once in one line that names the fix.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from lingualign.errors import EndpointError

if TYPE_CHECKING:
    import httpx

#: Statuses that may pass: timeout, conflict, too early, too many requests, and all of the server's own (5xx).
_PASSING = frozenset({408, 409, 425, 429})
#: Longest pause between two attempts, in seconds, whatever the server asks for.
_LONGEST_PAUSE = 60.0
#: Characters of a server's message that an error shows.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Completion:
    """What the server generated.

    Attributes:
        text: the text; "" where the server sent none, as content filters do.
        finished: whether the model ended it itself, rather than the length limit.
        tokens: number of generated tokens; 0 where the server does not count.
    """

    text: str
    finished: bool
    tokens: int


class Endpoint:
    """A model behind an OpenAI-compatible server.

    Args:
        url: address up to and with the version, such as `http://localhost:8000/v1`.
        model: the name under which the server knows the model.
        key_variable: environment variable with the API key; a server without keys needs none.
        timeout: seconds to wait for one answer.
        concurrency: most requests under way at once.
        attempts: most attempts per request.
        pause: seconds before the second attempt; doubled for each further one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        concurrency: int = 8,
        attempts: int = 6,
        pause: float = 1.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self.key_variable = key_variable
        self.timeout = timeout
        self.concurrency = concurrency
        self.attempts = attempts
        self.pause = pause
        self._answered = False

    def chat(self, conversations: Sequence[Sequence[Mapping[str, Any]]], **parameters: Any) -> list[Completion]:
        """One reply to each conversation, by `/chat/completions`.

        Args:
            conversations: turns with `role` and `content`.
            parameters: further fields of each request, such as `max_tokens` and `temperature`.

        Raises:
            EndpointError: the server cannot be reached, refuses the requests, or kept failing.
        """
        return _in_order(self.chat_as_answered(conversations, **parameters))

    def chat_as_answered(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], **parameters: Any
    ) -> Iterator[dict[int, Completion]]:
        """As `chat`, in groups as they come, by index. Requests go on while the caller works on a group."""
        bodies = [{"messages": list(turns), **parameters} for turns in conversations]
        return self._post_all("chat/completions", bodies, lambda choice: choice["message"]["content"])

    def complete(self, prompts: Sequence[str], **parameters: Any) -> list[Completion]:
        """The continuation of each text as it is, by `/completions`. Otherwise as `chat`."""
        bodies = [{"prompt": prompt, **parameters} for prompt in prompts]
        return _in_order(self._post_all("completions", bodies, lambda choice: choice["text"]))

    def _post_all(
        self, path: str, bodies: Sequence[dict[str, Any]], text_of: Callable[[Any], str | None]
    ) -> Iterator[dict[int, Completion]]:
        import httpx

        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise EndpointError(
                f"{self.url!r} is no address ({error}); give one like http://localhost:8000/v1"
            ) from None
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        stop = threading.Event()
        with (
            httpx.Client(headers=headers, timeout=self.timeout) as client,
            ThreadPoolExecutor(self.concurrency) as executor,
        ):
            indices = {
                executor.submit(self._post, client, stop, path, body, text_of): n for n, body in enumerate(bodies)
            }
            answered: SimpleQueue[Future[Completion]] = SimpleQueue()
            for each in indices:
                each.add_done_callback(answered.put)
            try:
                left = len(indices)
                while left:
                    group = [answered.get()]
                    while not answered.empty():
                        group.append(answered.get())
                    left -= len(group)
                    # What has been answered is paid for: it is handed over before a failure ends the rest.
                    if good := {indices[each]: each.result() for each in group if each.exception() is None}:
                        yield good
                    for each in group:
                        each.result()
            finally:
                # After a failure or Ctrl+C nobody waits for the rest: no new request, and no pause slept to its end.
                stop.set()
                executor.shutdown(wait=False, cancel_futures=True)

    def _post(
        self,
        client: httpx.Client,
        stop: threading.Event,
        path: str,
        body: dict[str, Any],
        text_of: Callable[[Any], str | None],
    ) -> Completion:
        import httpx

        for attempt in range(self.attempts):
            asked_pause = None
            try:
                response = client.post(f"{self.url}/{path}", json={"model": self.model, **body})
            except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
                # A server that answered before may be restarting; one that never did is not there.
                if not self._answered:
                    raise EndpointError(
                        f"cannot reach {self._shown_url} ({error}); start the server, or correct the address"
                    ) from None
                trouble = str(error)
            except httpx.TimeoutException:
                trouble = f"no answer within {self.timeout:g} s"
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            else:
                self._answered = True
                if response.is_success:
                    return self._read(response, text_of)
                trouble = f"status {response.status_code}: {self._message(response)}"
                if response.status_code not in _PASSING and response.status_code < 500:
                    raise self._refusal(response)
                asked_pause = _retry_after(response)
            # Jitter, so that the requests of one batch do not come back all at once.
            pause = self.pause * 2**attempt * random.uniform(0.5, 1.0) if asked_pause is None else asked_pause
            if attempt + 1 < self.attempts and stop.wait(min(pause, _LONGEST_PAUSE)):
                break
        raise EndpointError(
            f"{self._shown_url} failed {self.attempts} times ({trouble}); look at the server's log, send fewer "
            "requests at once or wait longer, and give the same command again"
        )

    def _read(self, response: httpx.Response, text_of: Callable[[Any], str | None]) -> Completion:
        try:
            content = response.json()
            choice = content["choices"][0]
            text = text_of(choice)
            tokens = (content.get("usage") or {}).get("completion_tokens") or 0
            return Completion(str(text or ""), choice.get("finish_reason") == "stop", int(tokens))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise EndpointError(
                f"{self._shown_url} does not answer as an OpenAI-compatible server; give the address that ends in /v1"
            ) from None

    def _refusal(self, response: httpx.Response) -> EndpointError:
        fixes = {
            401: f"put a valid API key into {self.key_variable}",
            403: f"put an API key that may use {self.model} into {self.key_variable}",
            404: f"check that the address ends in /v1 and that the server knows the model {self.model}",
        }
        fix = fixes.get(response.status_code, "change what the message says, on the server or in the command")
        return EndpointError(
            f"{self._shown_url} refuses the request (status {response.status_code}: {self._message(response)}); {fix}"
        )

    def _message(self, response: httpx.Response) -> str:
        """The server's message in one short printable line, without the key should the server repeat it."""
        text = response.text
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = str(response.json()["error"]["message"])
        if self._key:
            text = text.replace(self._key, "***")
        line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
        return line[:_SHOWN] or response.reason_phrase

    @property
    def _key(self) -> str:
        """The API key, "" where there is none. Never part of an attribute, a file or a message."""
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            # Such a header is refused by the library with a message that shows the key.
            raise EndpointError(f"{self.key_variable} holds characters that no API key has; set it again")
        return key

    @property
    def _shown_url(self) -> str:
        """The address without a password in it."""
        import httpx

        return str(httpx.URL(self.url).copy_with(userinfo=b""))


def _in_order(groups: Iterable[dict[int, Completion]]) -> list[Completion]:
    found = {index: completion for group in groups for index, completion in group.items()}
    return [found[index] for index in range(len(found))]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3: a number or a date), None where it does not."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
