"""Ctrl-C and SIGTERM: what a command says when it is stopped, and the code that it ends with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer


class TerminatedError(KeyboardInterrupt):
    """SIGTERM arrived. Whatever clears up after Ctrl-C does so after this, too."""


@contextmanager
def stoppable(left: str) -> Iterator[None]:
    """Let a block be stopped by Ctrl-C and by SIGTERM: one line on stderr, and 130 or 143 as the exit code.

    Args:
        left: What is there of the work then, for the line.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        typer.secho(f"tastemaker: stopped; {left}", err=True)
        raise typer.Exit(143 if isinstance(error, TerminatedError) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError
