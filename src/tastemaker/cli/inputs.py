"""The inputs of a command: those that it names, and those that a file lists."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tastemaker.errors import ConfigurationError
from tastemaker.storage import is_remote

if TYPE_CHECKING:
    from tastemaker.runs.options import RunOptions


def gather_inputs(
    named: Sequence[str] | None, files_from: str | None, options: RunOptions, *, null: bool = False
) -> tuple[list[str], RunOptions]:
    """Return all inputs of a command, and its options with the folder that ids of listed files begin below.

    Args:
        named: Inputs on the command line.
        files_from: File with a path on each line; ``-`` for the standard input.
        options: Of the run.
        null: Paths end with a NUL, as ``find -print0`` writes them, and not with a line.

    Raises:
        ConfigurationError: There are none, or the list cannot be read.
    """
    if files_from is None:
        if not named:
            raise ConfigurationError("name an input: a folder, a tar, pictures; or a list of them by --files-from FILE")
        return list(named), options
    listed = _read_list(files_from, b"\0" if null else b"\n")
    if not listed:
        raise ConfigurationError(f"--files-from {files_from} lists no files")
    return [*(named or ()), *listed], replace(options, root=_common_root(listed))


def _read_list(path: str, end: bytes) -> list[str]:
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(os.path.expanduser(path), "rb") as file:
                data = file.read()
    except OSError as error:
        raise ConfigurationError(f"--files-from {path}: {error.strerror or error}") from error
    lines = (line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(end))
    return [os.fsdecode(line) for line in lines if line]


def _common_root(paths: list[str]) -> str | None:
    """Return the folder that all paths lie below: the working directory if it is; None where some are URLs."""
    if any(map(is_remote, paths)):
        return None
    if all(not os.path.isabs(path) and not os.path.normpath(path).startswith("..") for path in paths):
        return "."
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
