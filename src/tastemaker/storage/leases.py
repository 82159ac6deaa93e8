"""A lock for places without locks: a small object that its holder renews, and that runs out when it does not."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.machine import is_running
from tastemaker.storage.place import Lock, Place

LEASE_S = 60.0
"""Seconds after which a lease that nobody renewed is free. The clocks of the machines must agree better than that."""

SETTLE_S = 1.0
"""Two that take over a lease that ran out both look again after so many seconds; the later writer has it."""

_POLL_S = 0.5

logger = logging.getLogger(__name__)


class Lease(Lock):
    """The right to do something, stated in an object and renewed by a thread.

    Args:
        place: The object.
        lease_s: Seconds that it holds without being renewed.
        settle_s: Seconds between taking over one that ran out and believing it.
    """

    def __init__(self, place: Place, lease_s: float = LEASE_S, settle_s: float = SETTLE_S) -> None:
        self.place = place
        self._lease_s = lease_s
        self._settle_s = settle_s
        self._token = ""
        self._lost = ""
        self._renewed = 0.0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lease if it is free within ``wait_s`` seconds, and renew it from now on; return whether it was."""
        deadline = time.monotonic() + wait_s
        while not self._take():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def release(self) -> None:
        """Stop renewing, and give the lease back."""
        if self._thread is not None:
            self._released.set()
            self._thread.join()
            self._thread = None
            if not self._lost:
                self.place.delete()

    def check(self) -> None:
        """Raise `ConfigurationError` if the lease is lost."""
        if self._lost or self._is_late():
            raise ConfigurationError(f"this run has lost its lease {self.place} ({self._lost}); another may be writing")

    def is_held(self, wait_s: float = 0.0) -> bool:
        """Return whether somebody has the lease; a process of this machine that is no more has none."""
        return _is_alive(_read(self.place))

    def holder(self) -> str:
        """Return who has the lease, for messages; empty if nobody says."""
        found = _read(self.place)
        return f"process {found['pid']} on {found['host']}" if {"pid", "host"} <= set(found) else ""

    def _take(self) -> bool:
        self._token, self._lost = uuid.uuid4().hex, ""
        if not self._write_first():
            return False
        self._released.clear()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def _write_first(self) -> bool:
        self._renewed = time.monotonic()
        if self.place.create(self._content()):
            return True
        if self.is_held():
            return False
        self._write()  # what is there ran out
        time.sleep(self._settle_s)
        return bool(_read(self.place).get("token") == self._token)

    def _content(self) -> bytes:
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "expires": time.time() + self._lease_s,
        }
        return json.dumps(content).encode()

    def _write(self) -> None:
        renewed = time.monotonic()
        self.place.write(self._content())
        self._renewed = renewed

    def _is_late(self) -> bool:
        """Return whether it has run out; the thread that renews it may be waiting for the store."""
        if time.monotonic() - self._renewed > self._lease_s:
            self._lost = "it could not be renewed in time"
        return bool(self._lost)

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / 4):
            try:
                if _read(self.place).get("token") != self._token:
                    self._lost = f"taken over by {self.holder() or 'another run'}"
                    return
                self._write()
            except Exception as error:  # noqa: BLE001 - whatever the store raises; it may be there again in a moment
                logger.warning("the lease %s could not be renewed: %s", self.place, error)
            if self._is_late():
                return


def _is_alive(found: dict[str, Any]) -> bool:
    if found.get("processes") and found["processes"] == _processes() and not is_running(int(found["pid"])):
        return False
    return float(found.get("expires", 0.0)) > time.time()


def _processes() -> str:
    """Return what names the processes that this one can see: boot and namespace; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(place: Place) -> dict[str, Any]:
    try:
        found = json.loads(place.read(2**20) or b"{}")
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
