"""A lock for object stores: a small object that its holder renews. If nobody renews it, it expires."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from tastemaker.errors import ConfigurationError
from tastemaker.machine import is_running
from tastemaker.storage.place import Lock

LEASE_S = 60.0
"""Seconds after which a lease expires. The clocks of the machines may differ by less than that."""

_POLL_S = 0.5

logger = logging.getLogger(__name__)


class _Object(Protocol):
    """An object that can be written on the condition that it has not changed since it was read."""

    def read_version(self) -> tuple[bytes, Any] | None: ...

    def put_if(self, data: bytes, version: Any) -> bool: ...  # noqa: ANN401

    def delete(self) -> None: ...


class Lease(Lock):
    """The right to do something, stated in an object and renewed by a thread.

    Args:
        place: The object.
        lease_s: Seconds that it holds without being renewed.
    """

    def __init__(self, place: _Object, lease_s: float = LEASE_S) -> None:
        self.place = place
        self._lease_s = lease_s
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
        """Return whether somebody has the lease. A process of this machine that has ended has none."""
        return _is_alive(self._read()[0])

    def holder(self) -> str:
        """Return who has the lease, for messages; empty if that is not known."""
        found = self._read()[0]
        return f"process {found['pid']} on {found['host']}" if {"pid", "host"} <= set(found) else ""

    def _take(self) -> bool:
        self._token, self._lost = uuid.uuid4().hex, ""
        found, version = self._read()
        if _is_alive(found) or not self._write(version):
            return False
        self._released.clear()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def _write(self, version: Any) -> bool:  # noqa: ANN401
        """Write the lease if the object still has that version (None: if there is no object); return whether it was."""
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "expires": time.time() + self._lease_s,
        }
        data, begun = json.dumps(content).encode(), time.monotonic()
        if self.place.put_if(data, version):
            self._renewed = begun
            return True
        return self._has()  # an earlier try may have written it, though its answer was lost

    def _has(self) -> bool:
        return bool(self._read()[0].get("token") == self._token)

    def _is_late(self) -> bool:
        """Return whether the lease has expired. The thread that renews it may be waiting for the store."""
        if time.monotonic() - self._renewed > self._lease_s:
            self._lost = "it could not be renewed in time"
        return bool(self._lost)

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / 4):
            try:
                found, version = self._read()
                if found.get("token") != self._token or not self._write(version):
                    self._lost = f"taken over by {self.holder() or 'another run'}"
                    return
            except Exception as error:  # noqa: BLE001 - whatever the store raises; it may be there again in a moment
                logger.warning("the lease %s could not be renewed: %s", self.place, error)
            if self._is_late():
                return

    def _read(self) -> tuple[dict[str, Any], Any]:
        """Return what the lease says, and its version; None where there is none."""
        data, version = self.place.read_version() or (b"", None)
        try:
            found = json.loads(data or b"{}")
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}, version


def _is_alive(found: dict[str, Any]) -> bool:
    if found.get("processes") and found["processes"] == _processes() and not is_running(int(found["pid"])):
        return False
    return float(found.get("expires", 0.0)) > time.time()


def _processes() -> str:
    """Return what identifies the processes that this one can see: boot and namespace; empty if that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
