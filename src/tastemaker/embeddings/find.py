"""Which files hold embeddings, and which table says more about each row of them."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from tastemaker.embeddings.arrays import ArraySource
from tastemaker.embeddings.tables import TABLE_EXTENSIONS, TableSource, carried_columns, has_embeddings
from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.shards import TAR_EXTENSIONS
from tastemaker.tasks import FileGroupTask

EMBEDDING_SIZE = 768
"""Numbers in an embedding of CLIP ViT-L/14."""

ARRAY_EXTENSIONS = (".npy", ".npz")
EXTENSIONS_OF_EMBEDDINGS = (*ARRAY_EXTENSIONS, *TABLE_EXTENSIONS)

Source = ArraySource | TableSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingFile:
    """A file of embeddings.

    Attributes:
        path: Of the file.
        root: The input folder that it was found below.
        metadata: Path of the Parquet file with a row for each embedding; None where there is none.
        column: Name of the array or column, where the user gave one.
    """

    path: str
    root: str
    metadata: str | None = None
    column: str | None = None

    def open(self) -> Source:
        """Return the file, opened far enough to know what is in it. See `ArraySource` and `TableSource`."""
        kind = ArraySource if self.path.lower().endswith(ARRAY_EXTENSIONS) else TableSource
        return kind(self.path, self.column, EMBEDDING_SIZE)


@dataclass
class _Folder:
    """What a folder holds, as paths without their extension for pictures."""

    files: list[str] = field(default_factory=list)
    pictures: set[str] = field(default_factory=set)


def find_embeddings(inputs: Iterable[str], column: str | None = None) -> list[EmbeddingFile]:
    """Return the files of embeddings among some inputs, in the order of their paths; none where the inputs are images.

    In a folder these are all ``.npy`` and ``.npz`` files and all tables that have a column of embeddings; embeddings
    of text are passed over. In a folder that holds images or tars, such files lie beside images, and it counts as
    images.

    Args:
        inputs: Files, folders and globs.
        column: Name of the array or column that holds the embeddings.

    Raises:
        ConfigurationError: Images and embeddings together; metadata with another number of rows.
        ModelError: A file holds something else than embeddings of CLIP ViT-L/14.
    """
    found: list[EmbeddingFile] = []
    images: list[str] = []
    for path in _expand(inputs):
        if _is_embedding_file(path):
            found.append(EmbeddingFile(path, os.path.dirname(path), column=column))
        elif os.path.isdir(path) and (files := _files_below(path, column)):
            found += [EmbeddingFile(file, path, column=column) for file in files]
        else:
            images.append(path)
    if found and images:
        if not os.path.exists(images[0]):
            raise ConfigurationError(f"{images[0]} does not exist")
        raise ConfigurationError(
            f"{found[0].path} holds embeddings and {images[0]} does not; score images and embeddings in two runs"
        )
    distinct = {file.path: file for file in found}.values()
    described = [replace(file, metadata=find_metadata(file.path)) for file in distinct]
    for file in described:
        _check(file)
    return described


def group_embeddings(files: list[EmbeddingFile]) -> list[FileGroupTask]:
    """Return a partition for each file, named after it as shards are (see docs/rows.md)."""
    names: set[str] = set()
    groups = []
    for index, file in enumerate(files):
        stem = os.path.splitext(os.path.relpath(file.path, file.root or ".").replace(os.sep, "/"))[0]
        name = next(name for number in count(1) if (name := stem if number == 1 else f"{stem}-{number}") not in names)
        names.add(name)
        paths = [file.path, *([file.metadata] if file.metadata else [])]
        metadata = {
            "partition": name,
            "partition_index": index,
            "total_partitions": len(files),
            "source_files": paths,
            "source_bytes": sum(map(_size, paths)),
            "root": file.root,
            "folder": name,
            "embedding_file": file,
        }
        dataset = (Path(file.path).resolve().parent.name or "dataset").lower()
        groups.append(FileGroupTask(dataset, paths, _metadata=metadata, task_id=str(index)))
    return groups


def find_metadata(path: str) -> str | None:
    """Return the Parquet file with a row for each embedding of an array file, None where there is none.

    That is ``metadata/metadata_7.parquet`` for ``img_emb/img_emb_7.npy`` (clip-retrieval, LAION), or the file's own
    name with ``.parquet`` (DataComp).
    """
    stem, extension = os.path.splitext(path)
    if extension.lower() not in ARRAY_EXTENSIONS:
        return None
    number = re.search(r"\d+$", stem)
    folder = os.path.join(os.path.dirname(path), os.pardir, "metadata")
    candidates = [f"{stem}.parquet"]
    if number:
        candidates.append(os.path.normpath(os.path.join(folder, f"metadata_{number[0]}.parquet")))
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)


def _check(file: EmbeddingFile) -> None:
    """Raise for what is wrong with the whole file; what is only damaged becomes a row when it is read."""
    try:
        source = file.open()
        if file.metadata is None:
            return
        rows = carried_columns(file.metadata)[1]
    except (UnreadableImageError, OSError):
        return
    if rows != source.rows:
        raise ConfigurationError(
            f"{file.metadata} has {rows:,} rows and {file.path} {source.rows:,} embeddings, so that nothing tells "
            "which row belongs to which; move the metadata away to score without it"
        )


def _expand(inputs: Iterable[str]) -> Iterator[str]:
    for path in map(os.fspath, inputs):
        matches = [] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        yield from matches or [path]


def _files_below(root: str, column: str | None) -> list[str]:
    """Return the files of embeddings below a folder; none where it is a folder of images."""
    folder = _Folder()
    _walk(root, folder)
    files = sorted(folder.files)
    if folder.pictures:
        others = [file for file in files if os.path.splitext(file)[0] not in folder.pictures]
        if any(file.lower().endswith(ARRAY_EXTENSIONS) for file in others):
            logger.warning("%s holds images; files beside them such as %s are passed over", root, others[0])
        return []
    arrays = [file for file in files if file.lower().endswith(ARRAY_EXTENSIONS)]
    partners = {find_metadata(file) for file in arrays}
    tables = [file for file in files if file not in partners and file not in arrays]
    chosen = sorted([*arrays, *(file for file in tables if has_embeddings(file, EMBEDDING_SIZE, column))])
    of_images = [file for file in chosen if not _is_of_text(os.path.relpath(file, root))]
    if chosen and not of_images:
        raise ConfigurationError(f"{root} holds embeddings of text only, such as {chosen[0]}; name a file to score it")
    if len(of_images) < len(chosen):
        logger.info("%s: %d files of text embeddings are passed over", root, len(chosen) - len(of_images))
    return of_images


def _walk(root: str, into: _Folder) -> None:
    for folder, folders, files in os.walk(root):
        tables = [name for name in folders if name.lower().endswith(".lance")]
        folders[:] = [name for name in folders if not name.startswith((".", "_")) and name not in tables]
        for name in [*tables, *files]:
            path = os.path.join(folder, name)
            stem, extension = os.path.splitext(path)
            if name.startswith((".", "_")):
                continue
            if extension.lower() in EXTENSIONS_OF_EMBEDDINGS:
                into.files.append(path)
            elif name.lower().endswith(TAR_EXTENSIONS) or extension[1:].lower() in EXTENSIONS:
                into.pictures.add(stem)


def _is_embedding_file(path: str) -> bool:
    lower = path.lower().rstrip("/")
    if lower.endswith(".lance"):
        return os.path.isdir(path)
    return lower.endswith(EXTENSIONS_OF_EMBEDDINGS) and os.path.isfile(path)


def _is_of_text(path: str) -> bool:
    return any(re.match(r"(text|txt|caption)s?[_-]", part.lower()) for part in Path(path).parts)


def _size(path: str) -> int:
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(f, name)) for f, _, names in os.walk(path) for name in names)
    return os.path.getsize(path) if os.path.exists(path) else 0
