"""Commands in a process of their own that can be killed at any moment of their work."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator

from cli.conftest import run_command


def _in_child(arguments: tuple[object, ...], begun: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.write(begun, b".")
    os._exit(run_command(*arguments))


def start(*arguments: object) -> multiprocessing.Process:
    """Begins a command and returns once it is at work.

    A fork has everything imported, so that a kill falls into the work and not into the start.
    """
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_in_child, args=(arguments, writer))
    process.start()
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    return process


def kill(process: multiprocessing.Process) -> bool:
    """Kills a command; whether it was still at work."""
    process.kill()
    process.join()
    return process.exitcode != 0


def kills(*arguments: object, times: int) -> Iterator[int]:
    """Starts a command some times and kills each at a random moment of its work, early and late ones alike.

    Yields:
        The exit code, negative for one that was killed; 0 where the command was done before.
    """
    moments, seconds = random.Random(0), 0.1
    for _ in range(times):
        process = start(*arguments)
        time.sleep(seconds * moments.random())
        kill(process)
        assert process.exitcode is not None
        # How long a command takes depends on how busy the machine is: this keeps to about one in three that end.
        seconds *= 1.2 if process.exitcode else 0.7
        yield process.exitcode
