"""Model weights: where they lie, how they get there, and whether they are what they must be.

A weights file lies at ``model_dir/<repo_id>/<filename>``. NeMo Curator uses the same layout, so a directory filled
by one serves the other. A missing file is downloaded once, into ``.incomplete/`` beside its place, checked there, and
only then moved to its name.

The metadata request and the transfer are huggingface_hub's, and so are HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE (read when
it is first imported) and the proxies. Its ``hf_hub_download`` is not used: without a network version 2.4 retries for
half a minute or, where packets vanish, for six; and it downloads to a new name each time, so that a killed download
starts from nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import textwrap
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import platformdirs

from tastemaker.errors import ConfigurationError, ModelError, WeightsNotFoundError
from tastemaker.models.records import Backbone, Head, Model
from tastemaker.models.remote import fetch_weights
from tastemaker.models.weights import WeightsFile
from tastemaker.storage import Options, expand_path, is_remote, public_url
from tastemaker.storage.drafts import make_durable

_SHA256 = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsCheck:
    """What was found at a path.

    Attributes:
        path: The file.
        size_bytes: Its size; None if there is no file.
        sha256: Its digest, if that was asked for.
        problems: What keeps it from being used; empty if nothing does.
    """

    path: Path
    size_bytes: int | None = None
    sha256: str | None = None
    problems: list[str] = field(default_factory=list)


def default_model_dir() -> Path:
    """Return ``$TASTEMAKER_MODEL_DIR``, or ``models`` in the user's cache directory where that is not set."""
    named = os.environ.get("TASTEMAKER_MODEL_DIR")
    return Path(named) if named else cache_dir() / "models"


def resolve_model_dir(model_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return ``model_dir``, or the default one for None, as an absolute path.

    Raises:
        ConfigurationError: It is a URL, which only `ensure_weights` takes.
    """
    if model_dir and is_remote(model_dir):
        raise ConfigurationError(f"{public_url(str(model_dir))}: a local directory of models is needed here")
    return Path(expand_path(model_dir or default_model_dir())).absolute()


def weights_path(model: Model, model_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return where a model's weights lie in a model directory, whether they are there or not.

    >>> from tastemaker import CLIP_VIT_L14
    >>> weights_path(CLIP_VIT_L14, "/models").as_posix()
    '/models/openai/clip-vit-large-patch14/model.safetensors'
    """
    return resolve_model_dir(model_dir) / model.id / model.filename


def ensure_weights(
    model: Model, model_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> Path:
    """Return the path of a model's weights, which are downloaded first if they are not there.

    A file that is there is taken if its tensors fit, without a request. Processes and threads that ask at the same
    time share one download. One that was interrupted goes on where it stopped.

    Args:
        model: Which weights.
        model_dir: Directory of models; None for `default_model_dir`. One at a URL is copied to the user's cache.
        options: Settings of the URL's store.

    Raises:
        WeightsNotFoundError: The file is not there and cannot be downloaded.
        ModelError: What was downloaded is not the file. Nothing of it is kept.
    """
    if model_dir and is_remote(model_dir):
        url = f"{str(model_dir).rstrip('/')}/{model.id}/{model.filename}"
        find_problems = lambda path: check_weights(model, path).problems  # noqa: E731
        return fetch_weights(url, options, cache_dir() / "remote", find_problems)
    path = weights_path(model, model_dir)
    problems = check_weights(model, path).problems
    if not problems:
        return path
    try:
        _download(model, path)
    except Exception as error:  # not by name: the HTTP library below huggingface_hub has changed, its errors with it
        if isinstance(error, ModelError) and not isinstance(error, WeightsNotFoundError):
            raise
        logger.debug("download of %s failed", model.id, exc_info=True)
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise WeightsNotFoundError(
            f"{model.filename} of {model.id} (revision {model.revision or 'newest'}) is needed at {path}: "
            f"{_shorten(problems)}, and it cannot be downloaded ({reason}). An interrupted download goes on where it "
            "stopped. Without a connection, run `tastemaker models pull --model-dir DIR` (with the same --scorer) on "
            "a machine that has one, copy DIR to this machine, and point to it with --model-dir DIR or "
            "TASTEMAKER_MODEL_DIR=DIR"
        ) from None  # the HTTP library's own chain is a hundred lines; it is in the debug log
    return path


def ensure_head(
    head: Head, own: str | None, model_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> Path:
    """Return the weights of a head: the user's own file, or the published one, which is fetched if it is not there."""
    if own and is_remote(own):
        return fetch_weights(own, options, cache_dir() / "remote")
    return Path(expand_path(own)) if own else ensure_weights(head, model_dir, options)


def check_weights(model: Model, path: Path, *, with_sha256: bool = False) -> WeightsCheck:
    """Return what is at ``path`` and what keeps it from being used as ``model``.

    Of a backbone the header is read, which takes milliseconds and finds a truncated file; a head is loaded. Sizes that
    a file may choose (width, layers, patch) are read from it and must agree with each other.

    Args:
        model: What should be there.
        path: A weights file, or where one should be.
        with_sha256: Read the whole file as well, and compare its digest with the model's.
    """
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return WeightsCheck(path, problems=["there is no such file"])
    problems = _find_problems(model, path)
    sha256 = _digest(path) if with_sha256 and path.is_file() else None
    if sha256 and model.sha256 and sha256 != model.sha256:
        problems.append(f"its sha256 is {sha256}, not {model.sha256}")
    return WeightsCheck(path, size_bytes, sha256, problems)


def _find_problems(model: Model, path: Path) -> list[str]:
    try:
        if isinstance(model, Backbone):
            return WeightsFile(path).find_misfits(model.required_tensors)
        model.load(path)
    except ModelError as error:
        return [str(error)]
    return []


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal, remembered for as long as its path, size and mtime stay."""
    file = Path(path).resolve()
    stat = file.stat()
    identity = f"{file}\n{stat.st_size}\n{stat.st_mtime_ns}".encode(errors="surrogateescape")
    entry = cache_dir() / "sha256" / hashlib.sha256(identity).hexdigest()  # a file each: writers cannot collide
    with contextlib.suppress(OSError, ValueError):
        known = entry.read_text("ascii")
        if _SHA256.fullmatch(known):
            return known
    digest = _digest(file)
    with contextlib.suppress(OSError):
        _write_whole(entry, digest.encode())
    return digest


def cache_dir() -> Path:
    """Return the user's directory of what can be made again."""
    return platformdirs.user_cache_path("tastemaker", appauthor=False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _shorten(problems: list[str]) -> str:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


@dataclass(frozen=True)
class _Source:
    """Where a file is, and what is known of it before it is there."""

    url: str
    size: int | None
    sha256: str | None
    headers: dict[str, str]


def _locate(model: Model) -> _Source:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if model.url:
        return _Source(model.url, None, model.sha256, {})  # the hub's token is nobody else's
    url = hf_hub_url(model.id, model.filename, revision=model.revision)
    remote = get_hf_file_metadata(url)  # one request without retries, so that a missing network shows at once
    etag = remote.etag or ""
    sha256 = model.sha256 or (etag if _SHA256.fullmatch(etag) else None)  # of a large file, the ETag is its SHA-256
    return _Source(url, remote.size, sha256, build_hf_headers())


def _download(model: Model, path: Path) -> None:
    """Put the file at ``path``, checked, unless another process has done so in the meantime."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    source = _locate(model)
    staging = path.parent / ".incomplete"
    staging.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(staging / f"{path.name}.lock"):
        if not check_weights(model, path).problems:
            return
        logger.info("downloading %s to %s (%.1f MB)", source.url, path, (source.size or model.size_bytes or 0) / 1e6)
        part = staging / f"{source.sha256 or 'unknown'}.{path.name}"  # what loads a head looks at the ending
        if not source.sha256:
            part.unlink(missing_ok=True)  # nothing says that it is a part of this file
        _fetch(source, part)
        problems = check_weights(replace(model, sha256=source.sha256), part, with_sha256=True).problems
        if problems:
            part.unlink()
            raise ModelError(
                f"{source.url} is not the file that was wanted: {_shorten(problems)}. Nothing of it was kept. Try "
                "again; if it stays so, something between this machine and the server (HF_ENDPOINT, a proxy) changes it"
            )
        make_durable(part)
        part.replace(path)


def _fetch(source: _Source, part: Path) -> None:
    """Append to ``part`` what is missing of the file."""
    from huggingface_hub.file_download import http_get

    part.touch()
    # Not "ab": where a file system ignores the lock, two writers then put the same bytes in the same places.
    with part.open("r+b") as file:
        start = file.seek(0, os.SEEK_END)
        http_get(source.url, file, resume_size=start, headers=source.headers, expected_size=source.size)
