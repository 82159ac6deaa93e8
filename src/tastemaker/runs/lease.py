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
from tastemaker.scores.files import write_whole
from tastemaker.storage import is_remote
from tastemaker.storage.files import read_small

LEASE_S = 60.0
"""Seconds after which a lease that nobody renewed is free. The clocks of the machines must agree better than that."""

SETTLE_S = 1.0
"""Two that write at the same moment both look again after so many seconds; the later writer has it."""

logger = logging.getLogger(__name__)


class Lease:
    """The right to write to a place, stated in an object there and renewed by a thread.

    Args:
        path: The object.
        lease_s: Seconds that it holds without being renewed.
        settle_s: Seconds between writing it and believing it.
    """

    def __init__(self, path: Path, lease_s: float = LEASE_S, settle_s: float = SETTLE_S) -> None:
        self.path = path
        self._lease_s = lease_s
        self._settle_s = settle_s
        self._token = uuid.uuid4().hex
        self._lost = ""
        self._renewed = 0.0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take the lease if it is free, and renew it from now on; return whether it was."""
        if is_lease_alive(self.path):
            return False
        self._write()
        time.sleep(self._settle_s)
        if _read(self.path).get("token") != self._token:
            return False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Stop renewing, and give the lease back."""
        self._released.set()
        if self._thread is not None:
            self._thread.join()
            if not self._lost:
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `ConfigurationError` if the lease is lost."""
        if self._lost or self._is_late():
            raise ConfigurationError(f"this run has lost its lease {self.path} ({self._lost}); another may be writing")

    def holder(self) -> str:
        """Return who has the lease, for messages; empty if nobody says."""
        found = _read(self.path)
        return f" (process {found['pid']} on {found['host']})" if {"pid", "host"} <= set(found) else ""

    def _write(self) -> None:
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "expires": time.time() + self._lease_s,
        }
        write_whole(self.path, json.dumps(content).encode())
        self._renewed = time.monotonic()

    def _is_late(self) -> bool:
        """Return whether it has run out; the thread that renews it may be waiting for the store."""
        if time.monotonic() - self._renewed > self._lease_s:
            self._lost = "it could not be renewed in time"
        return bool(self._lost)

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / 4):
            try:
                if _read(self.path).get("token") != self._token:
                    self._lost = f"taken over by{self.holder() or ' another run'}"
                    return
                self._write()
            except Exception as error:  # noqa: BLE001 - whatever the store raises; it may be there again in a moment
                logger.warning("the lease %s could not be renewed: %s", self.path, error)
            if self._is_late():
                return


def is_lease_alive(path: Path) -> bool:
    """Return whether somebody holds the lease in an object; not if that was a process here that is no more."""
    found = _read(path)
    if found.get("processes") and found["processes"] == _processes() and not is_running(int(found["pid"])):
        return False
    return float(found.get("expires", 0.0)) > time.time()


def _processes() -> str:
    """Return what names the processes that this one can see: boot and namespace; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_small(path) if is_remote(str(path)) else path.read_bytes()
        found = json.loads(content or b"{}")
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
