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
from contextlib import contextmanager
from functools import partial
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.machine import usable_cores

LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: listen on the loopback address only
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # Xenna places workers on GPUs itself
    "PYTHON_LOG": "error",  # Xenna's words are for its authors
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

CONNECT_TIMEOUT_S = 10.0
"""Ray itself tries for some minutes, and says in between only what its libraries say."""

_LAST_LINES_S = 0.5
"""It takes Ray so long to bring the last lines of workers."""

logger = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str | None, *, sets_gpus: bool) -> Iterator[None]:
    """Connect to a cluster for the length of a block.

    A Ray that this process is connected to already is used and left alone. Otherwise that at ``address`` or
    ``RAY_ADDRESS`` is joined, and left afterwards. Otherwise one is started on this machine and shut down afterwards.

    Args:
        address: Of a cluster, ``host:port`` or ``auto``; ``local`` for one of its own.
        sets_gpus: Whether Ray is to show each worker its own GPU only; where not, the engine does.

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
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    with _print_to_stderr():
        try:
            with _own_sigterm():
                if address == "local":
                    _start(sets_gpus=sets_gpus)
                else:
                    _join(address)
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
            if address == "local":
                _set_token(before)


def list_nodes(*, ignore_head_node: bool = False) -> list[dict[str, Any]]:
    """Return the machines of the cluster that are alive, of ``ray.nodes()``.

    Args:
        ignore_head_node: Leave out the one that runs Ray's own services, if there are others.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    others = [node for node in alive if "node:__internal_head__" not in node["Resources"]]
    return others if ignore_head_node and others else alive


def on_node(node_id: str) -> Any:  # noqa: ANN401 - Ray's strategy
    """Return what places a task or an actor on one machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def gpu_memory_gb() -> float:
    """Return the memory of the smallest GPU of the cluster, in GB."""
    import ray

    def smallest() -> float:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return float(min(pynvml.nvmlDeviceGetMemoryInfo(handle).total for handle in handles)) / 1e9

    nodes = [node["NodeID"] for node in list_nodes() if node["Resources"].get("GPU")]
    ask = ray.remote(smallest)
    answers = [ask.options(num_cpus=0, scheduling_strategy=on_node(node)).remote() for node in nodes]
    return float(min(ray.get(answers)))


def _set_token(settings: dict[str, str | None]) -> None:
    """Set what says whether Ray asks for a token, and for which. Ray is told to read it again."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    _set_variables(settings)
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _set_variables(settings: dict[str, str | None]) -> None:
    """Set these environment variables; remove those that are None."""
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


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


def _start(*, sets_gpus: bool) -> None:
    """Start a Ray on this machine that only this user can reach: it asks for a token that is nowhere on the disk."""
    import ray
    from ray._private import ray_constants, services

    settings: dict[str, str | None] = {**LOCAL_SETTINGS}
    if sets_gpus:
        del settings["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]
    before = {name: os.environ.get(name) for name in settings}
    is_cluster, popen = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    _set_variables(settings)
    if "RAY_AUTH_MODE" not in os.environ:
        _set_token({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    ray_constants.ENABLE_RAY_CLUSTER = False  # as the variable does for processes that are still to be started
    if sys.platform == "linux":
        # What `timeout` and shells send to the whole group would end the cluster before the driver can leave it.
        # Elsewhere Ray needs the group itself, to end all of it after the driver.
        services.ConsolePopen = partial(popen, process_group=0)
    try:
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            logging_level=logging.ERROR,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = is_cluster, popen
        _set_variables(before)
    logger.info("started Ray on this machine with %d cores", usable_cores())


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
