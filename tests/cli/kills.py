"""Commands in a process of their own that can be killed at any moment of their work."""

from __future__ import annotations

import multiprocessing
import os
import time

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


def seconds(*arguments: object) -> float:
    """How long a command takes once it is at work."""
    process = start(*arguments)
    began = time.perf_counter()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - began
