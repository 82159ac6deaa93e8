"""A Ray cluster to work on: joined where there is one, else started on this machine and shut down again."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.machine import usable_cores

LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: listen on the loopback address only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Of a Ray that is started for a run."""

CONNECT_TIMEOUT_S = 10.0
"""Ray itself tries for some minutes, and says in between only what its libraries say."""

_LAST_LINES_S = 0.5
"""It takes Ray so long to bring the last lines of workers."""

logger = logging.getLogger(__name__)


def has_cluster() -> bool:
    """Return whether there is a cluster to join: ``RAY_ADDRESS`` names one, or this process has connected to Ray."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connect to a cluster for the length of a block.

    A Ray that this process is connected to already is used and left alone. Otherwise that at ``address`` or
    ``RAY_ADDRESS`` is joined, and left afterwards. Otherwise one is started on this machine and shut down afterwards.

    Args:
        address: Of a cluster, ``host:port`` or ``auto``; ``local`` for one of its own.

    Raises:
        ConfigurationError: The cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS", "local")
    if address.startswith("ray://"):
        raise ConfigurationError(
            f"address={address!r}: the driver must run on a machine of the cluster; use `ray job submit`, or there "
            "host:port or 'auto'"
        )
    import ray

    if ray.is_initialized():
        yield
        return
    with _print_to_stderr(), _settings_of_its_own() if address == "local" else nullcontext():
        try:
            with _own_sigterm():
                _start() if address == "local" else _join(address)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigurationError(
                f"no Ray cluster at {address}: {error}. Without an address, and without RAY_ADDRESS, one is started "
                "for the run"
            ) from error
        try:
            yield
            time.sleep(_LAST_LINES_S)
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    """Connect to a cluster.

    Raises:
        OSError: Nobody answers there.
        RayError: It asks for a token, and there is none or another one.
    """
    import ray

    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    ray.init(address=address, logging_level=logging.ERROR)
    logger.info("joined the Ray cluster at %s", address)


def _start() -> None:
    """Start a Ray on this machine, with the settings that are set."""
    import ray
    from ray._private import ray_constants, services

    is_cluster, popen = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    ray_constants.ENABLE_RAY_CLUSTER = False  # as the variable does for processes that are still to be started
    if sys.platform == "linux":
        # What `timeout` and shells send to the whole group would end the cluster before the driver can leave it.
        # Elsewhere Ray needs the group itself, to end all of it after the driver.
        services.ConsolePopen = partial(popen, process_group=0)
    try:
        ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, logging_level=logging.ERROR)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = is_cluster, popen
    logger.info(
        "started Ray on this machine with %d cores. Starting and ending it take some 10 s: LocalExecutor "
        "(--executor local) does a small job sooner",
        usable_cores(),
    )


@contextmanager
def _settings_of_its_own() -> Iterator[None]:
    """Have Ray ask for a token that is nowhere on the disk, so that only this user can reach the one of this block."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    settings = dict(LOCAL_SETTINGS)
    if "RAY_AUTH_MODE" not in os.environ:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        Config.initialize("")  # Ray reads the settings again
        AuthenticationTokenLoader.instance().reset_cache()
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Put the program's handler of SIGTERM back after Ray has put its own there, which ends without a word."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


@contextmanager
def _print_to_stderr() -> Iterator[None]:
    """Have Ray print what workers print and log to stderr, since stdout is data; what it says itself is logged."""
    from ray._private import worker

    def show(data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
        for line in data["lines"]:
            if data.get("pid") in ("raylet", "autoscaler"):
                logger.debug("%s: %s", data["pid"], line)
            else:
                print(f"(worker {data.get('pid')}) {line}", file=sys.stderr)

    original, worker.print_to_stdstream = worker.print_to_stdstream, show
    try:
        yield
    finally:
        worker.print_to_stdstream = original
