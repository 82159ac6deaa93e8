"""The command line as a user starts it: in this process, or, where processes matter, in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import patch

from tastemaker.__main__ import main

PROGRAM = (sys.executable, "-m", "tastemaker")


def tastemaker(*arguments, cwd=".", env=None):
    """Return what a command wrote to stdout and stderr, and its exit code. Saves the second that a process takes."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.dict(os.environ, env or {}),
        patch.object(sys, "argv", ["tastemaker", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return SimpleNamespace(returncode=code or 0, stdout=out.getvalue(), stderr=err.getvalue())


def start_tastemaker(*arguments, **options):
    """Return the same of a process of its own."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
