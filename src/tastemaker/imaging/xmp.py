"""Star ratings in XMP: read, and set without touching any other byte.

XMP comes from strangers: it is read by expat with document types refused (so no entity is ever expanded), up to a size
and a depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from tastemaker.errors import MetadataError

MAX_XMP_BYTES = 2**24
"""Larger XMP is not read. Sidecars with a long history of edits have some megabytes."""

MAX_DEPTH, MAX_PARTS, MAX_TAG_BYTES = 200, 300_000, 2**21
"""Beyond this nesting, this number of elements, attributes and namespaces, or this length of a tag, XMP is not read."""

_CHUNK_BYTES = 2**16
REJECTED = -1
"""The rating of a rejected picture. 0 says that there are no stars, 1 to 5 are stars."""

_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_RDF_ROOT, _DESCRIPTION = f"{_RDF} RDF", f"{_RDF} Description"

_TAG = re.compile(rb"""<(?P<name>[^\s/>]++)(?:[^"'>]|"[^"]*+"|'[^']*+')*+>""")
_NUMBER = re.compile(r"\s*([+-]?\d{1,3})(?:\.\d{1,20})?\s*")

_PACKET = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Tastemaker">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about=""
    xmlns:xmp="{xmp}"{more}
    xmp:Rating="{rating}"/>
 </rdf:RDF>
</x:xmpmeta>
"""


@dataclass(slots=True)
class _Spot:
    """What is known of the rating in a packet, with positions in bytes."""

    rating: str | None = None
    kind: str = ""  # attribute or element
    prefix: str = ""
    tag: int = -1  # where the tag begins that holds it
    end: int = -1  # of an element: where its end tag begins
    description: int = -1  # where a rating can be put: the first rdf:Description
    description_prefix: str = ""  # the prefix of XMP's namespace there; empty where it has none
    sidecar_for: str = ""


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
        spot = _Parser(xmp).parse()
    except MetadataError:
        return None
    if extension and not _names(spot, extension):
        return None
    match = _NUMBER.fullmatch(spot.rating or "")
    return int(match[1]) if match and REJECTED <= int(match[1]) <= 5 else None


def belongs_to(xmp: bytes, extension: str) -> bool:
    """Return whether a sidecar called ``<stem>.xmp`` is of the picture with this extension: it names no other.

    Raises:
        MetadataError: It is no sound XMP.
    """
    return _names(_Parser(xmp).parse(), extension)


def _names(spot: _Spot, extension: str) -> bool:
    return spot.sidecar_for.lower() in ("", extension.lower())


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
    spot = _Parser(xmp).parse()
    if spot.kind == "attribute":
        start, end = _attribute_value(xmp, spot)
        return xmp[:start] + value + xmp[end:]
    if spot.kind == "element":
        tag = _tag_at(xmp, spot.tag)
        if tag[0].endswith(b"/>"):
            opened = tag[0][:-2].rstrip() + b">"
            return xmp[: spot.tag] + opened + value + b"</" + tag["name"] + b">" + xmp[tag.end() :]
        return xmp[: tag.end()] + value + xmp[spot.end :]
    if spot.description < 0:
        raise MetadataError("the XMP has no rdf:Description that a rating could go to")
    return _insert(xmp, spot, value)


def check_rating(rating: int) -> int:
    """Return the rating.

    Raises:
        MetadataError: It is not one of -1 to 5.
    """
    if rating not in range(REJECTED, 6):
        raise MetadataError(f"a rating is -1 (rejected), 0 or 1 to 5 stars, not {rating!r}")
    return int(rating)


@dataclass
class _Parser:
    """Looks for the rating among the properties of a packet: those directly in rdf:RDF/rdf:Description."""

    data: bytes
    spot: _Spot = field(default_factory=_Spot)
    _path: list[str] = field(default_factory=list)
    _names: list[tuple[str, str]] = field(default_factory=list)  # prefixes and their namespaces, in scope
    _text: list[str] | None = None
    _parts: int = 0

    def parse(self) -> _Spot:
        """Return what was found.

        Raises:
            MetadataError: It is no sound XML, or has a document type.
        """
        is_wide = b"\0" in self.data[:4]  # UTF-16: its zeros and spaces are not padding
        begin = 0 if is_wide else len(self.data) - len(self.data.lstrip())
        parser = self._expat = expat.ParserCreate(namespace_separator=" ")
        parser.namespace_prefixes = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartNamespaceDeclHandler = self._declare
        parser.buffer_text = True  # fewer calls
        parser.EndNamespaceDeclHandler = lambda prefix: self._names.pop()
        self._begin = begin
        try:
            self._feed(self.data if is_wide else self.data[begin:].rstrip(b"\0 \t\r\n"))
        except (expat.ExpatError, LookupError, ValueError) as error:  # LookupError: of an encoding that Python lacks
            raise MetadataError(f"the XMP is damaged: {error}") from error
        finally:  # or the parser and its handlers would keep each other, and the data, alive
            parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
            parser.StartDoctypeDeclHandler = parser.StartNamespaceDeclHandler = parser.EndNamespaceDeclHandler = None
        return self.spot

    def _feed(self, data: bytes) -> None:
        for at in range(0, len(data), _CHUNK_BYTES):
            self._expat.Parse(data[at : at + _CHUNK_BYTES], False)
            if at - self._expat.CurrentByteIndex > MAX_TAG_BYTES:
                raise MetadataError(f"the XMP has a tag of more than {MAX_TAG_BYTES:,} bytes")
        self._expat.Parse(b"", True)

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS or len(self._path) > MAX_DEPTH:
            raise MetadataError(f"the XMP has more than {MAX_PARTS:,} parts, or is nested deeper than {MAX_DEPTH}")

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self._count(1)
        self._names.append((prefix or "", uri or ""))

    def _refuse(self, *_: object) -> None:
        raise MetadataError("the XMP has a document type, which no XMP needs")

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        name, prefix = _split(name)
        parents = self._path[-2:]
        self._path.append(name)
        self._count(1 + len(attributes))
        at = self._expat.CurrentByteIndex + self._begin
        if name == _DESCRIPTION and parents[-1:] == [_RDF_ROOT]:
            self._read_attributes(at, attributes)
        elif parents == [_RDF_ROOT, _DESCRIPTION]:
            if name == f"{_XMP} Rating" and self.spot.rating is None:
                self.spot.kind, self.spot.prefix, self.spot.tag, self._text = "element", prefix, at, []
            elif name == f"{_PHOTOSHOP} SidecarForExtension":
                self._text = []

    def _read_attributes(self, at: int, attributes: dict[str, Any]) -> None:
        if self.spot.description < 0:
            self.spot.description = at
            self.spot.description_prefix = next((p for p, uri in reversed(self._names) if p and uri == _XMP), "")
        for long_name, value in attributes.items():
            name, prefix = _split(long_name)
            if name == f"{_XMP} Rating" and self.spot.rating is None:
                self.spot.rating, self.spot.kind, self.spot.prefix, self.spot.tag = value, "attribute", prefix, at
            elif name == f"{_PHOTOSHOP} SidecarForExtension":
                self.spot.sidecar_for = value.strip()

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._path.pop()
        if self._text is None or self._path[-2:] != [_RDF_ROOT, _DESCRIPTION]:
            return
        text, self._text = "".join(self._text), None
        if _split(name)[0] == f"{_XMP} Rating":
            self.spot.rating, self.spot.end = text, self._expat.CurrentByteIndex + self._begin
        else:
            self.spot.sidecar_for = text.strip()


def _split(name: str) -> tuple[str, str]:
    """Return expat's name as ``namespace local``, and its prefix."""
    parts = name.split(" ")
    return " ".join(parts[:2]), parts[2] if len(parts) > 2 else ""


def _tag_at(xmp: bytes, at: int) -> re.Match[bytes]:
    tag = _TAG.match(xmp, at)
    if tag is None:
        raise MetadataError("the XMP has a tag in an encoding that is not supported")
    return tag


def _attribute_value(xmp: bytes, spot: _Spot) -> tuple[int, int]:
    tag = _tag_at(xmp, spot.tag)
    named = re.escape(f"{spot.prefix}:Rating".encode())
    for attribute in re.finditer(rb"""\s(?P<name>[^\s=]++)\s*=\s*(?:"([^"]*+)"|'([^']*+)')""", tag[0]):
        if re.fullmatch(named, attribute["name"]):
            group = 2 if attribute[2] is not None else 3
            return tag.start() + attribute.start(group), tag.start() + attribute.end(group)
    raise MetadataError("the XMP has a rating that cannot be found in its bytes")


def _insert(xmp: bytes, spot: _Spot, value: bytes) -> bytes:
    """Return the XMP with the rating as the first attribute of its first description."""
    prefix, declaration = spot.description_prefix.encode(), b""
    if not prefix:
        prefix = next(p for p in (b"xmp", b"xap", b"tastemaker-xmp") if b"xmlns:" + p not in xmp)
        declaration = b' xmlns:%s="%s"' % (prefix, _XMP.encode())
    at = spot.description + 1 + len(_tag_at(xmp, spot.description)["name"])
    return xmp[:at] + declaration + b' %s:Rating="%s"' % (prefix, value) + xmp[at:]
