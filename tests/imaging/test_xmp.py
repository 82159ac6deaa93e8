"""Ratings in XMP: every way to write them, every other byte kept, and hostile packets."""

import pytest

from tastemaker.errors import MetadataError
from tastemaker.imaging.xmp import MAX_XMP_BYTES, belongs_to, make_xmp, read_rating, set_rating

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
NS = "http://ns.adobe.com/xap/1.0/"


def packet(description):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>{description}</rdf:RDF></x:xmpmeta>'.encode()


WAYS = {
    "attribute": f'<rdf:Description rdf:about="" xmlns:xmp="{NS}" xmp:Rating="3"/>',
    "attribute in single quotes": f"<rdf:Description rdf:about='' xmlns:xmp='{NS}' xmp:Rating='3'/>",
    "element": f'<rdf:Description xmlns:xmp="{NS}"><xmp:Rating>3</xmp:Rating></rdf:Description>',
    "another prefix": f'<rdf:Description xmlns:xap="{NS}" xap:Rating = "3" />',
    "a prefix declared outside": f'<rdf:Description xmlns:q="{NS}"><q:Rating>\n 3 </q:Rating></rdf:Description>',
    "the second description": f'<rdf:Description rdf:about=""/><rdf:Description xmlns:xmp="{NS}" xmp:Rating="3"/>',
    "behind a value like a tag": f'<rdf:Description xmlns:xmp="{NS}" xmp:Label="a &gt; xmp:Rating=5" xmp:Rating="3"/>',
    "behind a bare >": f'<rdf:Description xmlns:xmp="{NS}" xmp:Label="> xmp:Rating=&#39;5&#39;" xmp:Rating="3"/>',
    "with another attribute": f'<rdf:Description xmlns:x="{NS}"><x:Rating rdf:t="a/b">3</x:Rating></rdf:Description>',
    "behind a comment like it": f'<!-- <xmp:Rating>3</xmp:Rating> --><rdf:Description xmlns:x="{NS}" x:Rating="3"/>',
    "a decimal number": f'<rdf:Description xmlns:xmp="{NS}" xmp:Rating="3.0"/>',
}
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_a_rating_is_read_however_it_is_written(way):
    assert read_rating(packet(WAYS[way])) == 3


@each_way
@pytest.mark.parametrize("rating", [-1, 0, 5])
def test_setting_a_rating_changes_nothing_else(way, rating):
    before = packet(WAYS[way])
    after = set_rating(before, rating)
    assert read_rating(after) == rating
    start = next(at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    rest = len(before) - start - (3 if "3.0" in WAYS[way] else 5)
    assert before[:start] == after[:start]
    assert before[-rest:] == after[-rest:]


@pytest.mark.parametrize(
    "description",
    [
        '<rdf:Description rdf:about=""/>',
        '<rdf:Description rdf:about="">\n</rdf:Description>',
        f'<rdf:Description xmlns:xmp="{NS}" xmp:Label="Red"/>',
        '<rdf:Description xmlns:xmp="urn:another" xmp:Rating="2"/>',
        f'<rdf:Description xmlns:xmp="{NS}"><xmp:Rating/></rdf:Description>',
    ],
)
def test_a_rating_is_added_where_there_is_none(description):
    before = packet(description)
    assert read_rating(before) is None
    after = set_rating(before, 4)
    assert read_rating(after) == 4
    assert read_rating(set_rating(after, 2)) == 2
    assert len(after) < len(before) + 100


@pytest.mark.parametrize("text", ["6", "-2", "four", "", "nan", "9999", "1e1", "3 stars"])
def test_what_is_no_rating_is_none(text):
    assert read_rating(packet(f'<rdf:Description xmlns:xmp="{NS}" xmp:Rating="{text}"/>')) is None


def test_a_rating_of_something_inside_the_picture_is_not_the_pictures():
    inner = f'<rdf:Description xmlns:s="urn:s"><s:part><rdf:Description xmlns:xmp="{NS}" xmp:Rating="2"/></s:part>'
    assert read_rating(packet(f"{inner}</rdf:Description>")) is None


def test_utf16_is_read_and_refused_for_writing():
    data = make_xmp(4).decode().replace("UTF-8", "UTF-16").encode("utf-16")
    assert read_rating(data) == 4
    with pytest.raises(MetadataError, match="not in UTF-8"):
        set_rating(data, 3)


def test_a_packet_between_zeros_and_a_byte_order_mark_is_read():
    assert read_rating(b"\xef\xbb\xbf" + make_xmp(2) + bytes(50)) == 2
    assert read_rating(b"\n  " + packet(WAYS["element"]) + b"\n\n\0") == 3
    assert set_rating(b"\n  " + packet(WAYS["attribute"]), 5) == b"\n  " + packet(WAYS["attribute"]).replace(
        b'"3"', b'"5"'
    )


def test_a_long_history_of_edits_is_read_and_kept():
    history = "".join(f'<rdf:li n="{n}" params="{"00ff" * 40}">\n edit &amp; more</rdf:li>' for n in range(40_000))
    before = packet(f'<rdf:Description xmlns:xmp="{NS}" xmp:Rating="1"><h>{history}</h></rdf:Description>')
    assert len(before) > 8_000_000
    assert set_rating(before, 4) == before.replace(b'xmp:Rating="1"', b'xmp:Rating="4"')
    behind = packet(f'<rdf:Description xmlns:xmp="{NS}"><h>{history}</h><xmp:Rating>2</xmp:Rating></rdf:Description>')
    assert set_rating(behind, 4) == behind.replace(b">2<", b">4<")


def test_a_sidecar_that_names_another_extension_belongs_to_another_picture():
    data = make_xmp(4, "CR2")
    assert (read_rating(data, "cr2"), read_rating(data, "jpg"), read_rating(data)) == (4, None, 4)
    assert belongs_to(data, "CR2")
    assert not belongs_to(data, "jpg")
    assert belongs_to(make_xmp(4), "jpg")


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]>"
    + packet(f'<rdf:Description xmlns:xmp="{NS}" xmp:Rating="&j;"/>')
)
MANY_ATTRIBUTES = " ".join(f'b{n}=""' for n in range(100))
FILE = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + packet(
    "<rdf:Description>&f; Rating</rdf:Description>"
)


HOSTILE = {
    "entities": BOMB,
    "a file": FILE,
    "no XML": b"Rating" + bytes(1000),
    "depth": b"<a>" * 10**6 + b"Rating",
    "cut": packet(f'<rdf:Description xmlns:xmp="{NS}" xmp:Rating="5">')[:-30],
    "no namespace": packet('<rdf:Description xmp:Rating="5"/>'),
    "elements": packet("<rdf:Description>Rating" + "<a/>" * 4 * 10**6 + "</rdf:Description>"),
    "names": packet("<rdf:Description " + " ".join(f'xmlns:a{n}="Rating"' for n in range(500_000)) + "/>"),
    "attributes all over": packet("<rdf:Description>Rating" + f"<a {MANY_ATTRIBUTES}/>" * 10**4 + "</rdf:Description>"),
    "too large": b"Rating" * MAX_XMP_BYTES,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_damaged_xmp_has_no_rating(kind):
    data = HOSTILE[kind]
    assert read_rating(data) is None
    with pytest.raises(MetadataError):
        set_rating(data, 3)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "cp932", "utf-7", "idna"])
def test_an_encoding_that_is_not_known_is_damage(encoding):
    data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + packet(WAYS["attribute"])
    assert read_rating(data) is None
    with pytest.raises(MetadataError, match="the XMP is damaged"):
        set_rating(data, 3)


FLAGS = {"digiKam": (b'digiKam:PickLabel="%d"', 1), "Lightroom": (b'xmpDM:pick="%d"', -1)}


@pytest.mark.parametrize("program", FLAGS)
@pytest.mark.parametrize(
    ("stars", "flag", "rating", "after"),
    [(-1, "rejected", 3, 0), (3, 0, -1, "rejected"), (3, 3, -1, "rejected"), (3, "rejected", 4, 0), (-1, 3, 0, 3)],
)
def test_flags_of_other_programs_say_rejected_and_follow_a_rejection_and_its_end(program, stars, flag, rating, after):
    written, rejects = FLAGS[program]
    says = {"rejected": rejects}
    xmp = make_xmp(-1)
    for other, (their, theirs) in FLAGS.items():  # one at a time
        assert xmp.count(their % theirs) == 1
        xmp = xmp.replace(their % theirs, b"") if other != program else xmp
    before = xmp.replace(b'Rating="-1"', b'Rating="%d"' % stars).replace(
        written % rejects, written % says.get(flag, flag)
    )
    assert read_rating(before) == (-1 if flag == "rejected" or stars < 0 else stars)
    assert set_rating(before, read_rating(before)) == before
    changed = set_rating(before, rating)
    assert read_rating(changed) == rating
    expected = before.replace(b'Rating="%d"' % stars, b'Rating="%d"' % rating)
    assert changed == expected.replace(written % says.get(flag, flag), written % says.get(after, after))


@pytest.mark.parametrize("rating", [6, -2, 99])
def test_only_ratings_can_be_set(rating):
    with pytest.raises(MetadataError, match="a rating is"):
        set_rating(make_xmp(1), rating)
