"""``tastemaker run``: a script written for NeMo Curator, unchanged, on Tastemaker."""

from __future__ import annotations

import logging
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import typer

from tastemaker.compat.nemo_curator import install
from tastemaker.errors import ConfigurationError


def run_script(script: Path, arguments: list[str]) -> None:
    """Run a Python script as ``python script.py ARGUMENTS`` does, with ``nemo_curator`` answered by Tastemaker.

    An exception that the script does not catch is shown as Python shows it, from the script's own frame on.

    Args:
        script: The script.
        arguments: What it finds in ``sys.argv[1:]``.

    Raises:
        ConfigurationError: There is no such file, or the real nemo_curator is imported already.
        SystemExit: The script's own; with the code 1 after an exception.
    """
    if not script.is_file():
        why = "is no file" if script.exists() else "does not exist"
        raise ConfigurationError(f"{script} {why}; `tastemaker run` takes a Python script")
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    real = None if "nemo_curator" in sys.modules else find_spec("nemo_curator")
    install()
    if real is not None and real.origin is not None:
        typer.echo(f"tastemaker run: NeMo Curator is installed ({real.origin}); Tastemaker is used instead", err=True)
    _log_to_stderr()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:  # noqa: BLE001 - whatever the script raises
        error.with_traceback(_from_script_on(error.__traceback__, script))
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(1) from None


class _UntilConfigured(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes Tastemaker's log to stderr for as long as the script has not set up logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.root.handlers:
            super().emit(record)


def _log_to_stderr() -> None:
    """Show what stages with ``verbose=True`` say, and leave ``logging.basicConfig`` to the script."""
    logging.root.handlers.clear()
    handler = _UntilConfigured(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger = logging.getLogger("tastemaker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _from_script_on(traceback: TracebackType | None, script: Path) -> TracebackType | None:
    """Return a traceback without the frames that ran the script; all of it if the script was not reached."""
    part = traceback
    while part is not None and not _is_same(part.tb_frame.f_code.co_filename, script):
        part = part.tb_next
    return part or traceback


def _is_same(filename: str, script: Path) -> bool:
    return os.path.abspath(filename) == os.path.abspath(script)
