"""Decoding in a child process, which a deadly file may kill: only the row of that file is lost."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import IO, Any

from tastemaker.errors import ReasonKind
from tastemaker.tasks import ImageObject

REASON = "unreadable: it killed the process that decoded it"

_COMMAND = "import sys; sys.path[:] = {path!r}; from tastemaker.stages.serve import serve; serve()"


class ChildDecoder:
    """Prepares images one at a time in a child process, which is started again where an image killed it.

    Args:
        reader: Options of the `tastemaker.stages.read.ImageReaderStage` that prepares them there.
    """

    def __init__(self, reader: dict[str, Any]) -> None:
        self._options = reader
        self._child: subprocess.Popen[bytes] | None = None

    def prepare(self, image: ImageObject) -> ImageObject:
        """Return the image as the reader prepares it, or as failed where its decoding killed the child."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            send(image, child.stdin)
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
        send(self._options, child.stdin)
        return child


def send(something: object, pipe: IO[bytes]) -> None:
    """Write an object to a pipe at once."""
    pickle.dump(something, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
