"""What runs in the child process of `tastemaker.stages.child`."""

from __future__ import annotations

import os
import pickle
import sys

from tastemaker.stages.child import send
from tastemaker.stages.read import ImageReaderStage


def serve() -> None:
    """Prepare the images that come on stdin, until it ends. What decoders print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stage = ImageReaderStage(num_threads=1, **pickle.load(sys.stdin.buffer))
    stage.setup()
    while True:
        try:
            image = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        send(stage._prepare(image), answers)
