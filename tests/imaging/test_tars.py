"""Shards as they are, and as they should not be."""

import gzip
import io
import tarfile

import pytest
from conftest import make_tar

from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.shards import read_samples, split_key

JPEG = b"\xff\xd8\xff" + b"pixels" * 100


def contents(path):
    """Return (key, name of the image, all bytes, problem) of each sample; at a URL they are the same."""
    assert list(read_samples(f"file://{path}")) == list(read_samples(str(path)))
    return [(s.key, s.image and s.image.name, data, s.problem) for s, data in read_samples(str(path))]


def write(tmp_path, members, kind):
    path = tmp_path / f"a.tar{'.gz' if kind == 'gz' else ''}"
    return make_tar(path, members, mode="w:gz" if kind == "gz" else "w")


@pytest.mark.parametrize("kind", ["plain", "gz"])
def test_members_of_a_sample_may_lie_anywhere(tmp_path, kind):
    names = [f"f.1/{n:04d}" for n in range(50)]
    members = [*[(f"{n}.jpg", JPEG + n.encode()) for n in names], *[(f"{n}.txt", n.encode()) for n in reversed(names)]]
    found = contents(write(tmp_path, members, kind))
    assert [key for key, *_ in found] == names
    assert all(data == {f"{k}.jpg": JPEG + k.encode(), f"{k}.txt": k.encode()} for k, _, data, _ in found)
    assert not any(problem for *_, problem in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", ("a", "jpg")), ("d.v1/a.b.jpg", ("d.v1/a", "b.jpg")), ("./a.JPG", ("./a", "JPG")), ("a", ("a", ""))],
)
def test_the_key_ends_at_the_first_dot_of_the_base_name(name, expected):
    assert split_key(name) == expected


def test_names_come_out_as_they_went_in(tmp_path):
    long = "d/" + "x" * 180 + ".jpg"
    names = ["./a.jpg", "größe.jpg", "caf\udce9.jpg", long, "b.c.d.jpg", "UPPER.JPG"]
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = make_tar(tmp_path / "a.tar", [(name, JPEG) for name in names], format=tar_format)
        assert [name for _, name, _, _ in contents(path)] == names


def test_the_picture_of_a_sample_is_found_by_extension_then_by_content(tmp_path):
    members = [
        ("a.seg.png", b"mask"),
        ("a.jpg", JPEG),
        ("b.json", b"{}"),
        ("b.data", JPEG),
        ("c.json", b"{}"),
        ("__meta__/x.jpg", JPEG),
    ]
    found = {key: (name, problem) for key, name, _, problem in contents(make_tar(tmp_path / "a.tar", members))}
    assert found["a"] == ("a.jpg", "")
    assert found["b"] == ("b.data", "")
    assert found["c"][0] is None
    assert "no image" in found["c"][1]


@pytest.mark.parametrize("kind", ["plain", "gz"])
def test_a_shard_cut_anywhere_yields_what_is_whole_and_says_that_it_was_cut(tmp_path, kind):
    members = [(f"{n}.jpg", JPEG * (n + 1)) for n in range(6)]
    raw = write(tmp_path, members, "plain").read_bytes()
    for cut in range(0, len(raw) - 10240 + 512 * 4, 377):
        path = tmp_path / "cut.tar"
        path.write_bytes(gzip.compress(raw[:cut]) if kind == "gz" else raw[:cut])
        found = contents(path)
        whole = [(key, data) for key, _, data, problem in found if not problem]
        assert whole == [(f"{n}.jpg"[:-4], {f"{n}.jpg": JPEG * (n + 1)}) for n in range(len(whole))]
        if cut < len(raw.rstrip(b"\0")):
            assert any(problem for *_, problem in found), cut


def test_a_gzip_stream_that_breaks_off_is_noted(tmp_path):
    path = write(tmp_path, [(f"{n}.jpg", JPEG * 500) for n in range(20)], "gz")
    raw = path.read_bytes()
    for damaged in (raw[: len(raw) // 2], raw[: len(raw) // 2] + b"garbage" * 50, raw[:5]):
        path.write_bytes(damaged)
        assert any(problem for *_, problem in contents(path))


def test_a_gzip_file_that_is_called_tar_is_read(tmp_path):
    path = write(tmp_path, [("a.jpg", JPEG)], "gz").rename(tmp_path / "b.tar")
    assert contents(path) == [("a", "a.jpg", {"a.jpg": JPEG}, "")]


def test_after_garbage_in_the_middle_the_walk_goes_on(tmp_path):
    raw = bytearray(write(tmp_path, [(f"{n}.jpg", JPEG) for n in range(5)], "plain").read_bytes())
    step = 512 + 1024
    raw[2 * step : 2 * step + 512] = b"\x55" * 512
    path = tmp_path / "b.tar"
    path.write_bytes(raw)
    found = contents(path)
    assert [key for key, _, data, problem in found if data and not problem] == ["0", "1", "3", "4"]
    assert "no sound header" in found[-1][3]


@pytest.mark.parametrize("kind", ["plain", "gz"])
def test_archives_one_behind_the_other_are_one_shard(tmp_path, kind):
    first = write(tmp_path, [("a.jpg", JPEG)], kind).read_bytes()
    second = write(tmp_path, [("b.jpg", JPEG)], kind).read_bytes()
    path = tmp_path / "both.tar"
    path.write_bytes(first + second)
    assert [(key, problem) for key, _, _, problem in contents(path)] == [("a", ""), ("b", "")]


def test_garbage_between_two_archives_is_damage(tmp_path):
    first = write(tmp_path, [("a.jpg", JPEG)], "plain").read_bytes()
    second = write(tmp_path, [("b.jpg", JPEG)], "plain").read_bytes()
    path = tmp_path / "both.tar"
    path.write_bytes(first + b"\x55" * 512 + second)
    *images, (_, _, _, damage) = contents(path)
    assert [(key, problem) for key, _, _, problem in images] == [("a", ""), ("b", "")]
    assert damage == "damaged shard: no sound header at byte 10,240; the walk went on at 10,752"


@pytest.mark.parametrize("raw", [b"", bytes(10240), b"this is no tar" * 1000, b"\x1f\x8bnot gzip"])
def test_what_holds_no_images_says_so(tmp_path, raw):
    path = tmp_path / "a.tar"
    path.write_bytes(raw)
    [(key, name, data, problem)] = contents(path)
    assert (key, name, data) == ("", None, {})
    assert problem


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.jpg", "C:\\a.jpg", "..\\a.jpg"])
def test_members_that_climb_out_are_not_read(tmp_path, name):
    found = contents(make_tar(tmp_path / "a.tar", [(name, JPEG), ("b.jpg", JPEG)]))
    assert "unsafe name" in found[0][3]
    assert found[1] == ("b", "b.jpg", {"b.jpg": JPEG}, "")


def test_the_second_sample_of_a_key_is_a_duplicate_with_its_own_sidecars(tmp_path):
    members = [("a.jpg", JPEG), ("a.txt", b"1"), ("a.jpg", JPEG + b"2"), ("a.txt", b"2")]
    first, second = contents(make_tar(tmp_path / "a.tar", members))
    assert first == ("a", "a.jpg", {"a.jpg": JPEG, "a.txt": b"1"}, "")
    assert "duplicate key" in second[3]


def header(name, size=b"00000000010\0", kind=b"0"):
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "size", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"nonsense....", b"\x80" + b"\0" * 6 + b"\xff" * 5]
)
def test_hostile_sizes_neither_hang_nor_allocate(tmp_path, size):
    path = tmp_path / "a.tar"
    path.write_bytes(
        header("good.jpg", b"%011o\0" % len(JPEG)) + JPEG.ljust(1024, b"\0") + header("bad.jpg", size) + bytes(1024)
    )
    found = contents(path)
    assert found[0] == ("good", "good.jpg", {"good.jpg": JPEG}, "")
    assert all(problem for *_, problem in found[1:])


@pytest.mark.parametrize(
    "records", [b"0 path=x\n", b"1 \n", b"999999999999 path=x", b"12 size=abc\n", b"no number", b"\xff" * 100]
)
def test_hostile_pax_records_are_passed_over(tmp_path, records):
    path = tmp_path / "a.tar"
    pax = header("pax", b"%011o\0" % len(records), b"x") + records.ljust(512, b"\0")
    path.write_bytes(pax + header("a.jpg", b"%011o\0" % len(JPEG)) + JPEG.ljust(1024, b"\0") + bytes(1024))
    assert len(contents(path)) >= 1


def test_links_and_folders_are_no_images(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = len(JPEG)
        tar.addfile(info, io.BytesIO(JPEG))
    found = {key: problem for key, _, _, problem in contents(path)}
    assert found == {"link": "a link, not a file", "a": ""}


def test_a_loose_image_has_the_sidecars_of_its_stem_and_of_its_whole_name(tmp_path):
    for name in ("x/2020.01.02.jpg", "x/2020.01.02.txt", "x/2020.01.02.jpg.xmp", "x/2020.01.03.jpg", "x/2020.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    sample, data = FolderReader().read_sample(str(tmp_path / "x" / "2020.01.02.jpg"), str(tmp_path))
    assert sample.key == "x/2020.01.02"
    assert sorted(sample.sidecars) == ["jpg.xmp", "txt"]
    assert sorted(name.rpartition("/")[2] for name in data) == [
        "2020.01.02.jpg",
        "2020.01.02.jpg.xmp",
        "2020.01.02.txt",
    ]
