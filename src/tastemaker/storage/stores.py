"""Object stores through obstore: the store of a URL, and its settings, made of options that are named as in fsspec."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from configparser import ConfigParser
from datetime import timedelta
from typing import Any

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.storage import STORE_SCHEMES, Options
from tastemaker.storage.retries import Patience, current_patience, describe_error

PART_BYTES = 2**23
PARTS_AT_ONCE = 4
"""Parts of an upload that are sent at the same time."""

_S3_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "requester_pays": "request_payer",
}
_GOOGLE_NAMES = {"endpoint_url": "base_url", "anon": "skip_signature"}
_AZURE_NAMES = {"sas_token": "sas_key", "account_url": "endpoint", "anon": "skip_signature"}
_AZURE_PARTS = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "blobendpoint": "endpoint",
    "sharedaccesssignature": "sas_key",
}
"""Names in a connection string -> those of obstore."""

_DYNAMIC = {"sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"}
"""Entries of ``~/.aws/config`` that tell how to fetch credentials, which boto3 does."""

_lock = threading.Lock()
_stores: dict[tuple[Any, ...], Any] = {}


def open_store(url: str, options: Options, *, to_write: bool = False) -> Any:  # noqa: ANN401 - obstore's kinds of store
    """Return the store of a URL's bucket; a process makes each once. Retries are left to `retries`.

    Args:
        url: Of the bucket, or of anything in it.
        options: In fsspec's spelling, or in obstore's.
        to_write: Return one whose requests may take as long as an upload, and not only until a connection stalls.

    Raises:
        ConfigurationError: The options are wrong.
        MissingExtraError: The credentials need a library that is not installed.
    """
    kind, bucket, _ = split_url(url)
    patience = current_patience()
    options = options | _account_of(url)
    key = (os.getpid(), kind, bucket, json.dumps(options, sort_keys=True, default=repr), patience, to_write)
    with _lock:
        if key not in _stores:
            _stores[key] = _make_store(kind, bucket, options, patience, to_write=to_write)
    return _stores[key]


def split_url(url: str) -> tuple[str, str, str]:
    """Return the kind of store of a URL, the bucket, and the name in it without slashes at its ends.

    Example:
        >>> split_url("abfss://box@account.dfs.core.windows.net/a/b.tar")
        ('az', 'box', 'a/b.tar')
    """
    scheme, _, rest = url.partition("://")
    kind = STORE_SCHEMES[scheme.lower()]
    bucket, _, name = rest.partition("/")
    return kind, bucket.partition("@")[0] if kind == "az" else bucket, name.strip("/")


def _account_of(url: str) -> dict[str, str]:
    match = re.match(r"(?:az|abfss?)://[^/@]+@([^./]+)", url)
    return {"account_of_url": match[1]} if match else {}


def _make_store(kind: str, bucket: str, options: Options, patience: Patience, *, to_write: bool) -> Any:  # noqa: ANN401
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

    if kind == "memory":
        return _memory(bucket, MemoryStore)
    make, settings = {
        "s3": (S3Store, _s3_settings),
        "gs": (GCSStore, _google_settings),
        "az": (AzureStore, _azure_settings),
    }[kind]
    try:
        chosen = {name: value for name, value in settings(options, bucket).items() if value is not None}
        client = _client_options(patience, to_write=to_write) | chosen.pop("client_options", {})
        endpoint = str(chosen.get("endpoint") or chosen.get("base_url") or os.environ.get("AWS_ENDPOINT_URL", ""))
        client["allow_http"] = endpoint.startswith("http://")
        retries = {"max_retries": 0, "retry_timeout": timedelta(seconds=patience.total_s)}
        return make(bucket, client_options=client, retry_config=retries, **chosen)
    except MissingExtraError:
        raise
    except Exception as error:
        reason = describe_error(error)
        raise ConfigurationError(f"{kind}:// cannot be used with these storage options: {reason}") from error


_in_memory: dict[str, Any] = {}


def _memory(bucket: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401
    return _in_memory.setdefault(bucket, make())


def _client_options(patience: Patience, *, to_write: bool) -> dict[str, Any]:
    seconds = patience.timeout_s
    upload_s = seconds + PART_BYTES * PARTS_AT_ONCE / patience.slowest_bytes_per_s
    waits = {"connect_timeout": timedelta(seconds=seconds), "timeout": timedelta(seconds=upload_s)}
    return waits if to_write else {**waits, "read_timeout": timedelta(seconds=seconds)}


def _rename(options: Options, names: dict[str, str]) -> Options:
    return {names.get(name, name): value for name, value in options.items() if value is not None}


def _s3_settings(options: Options, bucket: str) -> Options:
    options = dict(options)
    inner = {name.removeprefix("aws_"): value for name, value in options.pop("client_kwargs", {}).items()}
    profile = options.pop("profile", None)
    chosen = {**inner, **_rename(options, _S3_NAMES)}
    chosen = _rename(chosen, _S3_NAMES)
    if (verify := chosen.pop("verify", None)) is False:
        chosen["client_options"] = {"allow_invalid_certificates": True}
    elif isinstance(verify, str):
        chosen["client_options"] = {"root_certificate": _read_text(verify)}
    chosen = _aws_profile(profile, has_keys="access_key_id" in chosen or bool(chosen.get("skip_signature"))) | chosen
    is_placed = {"region", "endpoint"} & set(chosen) or any(map(os.environ.get, _S3_PLACES))
    return chosen if is_placed else {**chosen, "region": _region_of(bucket)}


_S3_PLACES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


def _aws_profile(profile: str | None, *, has_keys: bool) -> Options:
    """Return the settings of a profile in ``~/.aws``. Keys in the environment override those of the default profile."""
    name = profile or os.environ.get("AWS_PROFILE") or "default"
    saved = ConfigParser(interpolation=None)
    saved.read(os.path.expanduser(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")))
    config = ConfigParser(interpolation=None)
    config.read(os.path.expanduser(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")))
    section = name if name == "default" else f"profile {name}"
    found = {**dict(config).get(section, {}), **dict(saved).get(name, {})}
    if profile and not found:
        raise ConfigurationError(f"there is no profile {profile!r} in ~/.aws")
    settings: Options = {"region": found.get("region"), "endpoint": found.get("endpoint_url")}
    if has_keys or (name == "default" and os.environ.get("AWS_ACCESS_KEY_ID")):
        pass
    elif "aws_access_key_id" in found:
        keys = ("access_key_id", "secret_access_key", "session_token")
        settings |= {key: found.get(f"aws_{key}") for key in keys}
    elif _DYNAMIC & set(found):
        settings["credential_provider"] = _ask_boto3(name)
    return {key: value for key, value in settings.items() if value}


def _ask_boto3(profile: str) -> Any:  # noqa: ANN401
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        install = "pip install 'tastemaker[s3]'"
        raise MissingExtraError(f"the profile {profile!r} of ~/.aws needs a library: {install}") from error
    return Boto3CredentialProvider(boto3.Session(profile_name=profile))


def _region_of(bucket: str) -> str:
    """Return the region of a bucket, as Amazon says; for other stores the answer does not matter."""
    import httpx2

    try:
        answer = httpx2.head(f"https://s3.amazonaws.com/{bucket}", timeout=min(current_patience().timeout_s, 10))
    except httpx2.HTTPError:
        return "us-east-1"
    return str(answer.headers.get("x-amz-bucket-region", "us-east-1"))


def _google_settings(options: Options, _bucket: str) -> Options:
    chosen = _rename({name: value for name, value in options.items() if name != "project"}, _GOOGLE_NAMES)
    chosen.setdefault("base_url", os.environ.get("STORAGE_EMULATOR_HOST"))
    token = chosen.pop("token", None)
    if token == "anon":
        chosen["skip_signature"] = True
    elif isinstance(token, dict):
        chosen["service_account_key"] = json.dumps(token)
    elif isinstance(token, str) and token not in ("google_default", "cloud", "cache"):
        if not os.path.isfile(token):
            raise ConfigurationError("the token names no file of credentials")
        chosen["application_credentials"] = token
    return chosen


def _azure_settings(options: Options, _bucket: str) -> Options:
    options = dict(options)
    text, account = options.pop("connection_string", None), options.pop("account_of_url", None)
    if text is None and not account and not {"account_name", "account_key"} & set(options):
        text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    parts = (part.partition("=") for part in (text or "").split(";"))
    given = {_AZURE_PARTS[name.lower()]: value for name, _, value in parts if name.lower() in _AZURE_PARTS}
    settings = {**given, **_rename(options, _AZURE_NAMES)}
    if account and settings.setdefault("account_name", account) != account:
        raise ConfigurationError(f"they are for the account {settings['account_name']}, not for {account}")
    return settings


def _read_text(path: str) -> str:
    with open(os.path.expanduser(path)) as file:
        return file.read()
