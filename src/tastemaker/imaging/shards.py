"""Shards: the samples of a tar or of a table with pictures, with the bytes of their members.

The headers of a local shard are read first, so a sample is complete wherever its members lie. A shard at a URL is read
in one pass. A damaged archive yields what is whole in it, and says what is not.
"""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from tastemaker.errors import Problem, ReasonKind, UnreadableImageError
from tastemaker.imaging.keys import Grouping, Sample
from tastemaker.imaging.pictures import PictureTable
from tastemaker.imaging.readers import TAR_EXTENSIONS, open_shard
from tastemaker.imaging.tables import TABLE_EXTENSIONS, is_table
from tastemaker.imaging.tars import HeaderWalk, Member
from tastemaker.storage import Options, public_url
from tastemaker.storage.place import Place
from tastemaker.storage.ranges import Ranges, RangesFile

SHARD_EXTENSIONS = (*TAR_EXTENSIONS, *TABLE_EXTENSIONS)

WINDOW_BYTES = 2**25
"""The members of a key in a remote shard lie within so many bytes, or those behind are late."""

_READ_AHEAD = 2**16
"""Bytes that are read at once where all samples of a local tar are read: several samples, where these are small."""

_MAX_SPAN_BYTES = 2**18
"""Members that lie together within so many bytes are read at once. A copy of more would cost more than it saves."""


def read_at_ranges(
    path: str, samples: list[Sample], options: Options | None = None
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield samples with the bytes of their members, as `read_samples` does, reading nothing else of the shard.

    Args:
        path: Of the shard.
        samples: Where their members lie, from an earlier reading of the same shard.
        options: Settings of the URL's store.

    Raises:
        OSError: The file cannot be opened or read.
    """
    if is_table(path):
        yield from _read_rows(path, samples, options)
        return
    with contextlib.closing(open_shard(path, options)) as reader:
        yield from read_in_one_pass(reader, samples) if reader.compressed else _read_each(reader, samples)


def is_shard(path: str) -> bool:
    """Return whether a path or URL is called like a shard: a tar, or a table, which may hold pictures."""
    return public_url(path).lower().endswith(SHARD_EXTENSIONS)


def read_samples(
    path: str, options: Options | None = None, column: str | None = None
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield every sample of a shard with the bytes of its members, in the order of the shard.

    A cut or damaged shard, and an empty one, end with a sample of an empty key whose ``problem`` says so. Of a local
    shard all headers are read before the first sample. A remote one is streamed, see `read_stream`.

    Args:
        path: A tar, perhaps compressed (`TAR_EXTENSIONS`), or a table with pictures; a local path or a URL.
        options: Settings of the URL's store.
        column: Of a table, the column with the pictures; None to recognise it.

    Yields:
        The sample, and member name -> bytes. A member that the shard ends in the middle of is missing there and
        named in ``problem``, a sidecar in ``notes``. Of a sample that has a problem, members need not be there.
        Sidecars that give no column need not either where they are large.

    Raises:
        OSError: The file cannot be opened or read.
    """
    if is_table(path):
        yield from _read_table(path, column, options)
        return
    is_streamed = Place.at(path, options).local_path is None
    with contextlib.closing(open_shard(path, options, ahead=is_streamed)) as reader:
        yield from read_stream(reader, WINDOW_BYTES if is_streamed else None)


def read_member(path: str, member: Member, options: Options | None = None) -> bytes:
    """Return the bytes of one member of a shard, or of a loose file; fewer or none where they are not there any more.

    Raises:
        OSError: The file cannot be opened or read.
        UnreadableImageError: It is a table, and damaged.
    """
    [(_, data)] = read_at_ranges(path, [Sample("", image=member)], options)
    return data.get(member.name, b"")


def _read_table(path: str, column: str | None, options: Options | None) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    try:
        with PictureTable(Place.at(path, options), column) as table:
            yield from table.samples()
    except UnreadableImageError as error:
        yield Sample("", problem=Problem(ReasonKind.DAMAGED_SHARD, f"damaged table: {error}")), {}


def _read_rows(path: str, samples: list[Sample], options: Options | None) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield samples of a table again, with the members that they have now."""
    with PictureTable(Place.at(path, options)) as table:
        found = {row: data for row, _, data in table.read([sample.members()[0].offset for sample in samples])}
    for sample in samples:
        data = found.get(sample.members()[0].offset, {})
        yield sample, {member.name: data[member.name] for member in sample.members() if member.name in data}


_CUT_OFF = Problem(ReasonKind.MISSING, "the shard cannot be read behind it, so that members may lack")


def read_stream(reader: Ranges, window_bytes: int | None) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield every sample of a tar, in its order, with a bounded memory.

    With a window the tar is read in one pass. A sample is given out once the walk over the headers is a window behind
    its last member, or at the end. Its bytes then lie in the blocks that the reader holds; those that do not any more
    are requested again by their range. A member that comes later than that begins a sample of its own, whose
    ``problem`` says so.

    Args:
        reader: Of the tar.
        window_bytes: How far apart the members of a key may lie; None to read all headers first, and then the members,
            of a compressed tar in the order of the file.

    Raises:
        OSError: The tar cannot be read on; the samples before have been given out.
    """
    walk, grouping = HeaderWalk(reader), Grouping()
    waiting: deque[Sample] = deque()
    found_any = False
    try:
        for member in walk:
            if begun := grouping.add(member):
                waiting.append(begun)
                found_any = True
            if window_bytes is None:
                continue
            while waiting and member.offset - _end_of(waiting[0]) > window_bytes:
                yield from _give_out(reader, grouping.finish(waiting.popleft()))
    except OSError:
        if waiting:
            waiting[-1].problem = waiting[-1].problem or _CUT_OFF
        while waiting:
            yield from _give_out(reader, grouping.finish(waiting.popleft()))
        raise
    if window_bytes is None:
        samples = [finished for sample in waiting for finished in grouping.finish(sample)]
        waiting.clear()
        yield from read_in_one_pass(reader, samples) if reader.compressed else _read_each(reader, samples, ahead=True)
    while waiting:
        yield from _give_out(reader, grouping.finish(waiting.popleft()))
    yield from report_damage(reader, walk.damage, found_any=found_any)


def _end_of(sample: Sample) -> int:
    return max(member.offset + member.size for member in sample.sidecars.values())


def _give_out(reader: Ranges, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    for sample in samples:
        try:
            yield sample, read_members(reader, sample)
        except OSError as error:
            sample.problem = Problem(ReasonKind.MISSING, f"the shard cannot be read: {error}")
            yield sample, {}


def report_damage(reader: Ranges, damage: str, *, found_any: bool) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Yield the sample of an empty key that says what is wrong with a shard that was read to its end, if anything."""
    if reader.damage:
        damage = f"damaged shard: {reader.damage}"
    if not found_any and not damage:
        damage = "empty shard: there are no images in it"
    if damage:
        yield Sample("", problem=Problem(ReasonKind.DAMAGED_SHARD, damage)), {}


def _read_each(
    reader: Ranges, samples: list[Sample], *, ahead: bool = False
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    small = io.BufferedReader(RangesFile(reader), _READ_AHEAD) if ahead else None
    for sample in samples:
        yield sample, read_members(reader, sample, small)


def read_members(reader: Ranges, sample: Sample, ahead: BinaryIO | None = None) -> dict[str, bytes]:
    """Return member name -> bytes of a sample without a problem, of those members that are read with the picture.

    An image that is not all there becomes the sample's problem, a sidecar a note of it.
    """
    data: dict[str, bytes] = {}
    if sample.problem:
        return data
    members = sample.read_together(streams=reader.compressed)
    start, end = _span(members)
    if end - start > _MAX_SPAN_BYTES:
        for member in members:
            _keep(reader.read_at(member.offset, member.size), member, sample, data)
        return data
    if ahead is not None and end - start < _READ_AHEAD:  # to take many bytes out of a larger read would be a copy more
        ahead.seek(start)
        span = ahead.read(end - start)
    else:
        span = reader.read_at(start, end - start)
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


def read_in_one_pass(reader: Ranges, samples: list[Sample]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Read members in the order of the file, and give out each sample once it is complete.

    What waits in memory is what lies between the members of one sample: nothing in an ordinary shard.
    """
    read = {id(sample): [] if sample.problem else sample.read_together(streams=reader.compressed) for sample in samples}
    wanted = [(member, sample) for sample in samples for member in read[id(sample)]]
    wanted.sort(key=lambda pair: pair[0].offset, reverse=True)
    held: dict[int, dict[str, bytes]] = {id(sample): {} for sample in samples}
    for sample in samples:
        last = max((member.offset for member in read[id(sample)]), default=-1)
        while wanted and wanted[-1][0].offset <= last:
            member, owner = wanted.pop()
            _keep(reader.read_at(member.offset, member.size), member, owner, held[id(owner)])
        yield sample, held.pop(id(sample))


def _keep(content: bytes, member: Member, sample: Sample, data: dict[str, bytes]) -> None:
    """Put a member's bytes into ``data``; say where they are not all there."""
    cut = f"truncated: the shard ends inside {member.name!r}"
    if len(content) == member.size:
        data[member.name] = content
    elif member is sample.image:
        sample.problem = sample.problem or Problem(ReasonKind.DAMAGED_SHARD, cut)
    else:
        sample.notes.append(cut)
