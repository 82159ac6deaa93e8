"""Star ratings and colour labels in XMP: read, and set without touching any other byte.

XMP comes from strangers. It is parsed up to a size and a number of parts, and document types are refused, so no entity
is ever expanded. To set a rating, the bytes that look like one are edited, and the parser says whether they were it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from xml.etree import ElementTree

from tastemaker.errors import MetadataError

MAX_XMP_BYTES = 2**24
"""Larger XMP is not read. Sidecars with a long history of edits have some megabytes."""

MAX_PARTS = 200_000
"""XMP with more tags and attributes is not read: the parser would take seconds for it."""

REJECTED = -1
"""The rating of a rejected picture. 0 says that there are no stars, 1 to 5 are stars."""

_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_DIGIKAM = "http://www.digikam.org/ns/1.0/"
_DYNAMIC_MEDIA = "http://ns.adobe.com/xmp/1.0/DynamicMedia/"
_RATING, _LABEL = f"{{{_XMP}}}Rating", f"{{{_XMP}}}Label"
_SIDECAR_FOR = f"{{{_PHOTOSHOP}}}SidecarForExtension"
_FLAGS = {f"{{{_DIGIKAM}}}PickLabel": ("1", "0"), f"{{{_DYNAMIC_MEDIA}}}pick": ("-1", "0")}
"""Flags of digiKam, and of Lightroom Classic since 13.2 -> what they say of a rejected picture, and of others."""

_WORDS = (b"Rating", b"PickLabel", b":pick", b"R\0a\0t\0i\0n\0g")
"""XMP that has none of them says nothing of a rating, and is not parsed."""

_TOOLKIT = "{adobe:ns:meta/}xmptk"
_BY_HAND, _BY_SCORE = "Tastemaker", "Tastemaker scores"
"""What packets of ours say of who made them. A program that puts its edits into one puts its own name there."""

_NUMBER = re.compile(r"\s*([+-]?\d{1,3})(?:\.\d{1,20})?\s*")
_ATTRIBUTE = rb"""\s[^\s=<>"'/]+:%s\s*=\s*(?:"([^"<]*)"|'([^'<]*)')"""
_ELEMENT = rb"<([^\s<>/]+:%s)(\s[^<>]*?)?(?:/>|>[^<]*</\1\s*>)"
_BEGIN = re.compile(rb"<[^\s<>/!?]+:Description(?=[\s/>])")
_MAX_EDITS = 12
"""So many places are tried for a property. For each one the whole XMP is parsed."""

_PACKET = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{toolkit}">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about=""
    xmlns:xmp="{xmp}"{more}
    xmp:Rating="{rating}"/>
 </rdf:RDF>
</x:xmpmeta>
"""


def read_rating(xmp: bytes, extension: str = "", *, by_score: bool = False, by_explorer: bool = True) -> int | None:
    """Return the rating in an XMP packet or sidecar: -1 (rejected), 0 (no stars), 1 to 5; None where there is none.

    A picture is rejected by its rating, or by a flag of digiKam or Lightroom, whatever stars it has beside that.

    Stars that Tastemaker made of a score are no rating: nobody gave them.

    Args:
        xmp: The packet, or the whole sidecar.
        extension: Of the picture, such as ``jpg``. A sidecar that names another one belongs to another picture of the
            same stem (Adobe's programs name the raw's).
        by_score: Return those stars, too.
        by_explorer: Return what Tastemaker wrote of a person's word in the explorer, too.

    Example:
        >>> read_rating(make_xmp(4))
        4
    """
    if len(xmp) > MAX_XMP_BYTES or not any(word in xmp for word in _WORDS):
        return None
    try:
        found = _parse(xmp)
    except MetadataError:
        return None
    if (found.toolkit == _BY_SCORE and not by_score) or (found.toolkit == _BY_HAND and not by_explorer):
        return None
    return found.rating() if not extension or found.is_for(extension) else None


def belongs_to(xmp: bytes, extension: str) -> bool:
    """Return whether a sidecar called ``<stem>.xmp`` is of the picture with this extension: it names no other.

    Raises:
        MetadataError: It is no sound XMP.
    """
    return _parse(xmp).is_for(extension)


def make_xmp(rating: int, extension: str = "", *, by_score: bool = False) -> bytes:
    """Return a sidecar with nothing but a rating.

    Args:
        rating: -1 to 5. Where it is -1, the flags of digiKam and Lightroom stand beside it: their ratings begin at 0.
        extension: Of the raw that it belongs to, where its name does not tell (``IMG_1.xmp``).
        by_score: Tastemaker made the stars of a score, and nobody gave them.
    """
    more = f'\n    xmlns:photoshop="{_PHOTOSHOP}"\n    photoshop:SidecarForExtension="{extension}"' if extension else ""
    if rating == REJECTED:
        more += f'\n    xmlns:digiKam="{_DIGIKAM}"\n    digiKam:PickLabel="1"'
        more += f'\n    xmlns:xmpDM="{_DYNAMIC_MEDIA}"\n    xmpDM:pick="-1"\n    xmpDM:good="False"'
    toolkit = _BY_SCORE if by_score else _BY_HAND
    return _PACKET.format(toolkit=toolkit, rdf=_RDF, xmp=_XMP, more=more, rating=check_rating(rating)).encode()


def set_rating(xmp: bytes, rating: int) -> bytes:
    """Return the XMP with this rating. Flags of digiKam and Lightroom that are there follow a rejection and its end.

    The two show a picture as rejected by their flag alone. All other bytes stay what they are.

    Raises:
        MetadataError: It is no sound XMP, or not in an encoding that has ASCII's bytes.

    Example:
        >>> read_rating(set_rating(make_xmp(4), 2))
        2
    """
    value = str(check_rating(rating)).encode()
    before = _parse_plain(xmp)
    if before.rating() == rating:
        return xmp
    for name, text in before.flags.items():
        rejected, other = _FLAGS[name]
        new = rejected if rating == REJECTED else other
        if text != new and rejected in (text, new):
            xmp = _set(xmp, name.rpartition("}")[2].encode(), new.encode(), "", partial(_has_flag, name, new))
    if before.number() == rating:
        return xmp
    return _set(xmp, b"Rating", value, before.stated, lambda found: found.number() == rating)


def _has_flag(name: str, text: str, found: _Packet) -> bool:
    return found.flags.get(name) == text


def set_label(xmp: bytes, label: str) -> bytes:
    """Return the XMP with this colour label, such as ``red``, written as Lightroom and Bridge do: ``Red``.

    All other bytes stay what they are.

    Raises:
        MetadataError: As `set_rating` raises it.

    Example:
        >>> read_label(set_label(make_xmp(4), "red"))
        'red'
    """
    value = label.capitalize()
    if (before := _parse_plain(xmp).label) == value:
        return xmp
    return _set(xmp, b"Label", value.encode(), before, lambda found: found.label == value)


def read_label(xmp: bytes) -> str:
    """Return the colour label in XMP, in small letters; empty where there is none, or the XMP is damaged."""
    try:
        return (_parse(xmp).label or "").strip().lower()
    except MetadataError:
        return ""


def _parse_plain(xmp: bytes) -> _Packet:
    if b"\0" in xmp.rstrip(b"\0") or len(xmp) > MAX_XMP_BYTES:
        raise MetadataError("the XMP is too large, or not in UTF-8")
    return _parse(xmp)


def _set(xmp: bytes, name: bytes, value: bytes, before: str | None, is_right: Callable[[_Packet], bool]) -> bytes:
    """Return the XMP with a property of this value: in place of the one before, or a new one where that is None."""
    places = _insert(xmp, name, value) if before is None else _replace(xmp, name, value)
    for edited in islice(places, _MAX_EDITS):
        with suppress(MetadataError):
            if is_right(_parse(edited)):
                return edited
    raise MetadataError(
        f"the XMP has no {name.decode().lower()}, and no rdf:Description, that can be found in its bytes"
    )


def check_rating(rating: int) -> int:
    """Return the rating.

    Raises:
        MetadataError: It is not one of -1 to 5.
    """
    if rating not in range(REJECTED, 6):
        raise MetadataError(f"a rating is -1 (rejected), 0 or 1 to 5 stars, not {rating!r}")
    return int(rating)


class _Packet(NamedTuple):
    """The properties in rdf:RDF/rdf:Description that matter here.

    Attributes:
        stated: The text of the first rating; None where there is none.
        sidecar_for: The extension of the picture that the packet names; empty where it names none.
        label: The text of the first colour label; None where there is none.
        flags: The flags that are there, as in `_FLAGS`, each with its first text.
        toolkit: What the packet says of who made it.
    """

    stated: str | None
    sidecar_for: str
    label: str | None
    flags: dict[str, str]
    toolkit: str

    def number(self) -> int | None:
        """Return the stated rating where it is one."""
        match = _NUMBER.fullmatch(self.stated or "")
        return int(match[1]) if match and REJECTED <= int(match[1]) <= 5 else None

    def rating(self) -> int | None:
        """Return what the packet says of the picture, its flags included."""
        return REJECTED if any(_FLAGS[name][0] == text for name, text in self.flags.items()) else self.number()

    def is_for(self, extension: str) -> bool:
        """Return whether the packet is of a picture with this extension."""
        return self.sidecar_for.lower() in ("", extension.lower())


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        """Refuse a document type."""
        raise MetadataError("the XMP has a document type, which no XMP needs")


def _parse(xmp: bytes) -> _Packet:
    """Return what matters of a packet.

    Raises:
        MetadataError: It is no sound XML, has a document type, or has too many parts.
    """
    if xmp.count(b"<") + xmp.count(b"=") > MAX_PARTS:
        raise MetadataError(f"the XMP has more than {MAX_PARTS:,} tags and attributes")
    is_wide = b"\0" in xmp[:4]  # UTF-16: its zeros and spaces are not padding
    parser: Any = ElementTree.XMLParser(target=_TreeBuilder())
    try:
        parser.feed(xmp if is_wide else xmp.strip(b"\0 \t\r\n"))
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: of an encoding that Python lacks
        raise MetadataError(f"the XMP is damaged: {error}") from error
    rating, label, sidecar_for = None, None, ""
    flags: dict[str, str] = {}
    for rdf in root.iter(f"{{{_RDF}}}RDF"):
        for description in rdf.iterfind(f"{{{_RDF}}}Description"):
            found = {**{child.tag: child.text or "" for child in reversed(description)}, **description.attrib}
            rating = found.get(_RATING) if rating is None else rating
            label = found.get(_LABEL) if label is None else label
            flags = {name: found[name].strip() for name in _FLAGS if name in found} | flags
            sidecar_for = found.get(_SIDECAR_FOR, sidecar_for).strip()
    return _Packet(rating, sidecar_for, label, flags, root.get(_TOOLKIT, ""))


def _replace(xmp: bytes, name: bytes, value: bytes) -> Iterator[bytes]:
    """Yield the XMP with each thing in it that looks like the property replaced."""
    for match in re.finditer(_ATTRIBUTE % name, xmp):
        start, end = match.span(1 if match[1] is not None else 2)
        yield xmp[:start] + value + xmp[end:]
    for match in re.finditer(_ELEMENT % name, xmp):
        tag, attributes = match[1], match[2] or b""
        yield xmp[: match.start()] + b"<%s%s>%s</%s>" % (tag, attributes, value, tag) + xmp[match.end() :]


def _insert(xmp: bytes, name: bytes, value: bytes) -> Iterator[bytes]:
    """Yield the XMP with the property as the first attribute of each thing in it that looks like a description."""
    for match in _BEGIN.finditer(xmp):
        for prefix in (b"xmp", b"xap", b"tastemaker-xmp"):
            is_declared = b"xmlns:" + prefix in xmp
            declaration = b"" if is_declared else b' xmlns:%s="%s"' % (prefix, _XMP.encode())
            added = declaration + b' %s:%s="%s"' % (prefix, name, value)
            yield xmp[: match.end()] + added + xmp[match.end() :]
