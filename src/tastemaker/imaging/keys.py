"""The members of a shard grouped by key: samples, what is wrong with them, and which member is the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from tastemaker.errors import Problem, ReasonKind
from tastemaker.imaging.formats import EXTENSIONS
from tastemaker.imaging.tars import Member

CAPTION_EXTENSIONS = ("txt", "caption")
JSON_EXTENSIONS = ("json",)
_COLUMN_EXTENSIONS = frozenset({*CAPTION_EXTENSIONS, *JSON_EXTENSIONS, "xmp"})

MAX_IMAGE_BYTES = 2**31
"""A larger file is recorded as unreadable: no image is."""

MAX_SIDECAR_BYTES = 2**24
"""A larger sidecar stays where it is: a row of one takes eight times its size in memory."""

_SMALL_BYTES = 2**18
"""Sidecars up to this size are read with their picture, where they lie beside it in a shard."""

_MAX_LINKS = 8
"""So many links are followed, one from the other."""

_PREFERENCE = ("jpg", "jpeg", "png", "webp")
_STARTS_OUTSIDE = ("/", "\\")
_UNSAFE_NAME = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.($|[/\\])|\0")


_UNSAFE = Problem(ReasonKind.UNSAFE_NAME, "unsafe name: it leads out of the folder that the shard is unpacked to")


@dataclass(slots=True)
class Sample:
    """The members that share a key.

    Attributes:
        key: The WebDataset key: the member's name up to the first dot of its base name, folders kept.
        image: The member that is the picture; None where there is none.
        sidecars: Extension (after that first dot, as stored) -> every other member.
        problem: Why there is nothing to score; None if there is.
        notes: What is wrong beside the picture, such as a sidecar that cannot be read; a sentence each.
        described: What a metadata file of the folder says of the picture, as sidecars: extension -> content.
        is_finished: Whether all members are there.
    """

    key: str
    image: Member | None = None
    sidecars: dict[str, Member] = field(default_factory=dict)
    problem: Problem | None = None
    notes: list[str] = field(default_factory=list)
    described: dict[str, bytes] = field(default_factory=dict)
    is_finished: bool = field(default=False, compare=False, repr=False)

    def members(self) -> list[Member]:
        """Return all members, the image first."""
        return [*([self.image] if self.image else ()), *self.sidecars.values()]

    def has_sidecar(self, extension: str) -> bool:
        """Return whether there is a sidecar with this last extension."""
        return any(name.rpartition(".")[2].lower() == extension for name in self.sidecars)

    def read_together(self, *, streams: bool) -> list[Member]:
        """Return the members of a shard that are read with the picture: it, what gives a column, and what is small.

        Args:
            streams: To read the others later would be another pass through the shard, so only very large ones are left.
        """
        small = MAX_SIDECAR_BYTES if streams else _SMALL_BYTES
        sidecars = (m for e, m in self.sidecars.items() if m.size <= small or gives_a_column(e, m.size))
        return [*([self.image] if self.image else ()), *sidecars]


def gives_a_column(extension: str, size: int = 0) -> bool:
    """Return whether a sidecar becomes a column of the row: a caption, JSON, or a rating, and not too large for that.

    Example:
        >>> gives_a_column("en.TXT"), gives_a_column("mp4"), gives_a_column("txt", 2**30)
        (True, False, False)
    """
    return extension.rpartition(".")[2].lower() in _COLUMN_EXTENSIONS and size <= MAX_SIDECAR_BYTES


def too_large(name: str, size: int) -> Problem:
    """Return why a file is no image: it has too many bytes."""
    return Problem(ReasonKind.TOO_LARGE, f"{name} has {size:,} bytes, too many for an image")


def too_long(name: str, size: int) -> str:
    """Return the note of a sidecar that is left out of its row."""
    return f"{name} has {size:,} bytes, too many for a row"


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


class Grouping:
    """Puts the members of a shard together by key, one after the other.

    Names without a key (hidden files) and WebDataset's own ``__meta__`` names are left out. A second member with the
    same name begins a second sample, which carries a problem.

    A member of a key whose sample is finished was found too late: it begins a second sample, with a problem.
    """

    def __init__(self) -> None:
        self._current: dict[str, Sample] = {}
        self._has_links = False

    def add(self, member: Member) -> Sample | None:
        """Return the sample that a member begins, None where it belongs to one that is there, or to none at all."""
        if member.link:
            self._has_links = True
        key, extension = split_key(member.name)
        sample, problem = self._current.get(key), None
        if sample is None:
            if _has_no_key(key) and not is_unsafe_name(member.name):
                return None
        elif extension in sample.sidecars or (sample.image and split_key(sample.image.name)[1] == extension):
            problem = Problem(
                ReasonKind.DUPLICATE_KEY,
                f"duplicate key: another sample of this shard is called {key!r}; write the shard again with a name of "
                "its own for each",
            )
        elif sample.is_finished:
            problem = Problem(
                ReasonKind.LATE_MEMBER,
                f"late member: {member.name!r} lies too far behind the other members of {key!r}, which were read "
                "without it; a shard at a URL is read once, so download it, or write the members of a key together",
            )
        else:
            sample.sidecars[extension] = member
            return None
        self._current[key] = begun = Sample(key, sidecars={extension: member}, problem=problem)
        return begun

    def finish(self, sample: Sample) -> list[Sample]:
        """Return a sample that has all its members, its picture taken out of the sidecars, and what is wrong noted.

        Links are followed to members found so far. What is wrong with a sidecar is a note, and the picture is scored
        without it. Pictures that only differ behind the first dot of their names (``22.05.png``, ``22.06.png``) are a
        sample each; of ``a.jpg`` and ``a.seg.png``, or ``a.image.jpg`` and ``a.mask.png``, the first is the picture.
        """
        for extension, member in [*sample.sidecars.items()] if self._has_links else ():
            sample.sidecars[extension] = self._follow(member)
        parts = _split_pictures(sample)
        for part in parts:
            _finish(part)
            if len(parts) > 1:
                part.notes.append(
                    f"{len(parts)} pictures of this shard have the key {sample.key!r}, which ends at the first dot: "
                    "WebDataset's readers take them for one sample, so give them names that differ before it"
                )
        return parts

    def _follow(self, member: Member) -> Member:
        """Return a member with the bytes that its link leads to; itself, with its problem, where there are none."""
        found: Member | None = member
        for _ in range(_MAX_LINKS):
            if found is None or not found.link:
                break
            sample, name = self._current.get(split_key(found.link)[0]), found.link
            found = next((other for other in sample.members() if other.name == name), None) if sample else None
        return member if found is None or found.link else found._replace(name=member.name)


def _has_no_key(key: str) -> bool:
    base = key.rpartition("/")[2]
    return not base or (base.startswith("__") and base.endswith("__"))


def _split_pictures(sample: Sample) -> list[Sample]:
    """Return the sample, and one for each further picture that its key is not meant to tell from others."""
    chosen = image_extension(sample.sidecars)
    stem, dot, last = (chosen or "").rpartition(".")
    others = [e for e in sample.sidecars if e != chosen and e.endswith(f".{last}")] if dot else []
    if not others:
        return [sample]
    stems = [stem, *(extension.rpartition(".")[0] for extension in others)]
    split = [sample, *(Sample(sample.key, problem=sample.problem) for _ in others)]
    for extension in [*sample.sidecars]:
        owner = next((n for n, of in enumerate(stems) if n and extension.startswith(f"{of}.")), 0)
        if owner:
            split[owner].sidecars[extension] = sample.sidecars.pop(extension)
    return split


def _finish(sample: Sample) -> None:
    sample.is_finished = True
    chosen = image_extension(sample.sidecars)
    if chosen is not None:
        sample.image = sample.sidecars.pop(chosen)
    if any(is_unsafe_name(member.name) for member in sample.members()):
        sample.problem = _UNSAFE
    elif sample.image is None:
        problems = (member.problem for member in sample.sidecars.values() if member.problem)
        sample.problem = sample.problem or next(problems, None) or _no_image(sample)
    elif not sample.problem:
        large = sample.image.size > MAX_IMAGE_BYTES
        sample.problem = too_large(sample.image.name, sample.image.size) if large else sample.image.problem
    for extension, member in [*sample.sidecars.items()] if sample.image else ():
        if member.problem:
            sample.notes.append(f"{member.name!r} is left out: {member.problem}")
            del sample.sidecars[extension]
        elif gives_a_column(extension) and not gives_a_column(extension, member.size):
            sample.notes.append(too_long(member.name, member.size))


def _no_image(sample: Sample) -> Problem:
    there = ", ".join(sample.sidecars)
    return Problem(ReasonKind.NOT_AN_IMAGE, f"no image among the members of this key, which are: {there}")


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
