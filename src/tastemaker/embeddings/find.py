"""Which files hold embeddings, and which table says more about each row of them."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa

from tastemaker.embeddings.arrays import ArraySource, EmbeddingSource
from tastemaker.embeddings.tables import TableSource
from tastemaker.errors import ConfigurationError, ModelError, RemoteError, UnreadableImageError
from tastemaker.imaging.formats import EXTENSIONS
from tastemaker.imaging.pictures import holds_pictures
from tastemaker.imaging.readers import TAR_EXTENSIONS
from tastemaker.imaging.tables import TABLE_EXTENSIONS, Table, carried_columns, is_table, is_text
from tastemaker.models.published import DEFAULT_SCORER, find_scorer
from tastemaker.models.records import Scorer
from tastemaker.stages.partition import distinct_name
from tastemaker.storage import Options, public_url, relative_to, without_repeats
from tastemaker.storage.inputs import find_inputs, source_of
from tastemaker.storage.place import Entry, Place
from tastemaker.tasks import FileGroupTask, Partition

ARRAY_EXTENSIONS = (".npy", ".npz")
EXTENSIONS_OF_EMBEDDINGS = (*ARRAY_EXTENSIONS, *TABLE_EXTENSIONS)

_IMAGE_EXTENSIONS = (*TAR_EXTENSIONS, *(f".{extension}" for extension in EXTENSIONS))

_ASKED_AT_ONCE = 16
"""Files that are looked at at the same time: each costs a server a request or two."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingFile:
    """A file of embeddings.

    Attributes:
        path: The path of the file, or its URL.
        root: The input folder in which it was found.
        metadata: The Parquet file with a row for each embedding; None if there is none.
        column: The name of the array or column, if the user gave one.
        caption_column: The name of the column with the captions, if the user gave one.
        storage_options: Settings of the store, for a URL.
        dimension: Numbers in an embedding.
    """

    path: str
    root: str
    metadata: Place | None = None
    column: str | None = None
    storage_options: Options | None = field(default=None, repr=False)
    dimension: int = find_scorer().backbone.dimension
    caption_column: str | None = None

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place.at(self.path, self.storage_options)

    @property
    def extension(self) -> str:
        """Its extension, with the dot, in lower case."""
        return os.path.splitext(public_url(self.path).rstrip("/"))[1].lower()

    def open(self) -> EmbeddingSource:
        """Return the file, opened far enough to know what is in it; see `EmbeddingSource` for the errors."""
        kind = ArraySource if self.extension in ARRAY_EXTENSIONS else TableSource
        return kind(self.place, self.column, self.dimension)

    def metadata_schema(self) -> tuple[pa.Schema, int]:
        """Return the columns of the metadata that go into the rows, and how many rows it has."""
        assert self.metadata is not None
        with Table(self.metadata) as table:
            return carried_columns(table.schema), table.rows


@dataclass
class EmbeddingFileTask(FileGroupTask):
    """A file of embeddings and its metadata, as a partition."""

    file: EmbeddingFile = field(kw_only=True)


def find_embeddings(
    inputs: Iterable[str],
    column: str | None = None,
    storage_options: Options | None = None,
    scorer: str | Scorer = DEFAULT_SCORER,
    find: Callable[[Place], list[Entry]] = find_inputs,
    caption_column: str | None = None,
) -> list[EmbeddingFile]:
    """Return the files of embeddings among some inputs, in the order of their paths; none where the inputs are images.

    In a folder these are all ``.npy`` and ``.npz`` files and all tables that have a column of embeddings; embeddings
    of text are passed over. In a folder that holds images or tars, such files lie beside images, and it counts as
    images.

    Args:
        inputs: Files, folders and globs, or URLs of them.
        column: Name of the array or column that holds the embeddings.
        storage_options: Of URLs.
        scorer: What they are to be scored by; its backbone says how many numbers an embedding has.
        find: Finds the files that a place stands for.
        caption_column: Name of the column with the captions that come with the embeddings.

    Raises:
        ConfigurationError: Images and embeddings together; metadata of another length, or without that column.
        ModelError: A file holds something else than embeddings of that dimension.
        RemoteError: A server does not answer.
    """
    found: list[EmbeddingFile] = []
    images: list[str] = []
    size = find_scorer(scorer).backbone.dimension
    for path in map(os.fspath, inputs):
        below = _files_in(EmbeddingFile(path, "", None, column, storage_options, size, caption_column), find)
        found += below
        if not below:
            images.append(path)
    if found and images:
        raise ConfigurationError(
            f"{found[0].place} holds embeddings and {Place.at(images[0])} does not; score images and "
            "embeddings in two runs"
        )
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        files = list(pool.map(_with_metadata, without_repeats(found)))
    _warn_of_missing_metadata(files)
    return files


def group_embeddings(files: list[EmbeddingFile]) -> list[FileGroupTask]:
    """Return a partition for each file, named after it as shards are (see docs/rows.md)."""
    owners: dict[str, str] = {}
    groups: list[FileGroupTask] = []
    for index, file in enumerate(files):
        stem = os.path.splitext(file.place.relative_to(Place.at(file.root, file.storage_options)))[0]
        name = distinct_name(stem, str(index), owners)
        places = [file.place, *([file.metadata] if file.metadata else [])]
        sources = tuple(map(source_of, places))
        source_bytes = sum(max(size, 0) for _, size, _ in sources)
        partition = Partition(
            name,
            file.root,
            name,
            files=sources,
            source_bytes=source_bytes,
            storage_options=file.storage_options,
        )
        folder = file.place.parent
        dataset = (folder.name if folder.local_path is None else folder.local_path.resolve().name).lower() or "dataset"
        paths = [place.address for place in places]
        groups.append(EmbeddingFileTask(dataset, paths, task_id=str(index), partition=partition, file=file))
    return groups


def _files_in(top: EmbeddingFile, find: Callable[[Place], list[Entry]]) -> list[EmbeddingFile]:
    """Return the files of embeddings that an input stands for; none where it is, or holds, images.

    A pattern of URLs is looked up only where it may mean embeddings: a listing takes long.
    """
    place, is_web = top.place, top.path.startswith("http")
    may_fit = place.local_path is not None or top.path.endswith((*EXTENSIONS_OF_EMBEDDINGS, "*"))
    is_known = top.extension in EXTENSIONS_OF_EMBEDDINGS
    if (
        str(place).lower().endswith(_IMAGE_EXTENSIONS)
        or (place.is_pattern and not may_fit)
        or (is_web and not is_known)
    ):
        return []
    try:
        inputs = find(place)
    except RemoteError as error:
        if is_known:
            raise
        raise ConfigurationError(str(error)) from error
    if len(inputs) == 1 and inputs[0].is_named:
        file = replace(top, path=inputs[0].path, root=inputs[0].root)
        return [file] if file.extension in EXTENSIONS_OF_EMBEDDINGS and not _has_pictures(file) else []
    return _choose(inputs, top)


def _is_private(file: Entry) -> bool:
    names = relative_to(file.path, file.root).split("/")
    return not file.is_named and (bool(file.passed_over) or any(name.startswith(("_", ".")) for name in names))


def _choose(inputs: list[Entry], top: EmbeddingFile) -> list[EmbeddingFile]:
    """Return the files of embeddings among those of a folder; none where it is one of images."""
    images: list[Entry] = []
    rest: list[Entry] = []
    for entry in inputs:  # there may be millions
        (images if entry.path.lower().endswith(_IMAGE_EXTENSIONS) else rest).append(entry)
    files = [replace(top, path=entry.path, root=entry.root) for entry in rest if not _is_private(entry)]
    arrays = [file for file in files if file.extension in ARRAY_EXTENSIONS]
    if not all(map(_is_private, images)):
        pictures = {os.path.splitext(entry.path)[0] for entry in images} if arrays else set()
        others = [file.path for file in arrays if os.path.splitext(file.path)[0] not in pictures]
        if others:
            logger.warning("%s holds images; files beside them such as %s are passed over", top.path, others[0])
        return []
    tables = [file for file in files if is_table(file.path)]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        if any(pool.map(_has_pictures, tables)):
            return []
        chosen = arrays + [
            file for file, is_one in zip(tables, pool.map(_has_embeddings, tables), strict=True) if is_one
        ]
    of_images = [file for file in chosen if not _is_of_text(file)]
    if chosen and not of_images:
        raise ConfigurationError(
            f"{top.path} holds embeddings of text only, such as {chosen[0].path}; name a file to score it"
        )
    return sorted(of_images, key=lambda file: file.path)


def _has_pictures(file: EmbeddingFile) -> bool:
    """Return whether a file is a table with pictures; a damaged one is taken for embeddings."""
    try:
        return is_table(file.path) and holds_pictures(file.place, file.column)
    except (UnreadableImageError, OSError):
        return False


def _has_embeddings(file: EmbeddingFile) -> bool:
    """Return whether a table has a column that would be taken for embeddings. An unreadable table has none."""
    try:
        file.open()
    except ConfigurationError:
        return file.column is None  # several could be meant: whoever reads it says so
    except (ModelError, UnreadableImageError, OSError):
        return False
    return True


def _with_metadata(file: EmbeddingFile) -> EmbeddingFile:
    """Return the file with its metadata, looked at as a whole; what is only damaged becomes a row when it is read."""
    found = _find_metadata(file) if file.extension in ARRAY_EXTENSIONS else None
    file = replace(file, metadata=found)
    try:
        source = file.open()
        promised = source.rows
        schema, rows = file.metadata_schema() if found else (source.schema, promised)
    except (UnreadableImageError, OSError):
        return file
    if rows != promised:
        raise ConfigurationError(
            f"{found} has {rows:,} rows and {file.place} {promised:,} embeddings, so that nothing tells "
            "which row belongs to which; move the metadata away to score without it"
        )
    name = file.caption_column
    if name is not None and (name not in schema.names or not is_text(schema.field(name).type)):
        texts = [column.name for column in schema if is_text(column.type)]
        raise ConfigurationError(
            f"{found or file.place} has no column {name!r} of texts for captions; it has {', '.join(texts) or 'none'}"
        )
    return file


def _find_metadata(file: EmbeddingFile) -> Place | None:
    """Return the Parquet file with a row for each embedding of an array file, None where there is none.

    For ``set/img_emb/img_emb_7.npy`` that is ``metadata_7.parquet`` in ``set/metadata`` (clip-retrieval), in
    ``set/set-metadata`` (as LAION publishes it), or beside the array; or ``img_emb_7.parquet`` beside it (DataComp).
    """
    if str(file.place) != file.path and "?" in file.path:
        return None  # a signature is of one file
    folder, stem = file.place.parent, os.path.splitext(file.place.name)[0]
    local = folder.local_path
    above = folder.parent if local is None else Place.at(str(local.resolve().parent))
    candidates = [folder / f"{stem}.parquet"]
    if number := re.search(r"\d+$", stem):
        name = f"metadata_{number[0]}.parquet"
        candidates += [above / "metadata" / name, above / f"{above.name}-metadata" / name, folder / name]
    return next(filter(_is_there, candidates), None)


def _is_there(place: Place) -> bool:
    try:
        return place.is_file()
    except RemoteError as error:
        if str(place).startswith("http") and getattr(error.__cause__, "status", None) in (401, 403):
            return False  # many web servers say so of what is not there
        raise


def _warn_of_missing_metadata(files: list[EmbeddingFile]) -> None:
    """Say which files have no metadata though others of their folder have: their keys and addresses are lost."""
    arrays: dict[str, list[EmbeddingFile]] = defaultdict(list)
    for file in files:
        if file.extension in ARRAY_EXTENSIONS:
            arrays[str(file.place.parent)].append(file)
    for folder, siblings in arrays.items():
        lacking = [file.place.name for file in siblings if file.metadata is None]
        if 0 < len(lacking) < len(siblings):
            logger.warning(
                "%s: %d of %d files have no metadata (%s), so that their rows have no keys, addresses or captions; put "
                "it there and score again: only these files are then read",
                *(folder, len(lacking), len(siblings), ", ".join(lacking[:5])),
            )


def _is_of_text(file: EmbeddingFile) -> bool:
    names = relative_to(file.path, file.root).lower().split("/")
    return any(re.match(r"(text|txt|caption)s?[_-]", name) for name in names)
