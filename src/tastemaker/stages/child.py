"""Decoding in a child process, which a deadly file may kill: only the row of that file is lost."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import IO

from tastemaker.errors import ReasonKind
from tastemaker.tasks import ImageObject

REASON = "unreadable: it killed the process that decoded it"

_COMMAND = "import sys; sys.path[:] = {path!r}; from tastemaker.stages.child import serve; serve()"


class ChildDecoder:
    """Prepares images one at a time in a child process, which is started again where an image killed it.

    Args:
        reader: The `tastemaker.stages.read.ImageReaderStage` that prepares them there; it travels before its set-up.
    """

    def __init__(self, reader: object) -> None:
        self._reader = reader
        self._child: subprocess.Popen[bytes] | None = None

    def prepare(self, image: ImageObject) -> ImageObject:
        """Return the image as the reader prepares it, or as failed where its decoding killed the child."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            _send(image, child.stdin)
            prepared: ImageObject = pickle.load(child.stdout)
            return prepared
        except (EOFError, OSError, pickle.UnpicklingError):  # it is gone, and its pipes with it
            self.close()
            image.fail(REASON, ReasonKind.CRASHED)
            return image

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _COMMAND.format(path=sys.path)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        _send(self._reader, child.stdin)
        return child


def serve() -> None:
    """Prepare the images that come on stdin, until it ends. What decoders print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stage = pickle.load(sys.stdin.buffer)
    stage.setup()
    while True:
        try:
            image = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _send(stage._prepare(image), answers)


def _send(something: object, pipe: IO[bytes]) -> None:
    pickle.dump(something, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
