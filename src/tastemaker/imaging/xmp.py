"""Star ratings in XMP: read, and set without touching any other byte.

XMP comes from strangers: it is read by expat with document types refused (so no entity is ever expanded), up to a size,
a depth and a number of parts. To set a rating, the bytes are edited where it seems to be, and the parser says whether
it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any
from xml.etree import ElementTree

from tastemaker.errors import MetadataError

MAX_XMP_BYTES = 2**24
"""Larger XMP is not read. Sidecars with a long history of edits have some megabytes."""

MAX_DEPTH, MAX_PARTS, MAX_TAG_BYTES = 200, 300_000, 2**21
"""Beyond this nesting, this number of elements, attributes and namespaces, or this length of a tag, XMP is not read."""

REJECTED = -1
"""The rating of a rejected picture. 0 says that there are no stars, 1 to 5 are stars."""

_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_DESCRIPTION = [f"{{{_RDF}}}RDF", f"{{{_RDF}}}Description"]
_RATING, _SIDECAR_FOR = f"{{{_XMP}}}Rating", f"{{{_PHOTOSHOP}}}SidecarForExtension"

_NUMBER = re.compile(r"\s*([+-]?\d{1,3})(?:\.\d{1,20})?\s*")
_LONG_TAG = re.compile(rb"<[^<>]{%d}" % MAX_TAG_BYTES)
_ATTRIBUTE = re.compile(rb"""\s[^\s=<>"'/]+:Rating\s*=\s*(?:"([^"<]*)"|'([^'<]*)')""")
_ELEMENT = re.compile(rb"<([^\s<>/]+:Rating)(\s[^<>]*?)?(?:/>|>[^<]*</\1\s*>)")
_BEGIN = re.compile(rb"<[^\s<>/!?]+:Description(?=[\s/>])")
_MAX_EDITS = 12
"""So many places are tried for a rating, each with a reading of the whole."""

_PACKET = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Tastemaker">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about=""
    xmlns:xmp="{xmp}"{more}
    xmp:Rating="{rating}"/>
 </rdf:RDF>
</x:xmpmeta>
"""


def read_rating(xmp: bytes, extension: str = "") -> int | None:
    """Return the rating in an XMP packet or sidecar: -1 (rejected), 0 (no stars), 1 to 5; None where there is none.

    Args:
        xmp: The packet, or the whole sidecar.
        extension: Of the picture, such as ``jpg``. A sidecar that names another one belongs to another picture of the
            same stem (Adobe's programs name the raw's).

    Example:
        >>> read_rating(make_xmp(4))
        4
    """
    if len(xmp) > MAX_XMP_BYTES or not (b"Rating" in xmp or b"R\0a\0t\0i\0n\0g" in xmp):
        return None
    try:
        found = _parse(xmp)
    except MetadataError:
        return None
    return found.number() if not extension or found.is_for(extension) else None


def belongs_to(xmp: bytes, extension: str) -> bool:
    """Return whether a sidecar called ``<stem>.xmp`` is of the picture with this extension: it names no other.

    Raises:
        MetadataError: It is no sound XMP.
    """
    return _parse(xmp).is_for(extension)


def make_xmp(rating: int, extension: str = "") -> bytes:
    """Return a sidecar with nothing but a rating.

    Args:
        rating: -1 to 5.
        extension: Of the raw that it belongs to, where its name does not tell (``IMG_1.xmp``).
    """
    more = f'\n    xmlns:photoshop="{_PHOTOSHOP}"\n    photoshop:SidecarForExtension="{extension}"' if extension else ""
    return _PACKET.format(rdf=_RDF, xmp=_XMP, more=more, rating=check_rating(rating)).encode()


def set_rating(xmp: bytes, rating: int) -> bytes:
    """Return the XMP with this rating. All other bytes stay what they are.

    Raises:
        MetadataError: It is no sound XMP, or not in an encoding that has ASCII's bytes.

    Example:
        >>> read_rating(set_rating(make_xmp(4), 2))
        2
    """
    value = str(check_rating(rating)).encode()
    if b"\0" in xmp.rstrip(b"\0") or len(xmp) > MAX_XMP_BYTES:
        raise MetadataError("the XMP is too large, or not in UTF-8")
    found = _parse(xmp)
    if found.number() == rating:
        return xmp
    for edited in islice(_insert(xmp, value) if found.rating is None else _replace(xmp, value), _MAX_EDITS):
        if read_rating(edited) == rating:
            return edited
    raise MetadataError("the XMP has no rating, and no rdf:Description, that can be found in its bytes")


def check_rating(rating: int) -> int:
    """Return the rating.

    Raises:
        MetadataError: It is not one of -1 to 5.
    """
    if rating not in range(REJECTED, 6):
        raise MetadataError(f"a rating is -1 (rejected), 0 or 1 to 5 stars, not {rating!r}")
    return int(rating)


class _Packet:
    """What is wanted of a packet: the properties directly in rdf:RDF/rdf:Description. A target of Python's XML parser.

    Attributes:
        rating: The text of the first rating; None where there is none.
        sidecar_for: The extension of the picture that the packet names; empty where it names none.
    """

    def __init__(self) -> None:
        self.rating: str | None = None
        self.sidecar_for = ""
        self._path: list[str] = []
        self._text: list[str] | None = None
        self._parts = 0

    def number(self) -> int | None:
        """Return the rating where it is one."""
        match = _NUMBER.fullmatch(self.rating or "")
        return int(match[1]) if match and REJECTED <= int(match[1]) <= 5 else None

    def is_for(self, extension: str) -> bool:
        """Return whether the packet is of a picture with this extension."""
        return self.sidecar_for.lower() in ("", extension.lower())

    def start_ns(self, *_: str) -> None:
        """Count a namespace."""
        self._count(1)

    def doctype(self, *_: str | None) -> None:
        """Refuse a document type."""
        raise MetadataError("the XMP has a document type, which no XMP needs")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        self._count(1 + len(attributes))
        if self._path[-2:] == _DESCRIPTION and name in (_RATING, _SIDECAR_FOR):
            self._text = []
        self._path.append(name)
        if self._path[-2:] == _DESCRIPTION:
            for attribute, value in attributes.items():
                self._take(attribute, value)

    def data(self, text: str) -> None:
        """Take the text of an element."""
        if self._text is not None:
            self._text.append(text)

    def end(self, name: str) -> None:
        """End an element."""
        self._path.pop()
        if self._text is not None and self._path[-2:] == _DESCRIPTION:
            self._take(name, "".join(self._text))
            self._text = None

    def close(self) -> _Packet:
        """Return what was found."""
        return self

    def _take(self, name: str, text: str) -> None:
        if name == _RATING and self.rating is None:
            self.rating = text
        elif name == _SIDECAR_FOR:
            self.sidecar_for = text.strip()

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS or len(self._path) > MAX_DEPTH:
            raise MetadataError(f"the XMP has more than {MAX_PARTS:,} parts, or is nested deeper than {MAX_DEPTH}")


def _parse(xmp: bytes) -> _Packet:
    """Return what is wanted of a packet.

    Raises:
        MetadataError: It is no sound XML, or has a document type.
    """
    if _LONG_TAG.search(xmp):
        raise MetadataError(f"the XMP has a tag of more than {MAX_TAG_BYTES:,} bytes")
    is_wide = b"\0" in xmp[:4]  # UTF-16: its zeros and spaces are not padding
    parser: Any = ElementTree.XMLParser(target=_Packet())
    try:
        parser.feed(xmp if is_wide else xmp.strip(b"\0 \t\r\n"))
        found: _Packet = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: of an encoding that Python lacks
        raise MetadataError(f"the XMP is damaged: {error}") from error
    return found


def _replace(xmp: bytes, value: bytes) -> Iterator[bytes]:
    """Yield the XMP with each thing in it that looks like a rating replaced."""
    for match in _ATTRIBUTE.finditer(xmp):
        start, end = match.span(1 if match[1] is not None else 2)
        yield xmp[:start] + value + xmp[end:]
    for match in _ELEMENT.finditer(xmp):
        name, attributes = match[1], match[2] or b""
        yield xmp[: match.start()] + b"<%s%s>%s</%s>" % (name, attributes, value, name) + xmp[match.end() :]


def _insert(xmp: bytes, value: bytes) -> Iterator[bytes]:
    """Yield the XMP with the rating as the first attribute of each thing in it that looks like a description."""
    for match in _BEGIN.finditer(xmp):
        for prefix in (b"xmp", b"xap", b"tastemaker-xmp"):
            is_declared = b"xmlns:" + prefix in xmp
            declaration = b"" if is_declared else b' xmlns:%s="%s"' % (prefix, _XMP.encode())
            yield xmp[: match.end()] + declaration + b' %s:Rating="%s"' % (prefix, value) + xmp[match.end() :]
