"""What a command prints: text and tables for people on standard output, or one JSON document for machines."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lingualign.cli.progress import Renderer, make_renderer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Columns the tables are made for; a narrower terminal wraps them, which is better than figures cut in two.
WIDTH = 100


class Screen:
    """Standard output of one command.

    Args:
        as_json: print one JSON document and nothing else.
        quiet: print only what `result` is given.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.progress: Renderer = make_renderer(quiet=as_json or quiet)
        self._console: Console | None = None

    def say(self, *parts: RenderableType) -> None:
        """Text or tables that --quiet and --json leave out."""
        if not self.quiet:
            self.result(*parts)

    def result(self, *parts: RenderableType) -> None:
        """Text or tables that only --json leaves out. Text is printed as it is: no markup, no colours."""
        if self.as_json:
            return
        for part in parts:
            self._made_console().print(
                part, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(part, str)
            )

    def document(self, content: Mapping[str, Any]) -> None:
        """The JSON document, where it is asked for."""
        if self.as_json:
            print(json.dumps(content, indent=2, ensure_ascii=True))

    def _made_console(self) -> Console:
        if self._console is None:
            from rich.console import Console

            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
            self._console = Console(width=max(WIDTH, columns))
        return self._console


@contextmanager
def open_screen(*, as_json: bool, quiet: bool) -> Iterator[Screen]:
    """A screen for the duration of a `with` block; libraries that chat on standard error are told not to."""
    _hush_libraries()
    screen = Screen(as_json=as_json, quiet=quiet)
    try:
        yield screen
    finally:
        screen.progress.close()


def _hush_libraries() -> None:
    import os
    import warnings

    # Their warnings are for programmers; what a person can act on is raised as an error of ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", module=r"(transformers|torch|huggingface_hub|peft|accelerate|sklearn)\.")
    from transformers.utils import logging

    # transformers leaves both untyped.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
