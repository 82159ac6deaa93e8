"""Work in a child process, which may be killed at any moment: by the work itself, or by who waits for it."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

_COMMAND = "import sys; sys.path[:] = {path!r}; from tastemaker.children import serve; serve()"


class ChildDiedError(Exception):
    """The child is gone, and its answer with it."""


class Child:
    """A process that does one piece of work after another. It ends with this process, however that ends.

    Args:
        make: Called there once without arguments, returns the function that does a piece of work. It travels by pickle,
            as do the pieces and what comes of them.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        command = [sys.executable, "-c", _COMMAND.format(path=sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(make)

    def do(self, piece: Any) -> Any:  # noqa: ANN401 - whatever the two sides agree on
        """Return what the function makes of a piece of work.

        Raises:
            ChildDiedError: The child died of it, or was killed meanwhile.
        """
        assert self._process.stdout is not None
        try:
            self._send(piece)
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.kill()
            raise ChildDiedError from error
        except BaseException:
            self.kill()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can do more work."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the child, whatever it does. Another thread may wait for its answer."""
        self._process.kill()
        self._process.wait()

    def _send(self, something: object) -> None:
        assert self._process.stdin is not None
        _write(something, self._process.stdin)


def serve() -> None:
    """Do the work that comes on stdin, until that ends. What libraries print goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes, and the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
    work = pickle.load(sys.stdin.buffer)()
    threading.Thread(target=_work, args=(work, pieces, answers), daemon=True).start()
    while True:
        try:
            pieces.put(pickle.load(sys.stdin.buffer))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # the parent is gone: nobody waits for what is being done


def _work(work: Callable[[Any], Any], pieces: queue.SimpleQueue[Any], answers: IO[bytes]) -> None:
    try:
        while True:
            _write(work(pieces.get()), answers)
    except BrokenPipeError:
        os._exit(0)
    except BaseException:  # noqa: BLE001 - who waits is told by the end of the process
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _write(something: object, pipe: IO[bytes]) -> None:
    pickle.dump(something, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
