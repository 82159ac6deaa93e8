"""WebDataset shards: the members of a tar grouped by key, and their bytes.

The headers are read first, so a sample is complete wherever its members lie, and members that nobody wants are
never read. A damaged archive yields what is whole in it, and says what is not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.readers import (
    COMPRESSED_EXTENSIONS as COMPRESSED_EXTENSIONS,
    TAR_EXTENSIONS as TAR_EXTENSIONS,
    ShardReader as ShardReader,
    open_shard as open_shard,
)
from tastemaker.imaging.tars import MAX_MEMBER_BYTES as MAX_MEMBER_BYTES, Member as Member, Window, walk_headers
from tastemaker.storage import Options, is_remote, public_url

_READ_AHEAD = 2**16
"""Bytes that are read at once where all samples of a shard are read: several samples, where these are small."""

_MAX_SPAN_BYTES = 2**18
"""Members that lie together within so many bytes are read at once. A copy of more would cost more than it saves."""

_PREFERENCE = ("jpg", "jpeg", "png", "webp")
_STARTS_OUTSIDE = ("/", "\\")
_UNSAFE_NAME = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.($|[/\\])|\0")


_PROBLEMS_OF_SHARDS = re.compile(
    "unsafe name|duplicate key|no image among|truncated: the shard ends|damaged shard|a link, not|a sparse file|"
    r"it has [\d,]+ bytes, too many"
)
"""How the problems begin that lie in how a shard is made: reading a sample of it again does not change them."""


@dataclass(slots=True)
class Sample:
    """The members that share a key.

    Attributes:
        key: The WebDataset key: the member's name up to the first dot of its base name, folders kept.
        image: The member that is the picture; None where there is none.
        sidecars: Extension (after that first dot, as stored) -> every other member.
        problem: Why there is nothing to score; empty if there is.
        is_finished: Whether all members are there.
    """

    key: str
    image: Member | None = None
    sidecars: dict[str, Member] = field(default_factory=dict)
    problem: str = ""
    is_finished: bool = field(default=False, compare=False, repr=False)

    def members(self) -> list[Member]:
        """Return all members, the image first."""
        return [*([self.image] if self.image else ()), *self.sidecars.values()]


def split_key(name: str) -> tuple[str, str]:
    """Return the WebDataset key and the extension of a member's name.

    Example:
        >>> split_key("a.b/0001.left.jpg")
        ('a.b/0001', 'left.jpg')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def is_unsafe_name(name: str) -> bool:
    r"""Return whether a member's name leads out of the folder that it is unpacked to.

    Example:
        >>> [is_unsafe_name(name) for name in ("a/b.jpg", "a/../../b.jpg", "C:\\b.jpg")]
        [False, True, True]
    """
    if ".." not in name and name[:1] not in _STARTS_OUTSIDE and name[1:2] != ":" and "\0" not in name:
        return False  # most names, in a fraction of the time
    return _UNSAFE_NAME.search(name) is not None


def is_problem_of_the_shard(problem: str) -> bool:
    """Return whether a sample's problem lies in how its shard is made, and not in the bytes of its image.

    Example:
        >>> is_problem_of_the_shard("duplicate key: another sample"), is_problem_of_the_shard("not an image")
        (True, False)
    """
    return _PROBLEMS_OF_SHARDS.match(problem) is not None


def read_at_ranges(
    path: str, samples: list[Sample], options: Options | None = None
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield samples with the bytes of their members, as `read_samples` does, reading nothing else of the shard.

    Args:
        path: Of the shard.
        samples: Where their members lie, from an earlier reading of the same shard.
        options: Arguments of the URL's fsspec file system.

    Raises:
        OSError: The file cannot be opened or read.
    """
    reader = open_shard(path, options)
    try:
        yield from read_in_one_pass(reader, samples) if reader.streams else _read_each(reader, samples)
    finally:
        reader.close()


def is_shard(path: str) -> bool:
    """Return whether a path or URL is called like a shard."""
    return public_url(path).lower().endswith(TAR_EXTENSIONS)


def read_samples(
    path: str, options: Options | None = None, *, far_apart: bool = False
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield every sample of a shard with the bytes of its members, in the order of the shard.

    A cut or damaged shard, and an empty one, end with a sample of an empty key whose ``problem`` says so. A remote
    shard is streamed, see `tastemaker.imaging.streamed`.

    Args:
        path: A tar, perhaps compressed (`TAR_EXTENSIONS`); a local path or a URL.
        options: Arguments of the URL's fsspec file system.
        far_apart: Walk all headers of a remote shard before its first sample, as those of a local one are, so that the
            members of a key may lie anywhere.

    Yields:
        The sample, and member name -> bytes. A member that the shard ends in the middle of is missing there and
        named in ``problem``; of a sample that has a problem, members need not be there.

    Raises:
        OSError: The file cannot be opened or read.
        FarApartError: Members of a key in a remote shard lie too far apart to be read in one pass.
    """
    if is_remote(path):
        from tastemaker.imaging.streamed import WINDOW_BYTES, stream_samples

        yield from stream_samples(path, options, sys.maxsize if far_apart else WINDOW_BYTES)
        return
    reader = open_shard(path)
    try:
        members, damage = walk_headers(reader)
        samples = group_samples(members)
        window = Window(reader, _READ_AHEAD)
        yield from read_in_one_pass(reader, samples) if reader.streams else _read_each(reader, samples, window)
        yield from report_damage(reader, damage, found_any=bool(samples))
    finally:
        reader.close()


def report_damage(reader: ShardReader, damage: str, *, found_any: bool) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield the sample of an empty key that says what is wrong with a shard that was read to its end, if anything."""
    if reader.damage:
        damage = f"damaged shard: {reader.damage}"
    if not found_any and not damage:
        damage = "empty shard: there are no images in it"
    if damage:
        yield Sample("", problem=damage), {}


def group_samples(members: list[Member]) -> list[Sample]:
    """Return the samples of a shard, in the order of their first members.

    Names without a key (hidden files) and WebDataset's own ``__meta__`` names are left out. A second member with
    the same name begins a second sample, which carries a problem.
    """
    grouping = Grouping()
    samples = [sample for member in members if (sample := grouping.add(member))]
    for sample in samples:
        finish_sample(sample)
    return samples


class FarApartError(Exception):
    """A member turned up behind its sample, which was given out as complete."""


class Grouping:
    """Puts the members of a shard together by key, one after the other."""

    def __init__(self) -> None:
        self._current: dict[str, Sample] = {}

    def add(self, member: Member) -> Sample | None:
        """Return the sample that a member begins, None where it belongs to one that is there, or to none at all.

        Raises:
            FarApartError: It belongs to one that is finished.
        """
        key, extension = split_key(member.name)
        sample, problem = self._current.get(key), ""
        if sample is None:
            if _has_no_key(key) and not is_unsafe_name(member.name):
                return None
        elif extension in sample.sidecars or (sample.image and split_key(sample.image.name)[1] == extension):
            problem = f"duplicate key: another sample of this shard is called {key!r}"
        elif sample.is_finished:
            raise FarApartError
        else:
            sample.sidecars[extension] = member
            return None
        self._current[key] = begun = Sample(key, sidecars={extension: member}, problem=problem)
        return begun


def _has_no_key(key: str) -> bool:
    base = key.rpartition("/")[2]
    return not base or (base.startswith("__") and base.endswith("__"))


def finish_sample(sample: Sample) -> None:
    """Take the picture out of the sidecars, and note what is wrong with the sample; it has all its members."""
    sample.is_finished = True
    for member in sample.sidecars.values():
        if is_unsafe_name(member.name):
            sample.problem = "unsafe name: it leads out of the folder that the shard is unpacked to"
        elif member.problem and not sample.problem:
            sample.problem = member.problem
    chosen = image_extension(sample.sidecars)
    if chosen is not None:
        sample.image = sample.sidecars.pop(chosen)
    elif not sample.problem:
        sample.problem = "no image among the members of this key"


def image_extension(by_extension: dict[str, Member]) -> str | None:
    """Return the extension of the picture: ``jpg`` before ``seg.png``, any known one before a look at the content."""
    known = _known_extension(tuple(by_extension))
    return known or next((e for e, member in by_extension.items() if member.looks_like_image), None)


@lru_cache(maxsize=1024)
def _known_extension(extensions: tuple[str, ...]) -> str | None:
    known = [e for e in extensions if e.rpartition(".")[2].lower() in EXTENSIONS]
    if not known:
        return None
    return min(known, key=lambda e: ("." in e, _PREFERENCE.index(e.lower()) if e.lower() in _PREFERENCE else 9))


def _read_each(
    reader: ShardReader, samples: list[Sample], window: Window | None = None
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    for sample in samples:
        yield sample, read_members(reader, sample, window)


def read_members(reader: ShardReader, sample: Sample, window: Window | None = None) -> dict[str, bytes]:
    """Return member name -> bytes of a sample without a problem; what is not all there becomes its problem.

    Args:
        reader: Of the shard.
        sample: What is read.
        window: Of the reader; None where the samples before and behind this one are not wanted.
    """
    data: dict[str, bytes] = {}
    if sample.problem:
        return data
    members = sample.members()
    start, end = _span(members)
    if end - start > _MAX_SPAN_BYTES:
        for member in members:
            _keep(reader.read_at(member.offset, member.size), member, sample, data)
        return data
    # To take many bytes out of a window would be a copy more.
    read = window.read if window and end - start < _READ_AHEAD else reader.read_at
    span = read(start, end - start)
    for member in members:
        name, offset, size, *_ = member
        content = span[offset - start : offset - start + size]
        if len(content) == size:
            data[name] = content
        else:
            _keep(content, member, sample, data)
    return data


def _span(members: list[Member]) -> tuple[int, int]:
    """Return where the bytes of the members begin and end; a plain loop takes half the time of `min` and `max`."""
    start, end = members[0].offset, 0
    for member in members:
        if member.offset < start:
            start = member.offset
        if member.offset + member.size > end:
            end = member.offset + member.size
    return start, end


def read_in_one_pass(reader: ShardReader, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Read members in the order of the file, and give out each sample once it is complete.

    What waits in memory is what lies between the members of one sample: nothing in an ordinary shard.
    """
    wanted = [(member, sample) for sample in samples if not sample.problem for member in sample.members()]
    wanted.sort(key=lambda pair: pair[0].offset, reverse=True)
    held: dict[int, dict[str, bytes]] = {id(sample): {} for sample in samples}
    for sample in samples:
        last = -1 if sample.problem else max(member.offset for member in sample.members())
        while wanted and wanted[-1][0].offset <= last:
            member, owner = wanted.pop()
            _keep(reader.read_at(member.offset, member.size), member, owner, held[id(owner)])
        yield sample, held.pop(id(sample))


def _keep(content: bytes, member: Member, sample: Sample, data: dict[str, bytes]) -> None:
    """Put a member's bytes into ``data``, or a problem into ``sample`` where they are not all there."""
    if len(content) == member.size:
        data[member.name] = content
    else:
        sample.problem = sample.problem or f"truncated: the shard ends inside {member.name!r}"
