"""Samples of a remote shard while it is read: one pass, in the order of the shard, with a bounded memory.

A sample is given out once the walk over the headers is a window (32 MiB) behind its last member, or at the end of the
shard. Its bytes then lie in the blocks that the reader holds; those that do not any more are requested again by their
range. So the samples are those that a local file gives, as long as the members of a key lie within a window.

Shards that are not laid out so (all pictures first, then all captions) are told from their first window and their last
megabyte: there, most keys have no picture. All headers of such a shard are walked before its first sample is given out,
as those of a local file are. What neither finds, a member that turns up behind a window, is an error: the shard has to
be read again, with a window that has no end.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator

from tastemaker.imaging.readers import BytesReader, ShardReader, open_stream
from tastemaker.imaging.shards import (
    Grouping,
    Sample,
    finish_sample,
    image_extension,
    read_in_one_pass,
    read_members,
    report_damage,
)
from tastemaker.imaging.tars import HeaderWalk
from tastemaker.storage import Options

WINDOW_BYTES = 2**25
_TAIL_BYTES = 2**20

Samples = Iterator[tuple[Sample, dict[str, bytes]]]


def stream_samples(url: str, options: Options | None = None, window_bytes: int = WINDOW_BYTES) -> Samples:
    """Yield every sample of a remote shard with the bytes of its members, in the order of the shard.

    Args:
        url: The shard.
        options: Arguments of its file system.
        window_bytes: How far apart the members of a key may lie.

    Raises:
        OSError: The shard cannot be opened, or not be read on; the samples before have been given out.
        FarApartError: The members of a key lie further apart.
    """
    reader = open_stream(url, options)
    try:
        yield from read_stream(reader, window_bytes)
    finally:
        reader.close()


def read_stream(reader: ShardReader, window_bytes: int) -> Samples:
    """Yield the samples of a shard from any reader, as `stream_samples` does."""
    walk, grouping = HeaderWalk(reader), Grouping()
    waiting: deque[Sample] = deque()
    found_any = is_checked = False
    try:
        for member in walk:
            if begun := grouping.add(member):
                waiting.append(begun)
                found_any = True
            while waiting and member.offset - _end_of(waiting[0]) > window_bytes:
                if not is_checked and _is_scattered(reader, list(waiting)):
                    window_bytes = sys.maxsize
                    break
                is_checked = True
                yield _give_out(reader, waiting.popleft())
    except OSError:
        if waiting:
            waiting[-1].problem = waiting[-1].problem or "the shard cannot be read behind it, so that members may lack"
        while waiting:
            yield _give_out(reader, waiting.popleft())
        raise
    if reader.streams and window_bytes == sys.maxsize:
        for sample in waiting:
            finish_sample(sample)
        yield from read_in_one_pass(reader, list(waiting))
        waiting.clear()
    while waiting:
        yield _give_out(reader, waiting.popleft())
    yield from report_damage(reader, walk.damage, found_any=found_any)


def _end_of(sample: Sample) -> int:
    return max(member.offset + member.size for member in sample.sidecars.values())


def _give_out(reader: ShardReader, sample: Sample) -> tuple[Sample, dict[str, bytes]]:
    finish_sample(sample)
    try:
        return sample, read_members(reader, sample)
    except OSError as error:
        sample.problem = f"the shard cannot be read: {error}"
        return sample, {}


def _is_scattered(reader: ShardReader, first: list[Sample]) -> bool:
    """Return whether most of the first samples, or most of the last, have no picture among the members close by."""
    if _most_lack_pictures(first[:-1]):
        return True
    size = reader.size_bytes()
    if size is None or size <= _TAIL_BYTES:
        return False
    grouping = Grouping()
    tail = BytesReader(reader.peek_at(size - _TAIL_BYTES, _TAIL_BYTES))
    last = [sample for member in HeaderWalk(tail) if (sample := grouping.add(member))]
    return _most_lack_pictures(last[1:])  # the first may have begun before


def _most_lack_pictures(samples: list[Sample]) -> bool:
    lacking = sum(image_extension(sample.sidecars) is None for sample in samples)
    return 2 * lacking > len(samples)
