"""Which files hold embeddings, and which table says more about each row of them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path

from tastemaker.embeddings.arrays import ArraySource
from tastemaker.embeddings.places import expand, is_file, list_below, may_be_folder, size_of
from tastemaker.embeddings.tables import TABLE_EXTENSIONS, TableSource, carried_columns, has_embeddings
from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.shards import TAR_EXTENSIONS
from tastemaker.models.published import find_scorer
from tastemaker.storage import Options, base_name, folder_of, is_remote, public_url, relative_to, without_repeats
from tastemaker.tasks import FileGroupTask

ARRAY_EXTENSIONS = (".npy", ".npz")
EXTENSIONS_OF_EMBEDDINGS = (*ARRAY_EXTENSIONS, *TABLE_EXTENSIONS)

_NOT_READ = (".pt", ".pth", ".h5", ".hdf5", ".pkl", ".pickle", ".safetensors", ".csv", ".tsv", ".mat")
"""Files that hold embeddings, perhaps, and no image. What a user names is looked at, but these only to be refused."""

_OF_FILES = (*EXTENSIONS_OF_EMBEDDINGS, *TAR_EXTENSIONS, *(f".{extension}" for extension in EXTENSIONS))

_ASKED_AT_ONCE = 16
"""Questions to servers that are under way at the same time."""

Source = ArraySource | TableSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingFile:
    """A file of embeddings.

    Attributes:
        path: Of the file, or its URL.
        root: The input folder that it was found below.
        metadata: Path of the Parquet file with a row for each embedding; None where there is none.
        column: Name of the array or column, where the user gave one.
        storage_options: Of URLs.
    """

    path: str
    root: str
    metadata: str | None = None
    column: str | None = None
    storage_options: Options | None = field(default=None, repr=False)

    def open(self) -> Source:
        """Return the file, opened far enough to know what is in it. See `ArraySource` and `TableSource`."""
        kind = ArraySource if _extension(self.path) in ARRAY_EXTENSIONS else TableSource
        return kind(self.path, self.column, find_scorer().backbone.dimension, self.storage_options)


@dataclass
class _Folder:
    """What a folder holds, as paths without their extension for pictures."""

    files: list[str] = field(default_factory=list)
    pictures: set[str] = field(default_factory=set)

    def add(self, path: str) -> None:
        """Take down one file."""
        stem, extension = os.path.splitext(path)
        if extension.lower() in EXTENSIONS_OF_EMBEDDINGS:
            self.files.append(path)
        elif path.lower().endswith(TAR_EXTENSIONS) or extension[1:].lower() in EXTENSIONS:
            self.pictures.add(stem)


def find_embeddings(
    inputs: Iterable[str],
    column: str | None = None,
    storage_options: Options | None = None,
) -> list[EmbeddingFile]:
    """Return the files of embeddings among some inputs, in the order of their paths; none where the inputs are images.

    In a folder these are all ``.npy`` and ``.npz`` files and all tables that have a column of embeddings; embeddings
    of text are passed over. In a folder that holds images or tars, such files lie beside images, and it counts as
    images.

    Args:
        inputs: Files, folders and globs, or URLs of them.
        column: Name of the array or column that holds the embeddings.
        storage_options: Of URLs.

    Raises:
        ConfigurationError: Images and embeddings together; metadata with another number of rows; a server that does
            not answer.
        ModelError: A file holds something else than embeddings of CLIP ViT-L/14.
    """
    found: list[EmbeddingFile] = []
    images: list[str] = []
    for path in expand(map(os.fspath, inputs), _may_be_embeddings, storage_options):
        file = partial(EmbeddingFile, column=column, storage_options=storage_options)
        if _is_embedding_file(path, storage_options):
            metadata = find_metadata(path, lambda path: is_file(path, storage_options))
            found.append(file(path, folder_of(path), metadata=metadata))
        elif may_be_folder(path, _OF_FILES) and (files := _files_below(path, column, storage_options)):
            found += [file(one, path, metadata=metadata) for one, metadata in files.items()]
        elif _extension(path) in _NOT_READ and is_file(path, storage_options):
            raise ConfigurationError(
                f"{public_url(path)} is no image, and embeddings are not read from {_extension(path)} files; save them "
                "with numpy.save as .npy, or as a column of a Parquet table"
            )
        else:
            images.append(path)
    if found and images:
        if not is_remote(images[0]) and not os.path.exists(images[0]):
            raise ConfigurationError(f"{images[0]} does not exist")
        raise ConfigurationError(
            f"{public_url(found[0].path)} holds embeddings and {public_url(images[0])} does not; score images and "
            "embeddings in two runs"
        )
    distinct = without_repeats(found)
    with ThreadPoolExecutor(_ASKED_AT_ONCE if any(is_remote(file.path) for file in distinct) else 1) as pool:
        list(pool.map(_check, distinct))
    _warn_of_missing_metadata(distinct)
    return distinct


def group_embeddings(files: list[EmbeddingFile]) -> list[FileGroupTask]:
    """Return a partition for each file, named after it as shards are (see docs/rows.md)."""
    names: set[str] = set()
    groups = []
    for index, file in enumerate(files):
        stem = os.path.splitext(relative_to(file.path, file.root))[0]
        name = next(name for number in count(1) if (name := stem if number == 1 else f"{stem}-{number}") not in names)
        names.add(name)
        paths = [file.path, *([file.metadata] if file.metadata else [])]
        metadata = {
            "partition": name,
            "partition_index": index,
            "total_partitions": len(files),
            "source_files": paths,
            "source_bytes": sum(size_of(path, file.storage_options) for path in paths),
            "root": file.root,
            "folder": name,
            "embedding_file": file,
            "storage_options": file.storage_options,
        }
        folder = folder_of(file.path)
        dataset = (base_name(folder) if is_remote(folder) else Path(folder).resolve().name).lower() or "dataset"
        groups.append(FileGroupTask(dataset, paths, _metadata=metadata, task_id=str(index)))
    return groups


def find_metadata(path: str, is_there: Callable[[str], bool]) -> str | None:
    """Return the Parquet file with a row for each embedding of an array file, None where there is none.

    For ``set/img_emb/img_emb_7.npy`` that is ``metadata_7.parquet`` in ``set/metadata`` (clip-retrieval), in
    ``set/set-metadata`` (as LAION publishes it; on this machine any folder whose name ends so), or beside the array; or
    ``img_emb_7.parquet`` beside it (DataComp).

    Args:
        path: The array file.
        is_there: Tells whether there is a file.
    """
    stem, extension = os.path.splitext(public_url(path))
    if extension.lower() not in ARRAY_EXTENSIONS:
        return None
    number = re.search(r"\d+$", stem)
    candidates = [f"{stem}.parquet"]
    if number:
        candidates += [f"{place}/metadata_{number[0]}.parquet" for place in _metadata_folders(folder_of(path))]
    query = path[len(public_url(path)) :] if path.startswith(public_url(path)) else ""  # a signature is of one file
    return None if query else next((candidate for candidate in candidates if is_there(candidate)), None)


def _metadata_folders(folder: str) -> list[str]:
    """Return where the metadata of the arrays in a folder may lie, the likeliest first."""
    if is_remote(folder):
        above = folder_of(folder)
        return [f"{above}/metadata", f"{above}/{base_name(above)}-metadata", folder]
    has_name = os.path.basename(folder) not in ("", os.curdir, os.pardir)
    above = os.path.dirname(folder) if has_name else os.path.join(folder, os.pardir)  # as a listing spells it
    named_so: list[str] = []
    with contextlib.suppress(OSError):  # it may be closed to this user
        named_so = [name for name in os.listdir(above or os.curdir) if name.lower().endswith("metadata")]
    ordered = sorted(named_so, key=lambda name: (name != "metadata", name))
    return [*(os.path.join(above, name) for name in ordered), folder or os.curdir]


def _check(file: EmbeddingFile) -> None:
    """Raise for what is wrong with the whole file; what is only damaged becomes a row when it is read."""
    try:
        source = file.open()
        if file.metadata is None:
            return
        rows = carried_columns(file.metadata, file.storage_options)[1]
    except (UnreadableImageError, OSError):
        return
    if rows != source.rows:
        raise ConfigurationError(
            f"{public_url(file.metadata)} has {rows:,} rows and {public_url(file.path)} {source.rows:,} embeddings, so "
            "that nothing tells which row belongs to which; move the metadata away to score without it"
        )


def _warn_of_missing_metadata(files: list[EmbeddingFile]) -> None:
    """Say which files have no metadata though others of their folder have: their keys and addresses are lost."""
    arrays: dict[str, list[EmbeddingFile]] = {}
    for file in files:
        if _extension(file.path) in ARRAY_EXTENSIONS:
            arrays.setdefault(folder_of(file.path), []).append(file)
    for folder, siblings in arrays.items():
        lacking = [base_name(file.path) for file in siblings if file.metadata is None]
        if 0 < len(lacking) < len(siblings):
            logger.warning(
                "%s: %d of %d files have no metadata (%s), so that their rows have no keys, addresses or captions; put "
                "it there and score again: only these files are then read",
                *(public_url(folder), len(lacking), len(siblings), _shorten(lacking)),
            )


def _warn_of_missing_arrays(root: str, lonely: list[str]) -> None:
    """Say which files are metadata, or lie among such, and belong to no embeddings: what they tell of gets no rows."""
    if lonely:
        shown = _shorten(map(base_name, lonely))
        logger.warning(
            "%s: %d files of metadata have no embeddings (%s): img_emb_7.npy goes with metadata_7.parquet",
            *(public_url(root), len(lonely), shown),
        )


def _shorten(names: Iterable[str]) -> str:
    first = list(islice(names, 6))
    return ", ".join(first[:5]) + (", ..." if len(first) > 5 else "")


def _files_below(root: str, column: str | None, options: Options | None) -> dict[str, str | None]:
    """Return the files of embeddings below a folder, each with its metadata; none where it is a folder of images."""
    folder = _Folder()
    for path in list_below(root, options):
        folder.add(path)
    files = sorted(file for file in folder.files if is_remote(root) or os.path.isfile(file))  # no pipes: they wait
    if folder.pictures:
        others = [file for file in files if os.path.splitext(file)[0] not in folder.pictures]
        if any(_extension(file) in ARRAY_EXTENSIONS for file in others):
            logger.warning("%s holds images; files beside them such as %s are passed over", root, others[0])
        return {}
    listed = set(files)

    def is_there(path: str) -> bool:
        lies_outside = not path.startswith(root.rstrip("/") + "/")
        return path in listed or ((lies_outside or not is_remote(root)) and is_file(path, options))

    arrays = [file for file in files if _extension(file) in ARRAY_EXTENSIONS]
    size = find_scorer().backbone.dimension
    with ThreadPoolExecutor(_ASKED_AT_ONCE if is_remote(root) else 1) as pool:
        metadata = dict(zip(arrays, pool.map(lambda file: find_metadata(file, is_there), arrays), strict=True))
        tables = [file for file in files if file not in metadata and file not in metadata.values()]
        has = pool.map(lambda file: has_embeddings(file, size, column, options), tables)
        with_embeddings = {file for file, is_one in zip(tables, has, strict=True) if is_one}
    chosen = sorted([*metadata, *with_embeddings])
    of_images = [file for file in chosen if not _is_of_text(relative_to(file, root))]
    if chosen and not of_images:
        raise ConfigurationError(f"{root} holds embeddings of text only, such as {chosen[0]}; name a file to score it")
    if len(of_images) < len(chosen):
        logger.info("%s: %d files of text embeddings are passed over", root, len(chosen) - len(of_images))
    used = {file for array in of_images if (file := metadata.get(array)) is not None}
    folders = {*map(folder_of, used)}
    others = [file for file in files if file not in metadata and file not in with_embeddings | used]
    of_sets = [f for f in others if folder_of(f) in folders or base_name(f).lower().startswith("metadata_")]
    _warn_of_missing_arrays(root, of_sets if metadata else [])
    return {file: metadata.get(file) for file in of_images}


def _extension(path: str) -> str:
    return os.path.splitext(public_url(path).rstrip("/"))[1].lower()


def _may_be_embeddings(path: str) -> bool:
    return _extension(path) in EXTENSIONS_OF_EMBEDDINGS


def _is_embedding_file(path: str, options: Options | None) -> bool:
    if _extension(path) == ".lance":
        return is_remote(path) or os.path.isdir(path)
    return _may_be_embeddings(path) and is_file(path, options)


def _is_of_text(path: str) -> bool:
    return any(re.match(r"(text|txt|caption)s?[_-]", part.lower()) for part in Path(path).parts)
