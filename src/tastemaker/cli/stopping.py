"""Ctrl-C and SIGTERM: what a command says when it is stopped, and the code that it ends with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from tastemaker.errors import was_interrupted


@contextmanager
def stoppable(left: str) -> Iterator[None]:
    """Let a block be stopped by Ctrl-C and by SIGTERM: one line on stderr, and 130 or 143 as the exit code.

    Args:
        left: What is there of the work then, for the line.
    """
    code = 130

    def terminate(_number: int, _frame: FrameType | None) -> None:
        nonlocal code
        code = 143  # told by the exception it would get lost: Ray raises a KeyboardInterrupt of its own
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except BaseException as error:
        if not was_interrupted(error):
            raise
        typer.secho(f"tastemaker: stopped; {left}", err=True)
        raise typer.Exit(code) from None
    finally:
        signal.signal(signal.SIGTERM, before)
