"""Decoding in a child process, which a deadly file may kill: only the row of that file is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tastemaker.children import Child, ChildDiedError
from tastemaker.errors import ReasonKind
from tastemaker.tasks import ImageObject

REASON = "unreadable: it killed the process that decoded it"


class ChildDecoder:
    """Prepares images one at a time in a child process, which is started again where an image killed it.

    Args:
        reader: The `tastemaker.stages.read.ImageReaderStage` that prepares them there; it travels before its set-up.
    """

    def __init__(self, reader: object) -> None:
        self._reader = reader
        self._child: Child | None = None

    def prepare(self, image: ImageObject) -> ImageObject:
        """Return the image as the reader prepares it, or as failed where its decoding killed the child."""
        self._child = self._child or Child(partial(_set_up, self._reader))
        try:
            prepared: ImageObject = self._child.do(image)
            return prepared
        except ChildDiedError:
            self._child = None
            image.fail(REASON, ReasonKind.CRASHED)
            return image

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _set_up(reader: Any) -> Callable[[ImageObject], ImageObject]:  # noqa: ANN401 - the module of the stage imports this one
    reader.setup()
    prepare: Callable[[ImageObject], ImageObject] = reader._prepare
    return prepare
