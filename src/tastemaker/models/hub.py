"""Model weights: where they lie, how they get there, and whether they are what they must be.

A weights file lies at ``model_dir/<repo_id>/<filename>``. NeMo Curator uses the same layout, so a directory filled
by one serves the other. A file that is missing there is looked for in the Hugging Face cache, where it counts if its
SHA-256 is right. If it is nowhere, it is downloaded once, into ``.incomplete/`` beside its place, checked there, and
only then moved to its name. All transfers are those of `tastemaker.storage`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Timer

import filelock
import platformdirs

from tastemaker.errors import ConfigurationError, ModelError, RemoteError, WeightsNotFoundError
from tastemaker.models.records import Backbone, Model, TextHead
from tastemaker.models.weights import WeightsFile
from tastemaker.storage import Options, expand_path, is_remote, public_url
from tastemaker.storage.drafts import make_durable
from tastemaker.storage.place import Place
from tastemaker.storage.remote import RemotePlace
from tastemaker.storage.retries import describe_error

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAY_EVERY_S = 10.0
_SAY_WAITING_S = 1.0

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


def resolve_model_dir(model_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return a directory of models as an absolute path.

    None stands for ``$TASTEMAKER_MODEL_DIR``, and where that is not set for ``models`` in the user's cache directory.

    Raises:
        ConfigurationError: It is a URL, which only `ensure_weights` takes.
    """
    if model_dir and is_remote(model_dir):
        raise ConfigurationError(f"{public_url(str(model_dir))}: a local directory of models is needed here")
    named = model_dir or os.environ.get("TASTEMAKER_MODEL_DIR") or cache_dir() / "models"
    return Path(expand_path(named)).absolute()


def weights_path(model: Model, model_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return where a model's weights lie in a model directory, whether they are there or not.

    A file of the user's own on this machine lies where its record says.

    >>> from tastemaker import CLIP_VIT_L14
    >>> weights_path(CLIP_VIT_L14, "/models").as_posix()
    '/models/openai/clip-vit-large-patch14/model.safetensors'
    """
    if model.path is not None:
        return Path(expand_path(model.path)).absolute()
    return resolve_model_dir(model_dir) / model.id / model.filename


def ensure_weights(
    model: Model, model_dir: str | os.PathLike[str] | None = None, options: Options | None = None
) -> Path:
    """Return the path of a model's weights, which are downloaded first if they are not there.

    A file that is there is taken if its tensors fit, without a request. Processes and threads that ask at the same
    time share one download. One that was interrupted goes on where it stopped.

    Args:
        model: Which weights.
        model_dir: Directory of models; None as `resolve_model_dir` takes it. One at a URL is copied to the user's
            cache, and each call asks the server for the version: a file that was replaced is fetched anew.
        options: Settings of the URL's store.

    Raises:
        WeightsNotFoundError: The file is not there and cannot be downloaded.
        ModelError: What was downloaded is not the file, and nothing of it is kept; or a file is in its place that
            cannot be used, which stays.
    """
    if model.path is not None:
        return _copy(model.path, model, options) if is_remote(model.path) else weights_path(model)
    if model_dir and is_remote(model_dir):
        return _copy(f"{str(model_dir).rstrip('/')}/{model.id}/{model.filename}", model, options)
    check = find_weights(model, model_dir)
    if not check.problems:
        return check.path
    path = weights_path(model, model_dir)
    if os.path.lexists(path):
        raise ModelError(
            f"{path} cannot be used as the weights of {model.id}: {_shorten(check.problems)}. Move it away to "
            "have the published file downloaded. A record of your own must fit the file: names, sizes, dimension"
        )
    try:
        _download(model, path)
    except Exception as error:  # each library of HTTP has its own
        if isinstance(error, ModelError):
            raise
        logger.debug("download of %s failed", model.id, exc_info=True)
        raise WeightsNotFoundError(
            f"the weights of {model.id} are needed at {path} ({_shorten(check.problems)}), and they cannot be "
            f"downloaded: {describe_error(error)}\n"
            "Run `tastemaker scorers pull --model-dir DIR` (with the same --scorer) where there is a connection, copy "
            "DIR here and add --model-dir DIR; or rank without weights now: score, filter or explore with "
            "--rank-by technical_quality"
        ) from None  # the HTTP library's own chain is a hundred lines; it is in the debug log
    return path


def find_weights(
    model: Model, model_dir: str | os.PathLike[str] | None = None, *, with_sha256: bool = False
) -> WeightsCheck:
    """Return what `check_weights` does of the directory of models, or of the Hugging Face cache.

    The cache is looked at where the directory holds no usable file. Only a file with the record's SHA-256 is taken;
    others are named among the problems.
    """
    here = check_weights(model, weights_path(model, model_dir), with_sha256=with_sha256)
    if here.problems and model.sha256 and not model.url:
        for path in _cached_by_hub(model):
            if file_sha256(path) == model.sha256:
                return check_weights(model, path, with_sha256=with_sha256)
            here.problems.append(f"{path} is another version of it")
    return here


def _cached_by_hub(model: Model) -> Iterator[Path]:
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{model.id.replace('/', '--')}" / "snapshots"
    return (path for path in sorted(cached.glob(f"*/{model.filename}")) if path.is_file())


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
        if isinstance(model, TextHead):
            return WeightsFile(path).find_misfits(model.backbone.required_text_tensors)
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
        Place.at(str(entry)).write(digest.encode())
    return digest


def cache_dir() -> Path:
    """Return the user's directory of what can be made again."""
    return platformdirs.user_cache_path("tastemaker", appauthor=False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shorten(problems: list[str]) -> str:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _download(model: Model, path: Path) -> None:
    """Put the published file at ``path``. The server is asked once: a missing network shows at once."""
    place = Place.at(model.url or f"hf://{model.id}@{model.revision or 'main'}/{model.filename}")
    assert isinstance(place, RemotePlace)
    waiting = Timer(_SAY_WAITING_S, logger.info, [f"waiting for the server to answer about {place}"])
    waiting.start()
    try:
        with contextlib.closing(place.open_ranges()) as file:
            file.look()
    finally:
        waiting.cancel()
    published = _SHA256.fullmatch(file.version) and not model.url  # of a large file, the hub tells the SHA-256
    wanted = replace(model, sha256=model.sha256 or (file.version if published else None))
    _fetch(place, path, wanted, file.size, file.version)


def _copy(url: str, model: Model, options: Options | None) -> Path:
    """Return the local copy of a user's own weights at a URL: one for each version of the file."""
    try:
        place = Place.at(url, options)
        entry = place.stat()
        if entry is None:
            raise WeightsNotFoundError(f"weights: {place} does not exist")
        identity = f"{place}\n{entry.size}\n{entry.version}\n"
        path = cache_dir() / "remote" / hashlib.sha256(identity.encode()).hexdigest()[:32] / place.name
        _fetch(place, path, replace(model, sha256=None), entry.size, entry.version)
    except RemoteError as error:
        raise WeightsNotFoundError(f"weights: {error}") from error
    return path


def _fetch(place: Place, path: Path, model: Model, size: int | None, version: str) -> None:
    """Put a file at ``path``, checked, unless it is there already, or by the time that another process is done."""
    staging = path.parent / ".incomplete"
    staging.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(staging / f"{path.name}.lock"):
        if not check_weights(model, path).problems:
            return
        of_version = hashlib.sha256(f"{size}\n{version}".encode()).hexdigest()[:32]
        part = staging / f"{of_version}.{path.name}"  # what loads a head looks at the ending
        if not version:
            part.unlink(missing_ok=True)  # nothing says that it is a part of this file
        megabytes = (size or model.size_bytes or 0) / 1e6
        licence = model.licence or "not known"
        logger.info("downloading %s to %s (%.1f MB), licence: %s", place, path, megabytes, licence)
        place.fetch(part, _say_how_far(size or model.size_bytes))
        if place.name.endswith(".zip"):
            _unpack(part, path.name, place)
        problems = check_weights(model, part, with_sha256=True).problems
        if problems:
            part.unlink()
            raise ModelError(
                f"{place} is not the file that was wanted: {_shorten(problems)}. Nothing of it was kept. Try again. If "
                "it stays so, something between this machine and the server (HF_ENDPOINT, a proxy) changes the file"
            )
        make_durable(part)
        part.replace(path)


def _unpack(part: Path, name: str, place: Place) -> None:
    """Put the member of an archive that has this name in the archive's place."""
    unpacked = part.with_name(f"unpacked.{part.name}")
    try:
        with zipfile.ZipFile(part) as archive:
            member = next(found for found in archive.infolist() if Path(found.filename).name == name)
            with archive.open(member) as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target)
        unpacked.replace(part)
    except (zipfile.BadZipFile, StopIteration, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        part.unlink()
        unpacked.unlink(missing_ok=True)
        raise ModelError(f"{place} is no archive with {name} in it: {error or 'it has other members'}") from None


def _say_how_far(size: int | None) -> Callable[[int], None]:
    """Return a function that takes the bytes that are there, and logs them now and then."""
    last = time.monotonic()

    def say(there: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SAY_EVERY_S:
            last = time.monotonic()
            logger.info("downloaded %.0f%s MB", there / 1e6, f" of {size / 1e6:.0f}" if size else "")

    return say
