"""fsspec file systems: which one a URL needs, with what options, and what to install for it."""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from types import MethodType
from typing import Any

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.storage import Options, options_for, scheme_of
from tastemaker.storage.retries import current_patience, describe_error
from tastemaker.storage.sending import PART_BYTES

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "http": "http",
    "https": "http",
}
"""Scheme -> the extra of Tastemaker that brings its library."""

_PACKAGES = {"hf": "huggingface_hub"}

OBJECT_STORES = (*_EXTRAS, "hf", "memory")
"""Schemes whose folders need not be made."""

_GOOGLE = ("gs", "gcs")
_AZURE = ("az", "abfs", "abfss")

_lock = threading.Lock()
_systems: dict[tuple[Any, ...], Any] = {}


def open_system(url: str, options: Options | None = None) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, made once a process, and the path in it.

    It does not try again by itself, so that there is one place that does (`tastemaker.storage.retries`).

    Raises:
        MissingExtraError: The library of the scheme is not installed.
        ConfigurationError: There is no such scheme, or the options are wrong.
    """
    scheme, chosen = scheme_of(url), options_for(url, options)
    key = (os.getpid(), scheme, repr(sorted(chosen.items(), key=lambda item: item[0])))
    with _lock:
        if key not in _systems:
            _systems[key] = _make_system(scheme, chosen)
    system = _systems[key]
    return system, system._strip_protocol(url)


def library_system(url: str, options: Options) -> tuple[Any, str]:
    """Return a file system for libraries that read through it, so with tries of its own, and the path in it.

    Raises:
        MissingExtraError: The library of the scheme is not installed.
        ConfigurationError: There is no such scheme, or the options are wrong.
    """
    if scheme_of(url) == "hf":
        return open_system(url, options)  # its files try again
    import fsspec

    check_scheme(scheme_of(url))
    system = fsspec.filesystem(scheme_of(url), **options)
    return system, system._strip_protocol(url)


def _make_system(scheme: str, options: Options) -> Any:  # noqa: ANN401 - fsspec has no types
    import fsspec

    check_scheme(scheme)
    try:
        if scheme == "hf":
            from tastemaker.storage.hub import HubSystem

            return HubSystem(**options)
        system = fsspec.filesystem(scheme, **{"skip_instance_cache": True, **_with_timeouts(scheme, options)})
    except Exception as error:
        reason = describe_error(error)
        raise ConfigurationError(f"{scheme}:// cannot be used with these storage options: {reason}") from error
    _try_once(system, scheme)
    return system


def _try_once(system: Any, scheme: str) -> None:  # noqa: ANN401
    """Take away a library's own tries, which would multiply with ours and wait in their own rhythm."""
    if scheme in ("s3", "s3a"):
        system.retries = 1
    elif scheme in _GOOGLE:
        once = getattr(type(system)._request, "__wrapped__", None)  # what its decorator would do six times
        if once is not None:
            system._request = MethodType(once, system)
    elif scheme in _AZURE:
        logging.getLogger("azure.storage").setLevel(logging.ERROR)  # it wonders at each answer that is no XML
        configuration = system.service_client._config
        configuration.retry_policy.total_retries = 0
        configuration.max_single_put_size = configuration.max_block_size = PART_BYTES


def shorten_waits(system: Any, scheme: str) -> None:  # noqa: ANN401
    """Let a file system that universal-pathlib made give up within the time that `open_system`'s may take.

    That one tries again by itself, since nobody else does for its small questions: is there, what is there, delete.
    """
    if scheme in ("s3", "s3a"):
        seconds = current_patience().timeout_s
        own = {"connect_timeout": seconds, "read_timeout": seconds, "retries": {"total_max_attempts": 3}}
        system.config_kwargs = {**own, **system.config_kwargs}
        system.retries = 2
    elif scheme in _AZURE:
        policy = system.service_client._config.retry_policy
        policy.total_retries, policy.initial_backoff = 2, 1
    elif scheme in _GOOGLE:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs the traceback of what it also raises


@cache
def check_scheme(scheme: str) -> None:
    """Raise unless the library of a scheme is installed.

    Raises:
        MissingExtraError: It is not; the message has the command that installs it.
        ConfigurationError: There is no such scheme.
    """
    import fsspec

    if scheme in _GOOGLE:
        # Else gcsfs asks by gRPC what kind each bucket is: a minute, where a firewall or emulator has no answer.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        package = _PACKAGES.get(scheme)
        install = f"pip install {package}" if package else str(error)
        install = f"pip install 'tastemaker[{extra}]'" if extra else install
        raise MissingExtraError(f"{scheme}:// needs a library that is not installed: {install}") from error
    except ValueError as error:
        known = "s3://, gs://, az://, hf://, https:// and what else fsspec knows"
        raise ConfigurationError(f"{scheme}:// is no known kind of storage; known are {known}") from error


def _with_timeouts(scheme: str, options: Options) -> Options:
    """Return options under which no request hangs for ever; what the user set stays."""
    seconds = current_patience().timeout_s
    options = dict(options)
    if scheme in ("s3", "s3a"):
        own = options.get("config_kwargs", {})
        once = {"total_max_attempts": 1, "mode": "standard"}
        options["config_kwargs"] = {"connect_timeout": seconds, "read_timeout": seconds, "retries": once, **own}
    elif scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
    elif scheme in _GOOGLE:
        import aiohttp

        options.setdefault("requests_timeout", aiohttp.ClientTimeout(None, sock_connect=seconds, sock_read=seconds))
    elif scheme in _AZURE:
        options.setdefault("connection_timeout", int(seconds) or 1)
        options.setdefault("read_timeout", int(seconds) or 1)
    return options
