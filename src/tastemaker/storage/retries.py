"""Patience with connections: what is tried again, how often, and for how long."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

from tastemaker.errors import ConfigurationError, RemoteError, TastemakerError
from tastemaker.storage import public_url

T = TypeVar("T")

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
_PERMANENT_NUMBERS = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOSPC)
"""Errors of a file system that another try cannot help, a full disk among them."""

_LONGEST_ANNOUNCED_S = 600.0
"""Longest wait for a server that says when to come back."""

_LONGEST_WAIT_S = 20.0
"""Longest wait for one that does not."""

_LONG_WAIT_S = 30.0
"""A longer wait is logged as a warning, so that a user knows why a run stands still."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often and for how long a failing connection is tried again.

    Attributes:
        attempts: Tries in a row that bring nothing, or next to nothing.
        wait_s: Seconds before the second try; twice as long before each further one, up to 20, a random half of it off.
        total_s: Seconds from the first failure in a row after which nothing is tried again.
        timeout_s: Seconds without a connection or a byte that count as a failure.
        slowest_bytes_per_s: An upload gets so much more time as it takes at this rate.
    """

    attempts: int = 6
    wait_s: float = 0.5
    total_s: float = 180.0
    timeout_s: float = 30.0
    slowest_bytes_per_s: float = 2.0**17


def current_patience() -> Patience:
    """Return the settings in the environment variables that docs/remote-data.md lists, else the defaults.

    Raises:
        ConfigurationError: A variable is no number.
    """
    values = {}
    for setting in fields(Patience):
        variable = f"TASTEMAKER_REMOTE_{setting.name.upper()}"
        if text := os.environ.get(variable):
            try:
                values[setting.name] = int(text) if setting.name == "attempts" else float(text)
            except ValueError:
                raise ConfigurationError(f"{variable}={text!r} is no number") from None
    return Patience(**values)  # type: ignore[arg-type]


class NotThereError(RemoteError, FileNotFoundError):
    """There is no such file."""


class Attempts:
    """Counts the failures in a row of one piece of work, and waits after each.

    Args:
        what: Begins the error: ``s3://bucket/a.tar cannot be read``.
        secret: A URL whose query must not show up in the error.
    """

    def __init__(self, what: str, secret: str = "") -> None:
        self._what = what
        self._patience = current_patience()
        self._secret = secret
        self._failures = 0
        self._first_failure = 0.0

    def wait_after(self, error: Exception, *, progressed: bool = False) -> None:
        """Wait until it is time for the next try.

        Args:
            error: What went wrong.
            progressed: Whether the try brought at least a part: then the count begins anew.

        Raises:
            NotThereError: There is no such file.
            RemoteError: It cannot be helped, or there were enough tries.
        """
        now = time.monotonic()
        if progressed or not self._failures:
            self._failures, self._first_failure = 0, now
        self._failures += 1
        reason = describe_error(error, self._secret)
        if is_permanent(error):
            kind = NotThereError if isinstance(error, FileNotFoundError) else RemoteError
            raise kind(f"{self._what}: {reason}") from error
        wait = min(self._patience.wait_s * 2 ** (self._failures - 1), _LONGEST_WAIT_S)
        wait *= random.uniform(0.5, 1)
        announced = min(announced_wait_s(error), _LONGEST_ANNOUNCED_S)
        if announced > wait:
            wait = announced + wait
            self._first_failure += wait  # what the server asks for does not count
        spent = now - self._first_failure
        if self._failures >= self._patience.attempts or spent + wait > self._patience.total_s:
            raise RemoteError(f"{self._what}: {reason} (given up after {self._failures} tries)") from error
        level = logging.WARNING if wait > _LONG_WAIT_S else logging.INFO
        logger.log(level, "%s: %s; trying again in %.1f s", self._what, reason, wait)
        time.sleep(wait)


def persist(what: str, work: Callable[[], T], secret: str = "") -> T:
    """Return the result of ``work``, which is tried again where its connection fails.

    Raises:
        RemoteError: It cannot be helped, or there were enough tries.
    """
    attempts = Attempts(what, secret)
    while True:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - each library has its own errors; what is permanent is raised again
            attempts.wait_after(error)


def announced_wait_s(error: BaseException) -> float:
    """Return the seconds after which the server says it may be asked again; 0 if it does not say.

    ``Retry-After`` in seconds, or the ``RateLimit`` of the Hugging Face hub: ``"api";r=0;t=55``.
    """
    headers = getattr(error, "headers", None)
    named = {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
    if (text := named.get("retry-after", "")).isdecimal():
        return float(text)
    match = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", named.get("ratelimit", ""))
    return float(match[1]) if match else 0.0


def status_of(error: BaseException | None) -> int | None:
    """Return the status of HTTP that an error is about, None where there is none."""
    if isinstance(status := getattr(error, "status", None), int):
        return status
    match = re.search(r"non-2xx status code: (\d{3})\b", str(error)) if _is_of_store(error) else None
    return int(match[1]) if match else None


def is_permanent(error: BaseException) -> bool:
    """Return whether another try cannot help."""
    status = status_of(error)
    if status is not None and (400 <= status < 500 or status == 501):
        return status not in (408, 425, 429)
    if isinstance(error, TimeoutError | ConnectionError):
        return False
    if isinstance(error, OSError):
        return isinstance(error, _PERMANENT) or error.errno in _PERMANENT_NUMBERS
    return isinstance(error, TastemakerError | TypeError | ValueError) or (
        _is_of_store(error) and type(error).__name__ != "GenericError"
    )


def describe_error(error: BaseException, secret: str = "") -> str:
    """Return an error in one line, without the query of a URL."""
    text = str(error)
    if _is_of_store(error):
        text = _describe_store(text)
    elif isinstance(error, OSError) and error.errno is None and error.strerror is None and error.args:
        text = str(error.args[0])
    if secret:
        text = text.replace(secret, public_url(secret))
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)  # some libraries encode the query anew
    text = " ".join(text.split())[:300].strip()
    if isinstance(error, FileNotFoundError) and not isinstance(error, RemoteError):
        return "there is no such file"
    return text or type(error).__name__


def _is_of_store(error: BaseException | None) -> bool:
    return type(error).__module__.startswith("obstore")


def _describe_store(text: str) -> str:
    """Return the gist of a long error of obstore: status and message, or what happened to the connection."""
    text, _, details = text.partition("\n\nDebug source:")
    if answer := re.search(r"non-2xx status code: (\d{3} ?[^:]*):?(.*)", text, re.DOTALL):
        message = re.search(r"<Message>(.*?)(?:\n|</Message>)", answer[2], re.DOTALL)
        return f"status {answer[1].strip()}" + (f": {message[1]}" if message else "")
    if kind := re.search(r"kind: (Timeout|Interrupted|Connect)\b", details):
        return _CONNECTIONS[kind[1]]
    return text.rpartition(" - ")[2]


_CONNECTIONS = {
    "Timeout": "the server did not answer in time",
    "Interrupted": "the connection was cut",
    "Connect": "there is no connection",
}
