"""What a file is, by its name and its first bytes; what is passed over, and what helps to have it read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise

from tastemaker.imaging.formats import EXTENSIONS, sniff_format
from tastemaker.imaging.tars import starts_tar
from tastemaker.storage import base_name

HEAD_BYTES = 512
"""Bytes of a file that tell what it is."""

_BESIDE = "txt caption json jsonl csv tsv xml xmp yaml yml cls npy npz md html htm log ini aae thm pp3 dop vtt srt"
BESIDE = frozenset(_BESIDE.split())
"""Extensions of files that lie beside pictures and say something of them. They are not counted as passed over."""

_JUNK = frozenset({"@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "recycler", "__macosx"})
_CATALOGUES = (".lrdata", ".lrcat-data", ".aplibrary", ".cocatalog", ".photoslibrary", ".photolibrary")
_PHOTOS_ORIGINALS = ("originals", "masters")

_PICTURES = "jxl jp2 j2k jpx jpf jpm heics psd psb svg pdf eps ai exr hdr ico tga ppm pgm pbm pnm qoi pcx dds"
_VIDEOS = "mp4 mov avi mkv webm m4v mpg mpeg wmv 3gp mts m2ts"
_ARCHIVES = "zip cbz cbr 7z rar gz bz2 xz zst"
_DATASETS = "mds tfrecord tfrecords mdb lmdb beton rec idx lance arrow feather ipc parquet"
_EMBEDDINGS = "pt pth h5 hdf5 pkl pickle safetensors mat"
_LISTS = "txt csv tsv lst list"
_ADVICE = {
    "convert such pictures to PNG or JPEG": _PICTURES,
    "take the frames that you want out of videos, with ffmpeg for example": _VIDEOS,
    "unpack archives first, or make tars of them": _ARCHIVES,
    "export the pictures of data sets of this kind to tars, Parquet or a folder": _DATASETS,
    "save embeddings as .npy or as a column of a Parquet table, and pictures as tars or Parquet": _EMBEDDINGS,
    "if a file lists the paths of pictures, say --files-from FILE": _LISTS,
}
_ADVICE_OF = {f".{extension}": advice for advice, extensions in _ADVICE.items() for extension in extensions.split()}
_ADVICE_OF["linked folder"] = "name a linked folder to have it read, too"

_OTHERS = (
    *((b"PK\x03\x04", ".zip"), (b"PK\x05\x06", ".zip"), (b"Rar!\x1a\x07", ".rar"), (b"7z\xbc\xaf\x27\x1c", ".7z")),
    *((b"\x89HDF\r\n\x1a\n", ".h5"), (b"PAR1", ".parquet"), (b"ARROW1", ".arrow"), (b"\xff\x0a", ".jxl")),
    *((b"\x00\x00\x00\x0cJXL ", ".jxl"), (b"\x00\x00\x00\x0cjP  ", ".jp2"), (b"\xff\x4f\xff\x51", ".j2k")),
)


def extension_of(path: str) -> str:
    """Return the last extension of a path or URL, lower case, with its dot; empty where there is none."""
    return os.path.splitext(base_name(path))[1].lower()


def is_picture_name(path: str) -> bool:
    """Return whether a file is called like a picture in a format that is read."""
    return extension_of(path)[1:] in EXTENSIONS


def is_known_other(path: str) -> bool:
    """Return whether a file's extension says that it is neither a picture that is read nor a shard."""
    return extension_of(path) in _ADVICE_OF or extension_of(path)[1:] in BESIDE


def sniff_kind(head: bytes) -> str:
    r"""Return what a file is by its first `HEAD_BYTES`: ``picture``, ``tar``, another extension, or nothing.

    Example:
        >>> sniff_kind(b"GIF89a..."), sniff_kind(b"PK\x03\x04..."), sniff_kind(b"#!/bin/sh")
        ('picture', '.zip', '')
    """
    if sniff_format(head) is not None:
        return "picture"
    if starts_tar(head):
        return "tar"
    return next((extension for mark, extension in _OTHERS if head.startswith(mark)), "")


def junk_above(path: str) -> str | None:
    """Return the folder of thumbnails, of deleted files or of a catalogue that a file lies in; None where in none.

    Args:
        path: Of the file below the input folder, with forward slashes.

    Example:
        >>> junk_above("2020/@eaDir/a.jpg/THUMB.jpg"), junk_above("X.photoslibrary/originals/a.jpg")
        ('@eaDir', None)
    """
    folders = path.split("/")
    for folder, below in pairwise(folders):
        if folder.lower() in _JUNK:
            return folder
        if folder.lower().endswith(_CATALOGUES) and below.lower() not in _PHOTOS_ORIGINALS:
            return folder
    return None


def advise(passed_over: Iterable[str]) -> list[str]:
    """Return what helps to have files of some kinds read, each once."""
    return list(dict.fromkeys(_ADVICE_OF[kind] for kind in passed_over if kind in _ADVICE_OF))
