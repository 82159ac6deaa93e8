"""A runner's process, as peers.py sees it. The other end is protocol.py."""

import json
import os
import subprocess
import time
from pathlib import Path

from peer_tools.environments import SkippedError


class Runner:
    """A script in a peer's environment that stays alive and answers requests.

    Args:
        python: Of the environment.
        script: In this folder.
        options: Its command line.
        log: Where all goes that is no answer.
    """

    def __init__(self, python: Path, script: str, options: dict[str, object], log: Path) -> None:
        self._log = log
        self._started = time.perf_counter()
        words = [str(word) for pair in options.items() for word in pair]
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [str(python), str(Path(__file__).with_name(script)), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**without_our_python(), "HF_HUB_OFFLINE": "1"},
            )

    def age(self) -> float:
        """Return the seconds since the process was started."""
        return time.perf_counter() - self._started

    def ask(self, request: str) -> dict:
        """Send a line and return the answer.

        Raises:
            SkippedError: The process has ended.
        """
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are in the log
        return self.answer()

    def answer(self) -> dict:
        """Wait for a line and return it.

        Raises:
            SkippedError: The process ended instead; the message is the last line of its log, cut short.
        """
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        said = [text for text in self._log.read_text(errors="replace").splitlines() if text.strip()]
        raise SkippedError(f"ended with {code}: {said[-1].strip()[:200] if said else 'no word'}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def without_our_python() -> dict[str, str]:
    """Return the environment without what would put packages of this process before the peer's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
