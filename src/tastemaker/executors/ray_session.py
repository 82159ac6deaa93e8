"""A Ray cluster to work on: joined where there is one, else started on this machine and shut down again."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.executors.plan import Node
from tastemaker.machine import usable_cores

LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: listen on the loopback address only
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # Xenna places workers on GPUs itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}

CONNECT_TIMEOUT_S = 10.0
"""Ray itself tries for some minutes, and says in between only what its libraries say."""

_TOKEN_SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")

logger = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str | None, *, sets_gpus: bool) -> Iterator[None]:
    """Connect to a cluster for the length of a block.

    A Ray that this process is connected to already is used and left alone. Otherwise that at ``address`` or
    ``RAY_ADDRESS`` is joined, and left afterwards. Otherwise one is started on this machine and shut down afterwards.

    Args:
        address: Of a cluster, ``host:port`` or ``auto``.
        sets_gpus: Whether Ray is to show each worker its own GPU only; where not, the engine does.

    Raises:
        ConfigurationError: The cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    address = None if address == "local" else address  # Ray's word for one that is started here
    if address and address.startswith("ray://"):
        raise ConfigurationError(
            f"address={address!r}: the driver must run on a machine of the cluster; use `ray job submit`, or there "
            "host:port or 'auto'"
        )
    import ray

    if ray.is_initialized():
        yield
        return
    with _token_settings():
        try:
            with _own_sigterm():
                if address:
                    _join(address)
                else:
                    _start(sets_gpus=sets_gpus)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigurationError(
                f"no Ray cluster at {address or 'this machine'}: {error}. Without an address, and without RAY_ADDRESS, "
                "one is started for the run"
            ) from error
        try:
            with _quiet_raylet():
                yield
        finally:
            ray.shutdown()


def list_nodes(*, ignore_head_node: bool = False, with_gpu_memory: bool = False) -> list[Node]:
    """Return the machines of the cluster that are alive.

    Args:
        ignore_head_node: Leave out the one that runs Ray's own services, if there are others.
        with_gpu_memory: Ask each machine how much memory its GPUs have.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if ignore_head_node:
        alive = [node for node in alive if not is_head(node)] or alive
    return [
        Node(
            node["NodeID"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            _gpu_memory_gb(node["NodeID"]) if with_gpu_memory and node["Resources"].get("GPU") else 0.0,
        )
        for node in alive
    ]


def is_head(node: dict[str, Any]) -> bool:
    """Return whether one of ``ray.nodes()`` runs Ray's own services."""
    return "node:__internal_head__" in node["Resources"]


def on_node(node_id: str) -> Any:  # noqa: ANN401 - Ray's strategy
    """Return what places a task or an actor on one machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@contextmanager
def _token_settings() -> Iterator[None]:
    """Put back what says whether Ray asks for a token, and for which: it is not the same for every cluster."""
    before = {name: os.environ.get(name) for name in _TOKEN_SETTINGS}
    try:
        yield
    finally:
        _set_token(before)


def _set_variables(settings: Mapping[str, str | None]) -> None:
    """Set these environment variables; remove those that are None."""
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _set_token(settings: Mapping[str, str | None]) -> None:
    """Set these variables, or remove them; Ray has read them already, so it is told to do so again."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    _set_variables(settings)
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _join(address: str) -> None:
    """Connect to a cluster; give it the user's token if it asks for one, as ``ray start`` lets it where there is one.

    Raises:
        OSError: Nobody answers there.
        RayError: It asks for a token, and there is none or another one.
    """
    import ray
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    found = canonicalize_bootstrap_address(address) or address  # of "auto", the one that runs on this machine
    host, _, port = found.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    if "RAY_AUTH_MODE" not in os.environ:
        try:
            GcsClient(address=found)
        except ray.exceptions.AuthenticationError:
            _set_token({"RAY_AUTH_MODE": "token"})
    ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    logger.info("joined the Ray cluster at %s", address)


def _start(*, sets_gpus: bool) -> None:
    """Start a Ray on this machine that only this user can reach: it asks for a token that is nowhere on the disk."""
    import ray
    from ray._private import ray_constants, services

    settings = dict(LOCAL_SETTINGS)
    if sets_gpus:
        del settings["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]
    before = {name: os.environ.get(name) for name in settings}
    is_cluster, popen = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    os.environ.update(settings)
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
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = is_cluster, popen
        _set_variables(before)
    logger.info("started Ray on this machine with %d cores", usable_cores())


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the program's handler of SIGTERM, if it has one, while Ray connects and puts its own there.

    Those end the process without a word; one of them, in C++, prints a stack and aborts three seconds later.
    """
    from ray._private import utils

    own = signal.getsignal(signal.SIGTERM)
    if not callable(own) or threading.current_thread() is not threading.main_thread():
        yield
        return
    original = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = original
        signal.signal(signal.SIGTERM, own)


@contextmanager
def _quiet_raylet() -> Iterator[None]:
    """Keep Ray's words on dead workers from stdout, where it prints them whatever is asked for: they are logged."""
    from ray._private import worker

    original = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, **_: logger.debug("%s: %s", data.get("pid"), " ".join(data["lines"]))
    try:
        yield
    finally:
        worker.print_to_stdstream = original


def _gpu_memory_gb(node_id: str) -> float:
    """Return the memory of the smallest GPU of a machine, in GB."""
    import ray

    def smallest() -> float:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return float(min(pynvml.nvmlDeviceGetMemoryInfo(handle).total for handle in handles)) / 1e9

    return float(ray.get(ray.remote(smallest).options(num_cpus=0, scheduling_strategy=on_node(node_id)).remote()))
