"""Shards: every sample with every byte, whatever else is wrong with the file."""

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import warnings
from functools import cache

import pytest
from conftest import make_tar
from peak import PEAK, reads_peak

from tastemaker.imaging.keys import is_unsafe_name, split_key
from tastemaker.imaging.readers import PackedReader, open_shard
from tastemaker.imaging.shards import read_samples, read_stream
from tastemaker.storage.blocks import BlockReader

JPEG = b"\xff\xd8\xff\xe0"  # enough of one for a reader that does not decode
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
either_kind = pytest.mark.parametrize("kind", ["tar", "tar.gz"])


def picture(seed, size=700):
    return JPEG + random.Random(seed).randbytes(size)


def samples_of(path):
    """The samples of a local file, which are those of the same file at a URL and through small blocks."""
    samples = list(read_samples(str(path)))
    assert list(read_samples(f"file://{path}")) == samples
    if path.stat().st_size < 2**27:
        assert list(read_stream(open_in_blocks(path), sys.maxsize)) == samples
    return samples


def open_in_blocks(path, **options):
    """A reader as remote shards have it, with blocks that every member crosses."""
    options = {"block_bytes": 4099, "held": 3, "ahead": 2} | options
    reader = open_shard(f"file://{path}")
    return BlockReader(reader, **options)


def whole(path):
    """Key -> {member name: bytes} of the samples without a problem."""
    return {sample.key: data for sample, data in samples_of(path) if not sample.problem}


def problems(path):
    return [(sample.key, str(sample.problem)) for sample, _ in samples_of(path) if sample.problem]


def save(path, raw, kind="tar"):
    path.write_bytes(gzip.compress(raw, 1) if kind == "tar.gz" else raw)
    return path


def header(name, size, kind=b"0", target=""):
    """A header block with any bytes in its size field."""
    info = tarfile.TarInfo(name)
    info.linkname = target
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))[-512:]
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size.ljust(12, b"\0")
    block[156:157], block[148:156] = kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def entry(name, data, kind=b"0"):
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


END = bytes(1024)
GOOD = entry("good.jpg", picture(1)) + entry("good.txt", b"a caption")
GOOD_DATA = {"good.jpg": picture(1), "good.txt": b"a caption"}


# What a sound shard holds.


@either_kind
@pytest.mark.parametrize("tar_format", FORMATS)
def test_every_byte_of_every_member_comes_out_under_its_own_name(tmp_path, tar_format, kind):
    members = [(f"{n // 7}/{n:05d}.{e}", picture(f"{n}{e}", n * 37)) for n in range(60) for e in ("jpg", "txt", "json")]
    path = make_tar(tmp_path / "a.tar", members, format=FORMATS[tar_format])
    found = samples_of(save(tmp_path / f"b.{kind}", path.read_bytes(), kind))
    assert [(name, data) for _, contents in found for name, data in contents.items()] == members
    assert [sample.key for sample, _ in found] == [f"{n // 7}/{n:05d}" for n in range(60)]
    assert not any(sample.problem for sample, _ in found)
    assert all(sorted(sample.sidecars) == ["json", "txt"] for sample, _ in found)


@either_kind
def test_members_of_a_sample_may_lie_anywhere(tmp_path, kind):
    names = [f"{n:03d}" for n in range(80)]
    members = [(f"{name}.jpg", picture(name)) for name in names]
    members += [(f"{name}.txt", name.encode()) for name in sorted(names, key=lambda name: name[::-1])]
    path = make_tar(tmp_path / f"a.{kind}", members, mode="w:gz" if kind == "tar.gz" else "w")
    assert whole(path) == {name: {f"{name}.jpg": picture(name), f"{name}.txt": name.encode()} for name in names}
    assert [sample.key for sample, _ in samples_of(path)] == names


NAMES = [
    "a.jpg",
    "./b.jpg",
    "d.v1.2/a.left.jpg",
    "UPPER.JPG",
    "größe/猫.jpg",
    "caf\udce9.jpg",
    " blank .jpg",
    "n" * 99 + ".jpg",
    "d/" * 60 + "deep.jpg",
    "l" * 250 + ".jpg",
    "很" * 70 + ".jpg",
    "p" * 1200 + "/" + "q" * 1200 + ".jpg",
]


@pytest.mark.parametrize("tar_format", FORMATS)
def test_names_are_kept_verbatim(tmp_path, tar_format):
    names = [name for name in NAMES if tar_format != "ustar" or len(os.fsencode(os.path.basename(name))) < 100]
    members = [(name, picture(name.encode("utf-8", "surrogateescape"))) for name in names]
    path = make_tar(tmp_path / "a.tar", members, format=FORMATS[tar_format])
    found = samples_of(path)
    assert [(sample.image.name, data[sample.image.name]) for sample, data in found] == members
    assert [sample.key for sample, _ in found] == [split_key(name)[0] for name in names]


def test_samples_are_those_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    members = [("__meta__", b"x"), (".hidden.jpg", picture(0)), ("no_extension", b"x")]
    for n in range(40):
        members += [(f"f.{n % 3}/{n:04d}.jpg", picture(n)), (f"f.{n % 3}/{n:04d}.txt", b"caption")]
        members += [(f"f.{n % 3}/{n:04d}.seg.png", picture(-n)), (f"f.{n % 3}/{n:04d}.JSON", b"{}")]
    path = make_tar(tmp_path / "a.tar", members)
    expected = {
        sample["__key__"]: {name: data for name, data in sample.items() if not name.startswith("__")}
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    }
    found = whole(path)
    assert list(found) == list(expected)
    for key, data in found.items():
        assert {split_key(name)[1].lower(): content for name, content in data.items()} == expected[key]


@pytest.mark.parametrize(
    ("extensions", "image"),
    [
        (["seg.png", "jpg"], "jpg"),
        (["mask.jpg", "png"], "png"),
        (["json", "JPEG"], "JPEG"),
        (["txt", "left.png"], "left.png"),
        (["txt", "image", "other"], "image"),
        ([""], ""),
    ],
)
def test_the_picture_is_told_by_its_extension_then_by_its_content(tmp_path, extensions, image):
    dotted = [f"k.{extension}" if extension else "k" for extension in extensions]
    [(sample, data)] = samples_of(make_tar(tmp_path / "a.tar", [(name, picture(name)) for name in dotted]))
    assert sample.image.name == (f"k.{image}" if image else "k")
    assert list(sample.sidecars) == [extension for extension in extensions if extension != image]
    assert list(data) == [sample.image.name, *(f"k.{e}" for e in extensions if e != image)]


def test_a_text_is_no_picture_whatever_it_says(tmp_path):
    path = make_tar(tmp_path / "a.tar", [("a.txt", picture(1)), ("b.json", b"{}"), ("c.bin", b"no picture")])
    said = "no image among the members of this key, which are: {}"
    assert problems(path) == [(key, said.format(e)) for key, e in (("a", "txt"), ("b", "json"), ("c", "bin"))]


def test_hidden_files_folders_and_webdatasets_own_names_are_left_out(tmp_path):
    path = save(tmp_path / "a.tar", entry("d/", b"", b"5") + entry("d/__x__.jpg", JPEG) + entry("._g.jpg", b"") + GOOD)
    assert [sample.key for sample, _ in samples_of(path)] == ["good", ""]


def test_a_key_that_comes_twice_is_a_problem_of_the_second_sample(tmp_path):
    path = save(tmp_path / "a.tar", GOOD + entry("b.jpg", JPEG) + GOOD + END)
    assert whole(path) == {"good": GOOD_DATA, "b": {"b.jpg": JPEG}}
    [(key, problem)] = problems(path)
    assert key == "good"
    assert problem.startswith("duplicate key: another sample of this shard is called 'good'; write the shard again")


def test_every_picture_of_a_key_that_ends_at_a_dot_is_a_sample_with_its_own_sidecars(tmp_path):
    names = ["22.05.png", "22.06.png", "22.05.txt", "22.06.txt", "22.json", "22.mask.jpg"]
    found = samples_of(make_tar(tmp_path / "a.tar", [(name, picture(name)) for name in names]))
    assert [(sample.key, list(data)) for sample, data in found] == [
        ("22", ["22.05.png", "22.05.txt", "22.json", "22.mask.jpg"]),
        ("22", ["22.06.png", "22.06.txt"]),
    ]
    assert all("2 pictures of this shard have the key '22'" in sample.notes[0] for sample, _ in found)


@either_kind
def test_archives_one_behind_the_other_are_one_shard(tmp_path, kind):
    first, second = (save(tmp_path / f"a.{kind}", raw + END, kind).read_bytes() for raw in (GOOD, entry("b.jpg", JPEG)))
    path = tmp_path / f"both.{kind}"
    path.write_bytes(first + second)
    assert (whole(path), problems(path)) == ({"good": GOOD_DATA, "b": {"b.jpg": JPEG}}, [])


@pytest.mark.parametrize("padding", [512, 1024, 10240, 10**6])
def test_zeros_behind_the_last_member_are_no_damage(tmp_path, padding):
    assert problems(save(tmp_path / "a.tar", GOOD + bytes(padding))) == []


# What is not a plain file.


@pytest.mark.parametrize(
    "name",
    [
        "../x.jpg",
        "a/../../b.jpg",
        "C:\\x.jpg",
        "c:/x.jpg",
        "..\\x.jpg",
        "a\\..\\..\\x.jpg",
        "\\x.jpg",
        "a/..",
        "a.x\\..\\..\\y",  # a sidecar
    ],
)
def test_names_that_lead_out_of_the_folder_are_a_problem(tmp_path, name):
    assert is_unsafe_name(name)
    beside = entry("a.jpg", JPEG) if name.startswith("a.x") else b""
    path = save(tmp_path / "a.tar", beside + entry(name, picture(2)) + GOOD + END)
    [(sample, data), (_, good)] = samples_of(path)
    assert (str(sample.problem), data) == ("unsafe name: it leads out of the folder that the shard is unpacked to", {})
    assert good == GOOD_DATA


@pytest.mark.parametrize("name", ["a..b.jpg", "..a.jpg", "a/.b/c.jpg", "./a.jpg", "a...jpg", "c:x.jpg", "a/b:c/d.jpg"])
def test_names_that_only_look_odd_are_safe(name):
    assert not is_unsafe_name(name)


def tar_with_links(path, members, links, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return path


@pytest.mark.parametrize("kind", [b"1", b"2"])
@pytest.mark.parametrize("size", [0, 5000])
def test_a_link_out_of_the_shard_or_to_nothing_reads_nothing_and_its_size_is_not_believed(tmp_path, kind, size):
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    links = [header(name, size, kind, target) for name, target in (("a.jpg", ""), ("b.jpg", "../secret.jpg"))]
    links += [header("c.jpg", size, kind, str(tmp_path / "secret.jpg")), entry("d.jpg", JPEG), header("d.txt", 0, kind)]
    path = save(tmp_path / "a.tar", b"".join(links) + GOOD + END)
    assert whole(path) == {"d": {"d.jpg": JPEG}, "good": GOOD_DATA}
    assert [key for key, _ in problems(path)] == ["a", "b", "c"]
    assert problems(path)[0][1] == "a link to '', which this shard does not hold before it"
    assert samples_of(path)[3][0].notes[0].startswith("'d.txt' is left out: a link to ''")


@pytest.mark.parametrize("form", FORMATS)
def test_links_within_a_shard_are_read_as_tar_unpacks_them(tmp_path, form):
    long = "d/" + "x" * (80 if form == "ustar" else 150) + ".jpg"
    members = [("d/a.jpg", picture(1)), (long, picture(2)), ("d/c.txt", b"see"), ("./e.jpg", picture(3))]
    links = [("d/b.jpg", "d/a.jpg", tarfile.LNKTYPE), ("d/c.jpg", "a.jpg", tarfile.SYMTYPE)]
    links += [("x/f.jpg", "../d/a.jpg", tarfile.SYMTYPE), ("g.jpg", "./e.jpg", tarfile.LNKTYPE)]
    links += [
        ("h.jpg", long, tarfile.LNKTYPE),
        ("0.jpg", "i.jpg", tarfile.SYMTYPE),
        ("i.jpg", "h.jpg", tarfile.SYMTYPE),
    ]
    found = whole(tar_with_links(tmp_path / "a.tar", members, links, format=FORMATS[form]))
    assert found["d/c"] == {"d/c.jpg": picture(1), "d/c.txt": b"see"}
    expected = {"d/b": picture(1), "x/f": picture(1), "g": picture(3), "h": picture(2), "0": picture(2)}
    assert {key: [*found[key].values()] for key in expected} == {key: [data] for key, data in expected.items()}


def test_names_begin_behind_a_leading_slash_as_tar_unpacks_them(tmp_path):
    path = save(tmp_path / "a.tar", entry("/x/abs.jpg", JPEG) + entry("//b.jpg", JPEG) + GOOD + END)
    assert whole(path) == {"x/abs": {"x/abs.jpg": JPEG}, "b": {"b.jpg": JPEG}, "good": GOOD_DATA}


@pytest.mark.parametrize("kind", [b"3", b"4", b"5", b"6", b"V", b"N"])
def test_devices_pipes_folders_and_labels_are_passed_over(tmp_path, kind):
    path = save(tmp_path / "a.tar", header("d.jpg", 0, kind) + GOOD + END)
    assert (whole(path), problems(path)) == ({"good": GOOD_DATA}, [])


def test_sparse_members_are_a_problem(tmp_path):
    old = header("old.jpg", 512, b"S") + bytes(512)
    records = pax_records(("GNU.sparse.major", "1"), ("GNU.sparse.name", "new.jpg"), ("GNU.sparse.realsize", "9999"))
    path = save(tmp_path / "a.tar", old + records + entry("GNUSparseFile.0/new.jpg", bytes(512)) + GOOD + END)
    assert whole(path) == {"good": GOOD_DATA}
    assert problems(path) == [(key, "a sparse file, which is not supported") for key in ("old", "new")]


# What is damaged.


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the file is empty"),
        (END, "empty shard: there are no images in it"),
        (b"no tar", "not a tar archive (it starts with b'no tar')"),
        (b"PK\3\4" + bytes(5000), "not a tar archive"),
        (b"text " * 5000, "not a tar archive"),
        (random.Random(0).randbytes(100_000), "not a tar archive"),
        (b"\x1f\x8bno gzip at all", "damaged shard"),
        (b"\x1f\x8b", "damaged shard"),
        (gzip.compress(b"text " * 5000, mtime=0), "not a tar archive"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
    ],
)
def test_a_file_without_samples_is_one_problem_that_says_why(tmp_path, raw, reason):
    path = save(tmp_path / "a.tar", raw)
    [(sample, data)] = samples_of(path)
    assert (sample.key, data) == ("", {})
    assert reason in sample.problem.text


def test_a_file_that_cannot_be_opened_is_an_os_error(tmp_path):
    for path in (tmp_path / "gone.tar", tmp_path):
        with pytest.raises(OSError, match=str(tmp_path)):
            samples_of(path)


@cache
def layout():
    """A shard's bytes, its samples, and where each begins and ends in it."""
    raw, contents, spans = b"", {}, {}
    for n in range(12):
        data = {f"{n:02d}.jpg": picture(n, 90 * n + 200), f"{n:02d}.txt": b"caption %d" % n}
        start = len(raw)
        raw += b"".join(entry(name, content) for name, content in data.items())
        contents[f"{n:02d}"], spans[f"{n:02d}"] = data, (start, len(raw))
    return raw + bytes(10240), contents, spans


@either_kind
def test_a_shard_cut_anywhere_gives_what_is_whole_and_says_that_it_is_cut(tmp_path, kind):
    raw, contents, spans = layout()
    end = max(spans.values())[1]
    places = {
        *range(0, len(raw), 431),
        *(edge + n for span in spans.values() for edge in span for n in (-1, 0, 1, 511)),
    }
    for cut in sorted(place for place in places if 0 <= place < len(raw)):
        path = save(tmp_path / f"a.{kind}", raw[:cut], kind)
        found = whole(path)
        for key, data in found.items():
            image = {f"{key}.jpg": contents[key][f"{key}.jpg"]}  # a cut between the two leaves a picture without text
            assert data in (contents[key], image), cut
        assert {key for key, span in spans.items() if span[1] <= cut} <= {k for k in found if found[k] == contents[k]}
        assert bool(problems(path)) == (cut < end + 512), cut


def test_a_gzip_stream_cut_or_corrupted_anywhere_gives_what_lies_before(tmp_path):
    raw, contents, spans = layout()
    squeezed, rng = gzip.compress(raw, 6), random.Random(4)
    for at in range(0, len(squeezed), 97):
        path = tmp_path / "a.tar.gz"
        path.write_bytes(squeezed[:at])
        assert problems(path), at
        assert all(contents[key] == data or len(data) == 1 for key, data in whole(path).items())
        path.write_bytes(squeezed[:at] + rng.randbytes(20) + squeezed[at + 20 :])
        assert problems(path), at
    path.write_bytes(squeezed[: len(squeezed) * 3 // 4])
    sizes = [len(gzip.compress(raw[: spans[key][1]], 6)) for key in spans]
    assert len(whole(path)) >= sum(size < len(squeezed) * 0.7 for size in sizes) > 5


def damage(raw, rng):
    """Damaged bytes, and the part of the original that it touches."""
    at, length = rng.randrange(len(raw) - 10240), rng.choice((1, 4, 60, 600, 5000))
    change = rng.randrange(4)
    if change == 0:
        return raw[:at] + rng.randbytes(length) + raw[at + length :], (at, at + length)
    if change == 1:
        return raw[:at] + bytes(length) + raw[at + length :], (at, at + length)
    if change == 2:
        return raw[:at] + rng.randbytes(length) + raw[at:], (at, at + 1)
    return raw[:at] + raw[at + length :], (at, at + length)


@pytest.mark.parametrize("seed", range(100))
def test_damage_anywhere_costs_no_sample_that_it_does_not_touch(tmp_path, seed):
    raw, contents, spans = layout()
    damaged, touched = damage(raw, random.Random(seed))
    found = whole(save(tmp_path / "a.tar", damaged))
    for key, (start, end) in spans.items():
        if end <= touched[0] or start >= touched[1]:
            assert found.get(key) == contents[key], (key, touched)


SIZES = {
    "base 256, 2**88": b"\x80" + b"\xff" * 11,
    "base 256, negative": b"\xff" * 12,
    "octal, 8 GB": b"77777777777",
    "garbage": b"no number",
    "negative": b"-1",
}


@either_kind
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("entry_kind", [b"0", b"L", b"x", b"g", b"S", b"Z"])
def test_a_size_that_cannot_be_costs_its_own_member_only(tmp_path, size, entry_kind, kind):
    hostile = header("bad.jpg", SIZES[size], entry_kind)
    path = save(tmp_path / f"a.{kind}", entry("first.jpg", JPEG) + hostile + picture(2, 508) + GOOD + END, kind)
    assert whole(path) == {"first": {"first.jpg": JPEG}, "good": GOOD_DATA}
    assert [key for key, _ in problems(path)] == (["bad", ""] if entry_kind in b"0S" else [""])


@either_kind
def test_many_sizes_that_cannot_be_are_not_each_searched_to_the_end(tmp_path, kind, monkeypatch):
    raw = b"".join(header(f"{n}.jpg", b"77777777777") + picture(n, 508) for n in range(400)) + GOOD + END
    path = save(tmp_path / f"a.{kind}", raw, kind)
    starts, decompress = [], PackedReader._decompress
    monkeypatch.setattr(PackedReader, "_decompress", lambda reader: starts.append(reader) or decompress(reader))
    for _ in read_samples(str(path)):
        pass
    assert len(starts) <= 3  # to the end for the first size, from the start for the headers, again for the bytes
    assert whole(path) == {"good": GOOD_DATA}


def pax_records(*records):
    body = b""
    for key, value in records:
        line = b" %s=%s\n" % (key.encode(), value.encode("utf-8", "surrogateescape"))
        length = len(line) + 1
        while len(b"%d" % length + line) != length:
            length += 1
        body += b"%d" % length + line
    return entry("pax", body, b"x")


def test_pax_records_of_name_and_size_are_believed(tmp_path):
    name = "ö" * 120 + ".jpg"
    raw = pax_records(("path", name), ("size", "704"), ("comment", "=\n")) + entry("short.jpg", picture(5))
    path = save(tmp_path / "a.tar", raw + GOOD + END)
    assert whole(path) == {name[:-4]: {name: picture(5)}, "good": GOOD_DATA}


@pytest.mark.parametrize(
    "body",
    [
        b"0 path=x\n",
        b"5 a=b",
        b"999999999 path=x\n",
        b"9" * 5000 + b" path=x\n",
        "13 size=²²²\n".encode(),
        b"21 size=999999999999\n",
        b"16 size=-100000\n",
        b"\xff" * 700,
        b"5 a=\n" * 150_000,
    ],
)
def test_hostile_pax_records_cost_their_own_member_only(tmp_path, body):
    path = save(tmp_path / "a.tar", entry("p", body, b"x") + entry("a.jpg", picture(2)) + GOOD + END)
    assert whole(path)["good"] == GOOD_DATA


def test_a_picture_of_gigabytes_is_a_problem_and_a_video_is_left_where_it_is(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        for name in ("large.jpg", "a.mp4"):
            file.write(header(name, 2**31 + 512))
            file.seek(2**31 + 512, os.SEEK_CUR)  # a hole: no disk is used
        file.write(entry("a.jpg", JPEG) + entry("a.txt", b"a caption") + GOOD + END)
    assert problems(path) == [("large", "large.jpg has 2,147,484,160 bytes, too many for an image")]
    assert whole(path) == {"a": {"a.jpg": JPEG, "a.txt": b"a caption"}, "good": GOOD_DATA}
    assert samples_of(path)[1][0].sidecars["mp4"].size == 2**31 + 512


@either_kind
def test_a_sidecar_that_the_shard_ends_in_is_a_note(tmp_path, kind):
    raw = entry("a.jpg", JPEG) + header("a.txt", 4096) + b"a capt"
    found = samples_of(save(tmp_path / f"a.{kind}", raw, kind))
    assert [(sample.key, str(sample.problem)[:14], sample.notes[:1]) for sample, _ in found] == [
        ("a", "None", ["'a.txt' is left out: truncated: the shard ends inside 'a.txt'"]),
        ("", "damaged shard:", []),
    ]


# Bounds.


@reads_peak
@either_kind
def test_memory_holds_a_sample_and_not_a_shard(tmp_path, kind):
    content = picture(1, 10**6)
    path = tmp_path / f"a.{kind}"
    members = [(f"{n:03d}.{extension}", content) for n in range(100) for extension in ("jpg", "npy")]
    make_tar(path, members, **({"mode": "w:gz", "compresslevel": 0} if kind == "tar.gz" else {}))
    script = PEAK + (
        "import sys; from tastemaker.imaging.shards import read_samples\n"
        "before = peak(); count = sum(1 for _ in read_samples(sys.argv[1])); print(count, peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=True)
    count, kilobytes = map(int, run.stdout.split())
    assert count == 100
    assert kilobytes < 25_000


@either_kind
def test_a_shard_that_is_left_early_is_closed(tmp_path, kind):
    path = save(tmp_path / f"a.{kind}", GOOD + entry("b.jpg", JPEG) + END, kind)
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        samples = read_samples(str(path))
        next(samples)
        samples.close()
    assert unclosed == []


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes there")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(OSError, match="is no file"):
        open_shard(str(tmp_path / "a.tar"))
