"""WebDataset shards: the members of a tar grouped by key, and their bytes.

The headers are read first, so a sample is complete wherever its members lie, and members that nobody wants are
never read. A damaged archive yields what is whole in it, and says what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tastemaker.imaging.decode import EXTENSIONS
from tastemaker.imaging.tars import MAX_MEMBER_BYTES as MAX_MEMBER_BYTES
from tastemaker.imaging.tars import GzipReader, walk_headers
from tastemaker.imaging.tars import Member as Member
from tastemaker.imaging.tars import ShardReader as ShardReader
from tastemaker.imaging.tars import open_shard as open_shard

COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz")
TAR_EXTENSIONS = (".tar", *COMPRESSED_EXTENSIONS)

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
    """

    key: str
    image: Member | None = None
    sidecars: dict[str, Member] = field(default_factory=dict)
    problem: str = ""

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


def read_at_ranges(path: str, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield samples with the bytes of their members, as `read_samples` does, reading nothing else of the shard.

    Args:
        path: Of the shard.
        samples: Where their members lie, from an earlier reading of the same shard.

    Raises:
        OSError: The file cannot be opened or read.
    """
    reader = open_shard(path)
    try:
        if isinstance(reader, GzipReader):
            yield from _read_in_one_pass(reader, samples)
        else:
            yield from _read_each(reader, samples)
    finally:
        reader.close()


def read_samples(path: str) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield every sample of a shard with the bytes of its members, in the order of the shard.

    A cut or damaged shard, and an empty one, end with a sample of an empty key whose ``problem`` says so.

    Args:
        path: ``.tar``, or ``.tar.gz`` / ``.tgz``.

    Yields:
        The sample, and member name -> bytes. A member that the shard ends in the middle of is missing there and
        named in ``problem``; of a sample that has a problem, members need not be there.

    Raises:
        OSError: The file cannot be opened or read.
    """
    reader = open_shard(path)
    try:
        members, damage = walk_headers(reader)
        samples = group_samples(members)
        pick = _read_in_one_pass if isinstance(reader, GzipReader) else _read_each
        yield from pick(reader, samples)
        if isinstance(reader, GzipReader) and reader.damage:
            damage = f"damaged shard: {reader.damage}"
        if not samples and not damage:
            damage = "empty shard: there are no images in it"
        if damage:
            yield Sample("", problem=damage), {}
    finally:
        reader.close()


def group_samples(members: list[Member]) -> list[Sample]:
    """Return the samples of a shard, in the order of their first members.

    Names without a key (hidden files) and WebDataset's own ``__meta__`` names are left out. A second member with
    the same name begins a second sample, which carries a problem.
    """
    samples: list[Sample] = []
    current: dict[str, Sample] = {}
    for member in members:
        key, extension = split_key(member.name)
        sample = current.get(key)
        if sample is None or extension in sample.sidecars:
            problem = f"duplicate key: another sample of this shard is called {key!r}" if sample else ""
            if not sample and _has_no_key(key) and not is_unsafe_name(member.name):
                continue
            sample = current[key] = Sample(key, problem=problem)
            samples.append(sample)
        sample.sidecars[extension] = member
    for sample in samples:
        _choose_image(sample)
    return samples


def _has_no_key(key: str) -> bool:
    base = key.rpartition("/")[2]
    return not base or (base.startswith("__") and base.endswith("__"))


def _choose_image(sample: Sample) -> None:
    """Take the picture out of the sidecars, and note what is wrong with the sample."""
    for member in sample.sidecars.values():
        if is_unsafe_name(member.name):
            sample.problem = "unsafe name: it leads out of the folder that the shard is unpacked to"
        elif member.problem and not sample.problem:
            sample.problem = member.problem
    chosen = _image_extension(sample.sidecars)
    if chosen is not None:
        sample.image = sample.sidecars.pop(chosen)
    elif not sample.problem:
        sample.problem = "no image among the members of this key"


def _image_extension(by_extension: dict[str, Member]) -> str | None:
    """Return the extension of the picture: ``jpg`` before ``seg.png``, any known one before a look at the content."""
    known = [e for e in by_extension if e.rpartition(".")[2].lower() in EXTENSIONS]
    if len(known) > 1:
        return min(known, key=lambda e: ("." in e, _PREFERENCE.index(e.lower()) if e.lower() in _PREFERENCE else 9))
    return known[0] if known else next((e for e, member in by_extension.items() if member.looks_like_image), None)


def _read_each(reader: ShardReader, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    for sample in samples:
        data: dict[str, bytes] = {}
        members = [] if sample.problem else sample.members()
        start, end = _span(members)
        if end - start <= _MAX_SPAN_BYTES:
            span = reader.read_at(start, end - start)
            for member in members:
                at = member.offset - start
                _keep(span[at : at + member.size], member, sample, data)
        else:
            for member in members:
                _keep(reader.read_at(member.offset, member.size), member, sample, data)
        yield sample, data


def _span(members: list[Member]) -> tuple[int, int]:
    """Return where the bytes of the members begin and end."""
    if not members:
        return 0, 0
    return min([member.offset for member in members]), max([member.offset + member.size for member in members])


def _read_in_one_pass(reader: ShardReader, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
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
