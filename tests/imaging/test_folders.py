"""Loose images: keys, sidecars, and files that are not what they seem."""

import os
import sys

import pytest

from tastemaker.imaging.folders import FolderReader
from tastemaker.imaging.keys import MAX_IMAGE_BYTES


@pytest.fixture
def fill(tmp_path):
    """Write files, each with its own name as content, and return the folder."""

    def write(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name))
        return str(tmp_path)

    return write


def read(root, name, reader=None):
    """Return key, {extension: content} of the sidecars, content of the image and the problem."""
    path = os.path.join(root, name)
    sample, data = (reader or FolderReader()).read_sample(path, root)
    assert sample.image is not None
    assert sample.image.name == path
    sidecars = {extension: data.get(member.name) for extension, member in sample.sidecars.items()}
    return sample.key, sidecars, data.get(path), str(sample.problem or "")


@pytest.mark.parametrize(
    ("name", "key"),
    [("a.jpg", "a"), ("x/y/a.JPG", "x/y/a"), ("2020.01.02.jpg", "2020.01.02"), ("v1.0/a.jpg", "v1.0/a"), ("a", "a")],
)
def test_the_key_is_the_path_below_the_root_without_its_last_extension(fill, name, key):
    assert read(fill(name), name) == (key, {}, name.encode(), "")


def test_sidecars_are_the_files_of_the_same_stem_or_of_the_whole_name(fill):
    ours = ["a.txt", "a.json", "a.jpg.json", "a.npy", "a.jpg.xmp"]
    others = ["ab.txt", "a.b.txt", "A.txt", "b.txt", ".a.txt", "a", "below/a.txt"]
    root = fill("a.jpg", *ours, *others)
    read_ones = {name[2:]: name.encode() for name in sorted(ours)} | {"npy": None}  # which gives no column
    assert read(root, "a.jpg") == ("a", read_ones, b"a.jpg", "")


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_20240101_120000_LONGER.jpg", "IMG_20240101_120000_LONGER.jpg.supplemental-me.json"),
        ("IMG_1.jpg", "IMG_1.jpg.s.json"),
        ("IMG_1.jpg", "IMG_1.jpg..json"),
        ("IMG_4(1).jpg", "IMG_4.jpg(1).json"),
        ("IMG_4(1).jpg", "IMG_4.jpg.supplemental-metadata(1).json"),
        ("IMG_5-edited.jpg", "IMG_5.jpg.supplemental-metadata.json"),
        ("IMG_5-edited(2).jpg", "IMG_5.jpg(2).json"),
        (f"{'x' * 60}.jpg", f"{'x' * 46}.json"),
    ],
)
def test_the_json_of_google_takeout_belongs_to_its_picture_however_it_is_spelt(fill, picture, found):
    others = ["IMG_9.jpg.json", "IMG_4.jpg(2).json", "IMG_1.jpg.txt.json", "IMG_40.jpg.json"]
    root = fill(picture, found, *others)
    _, sidecars, _, problem = read(root, picture)
    assert list(sidecars.values()) == [found.encode()]
    assert problem == ""


def test_other_images_are_no_sidecars(fill):
    root = fill("a.jpg", "a.png", "a.WEBP", "a.txt")
    assert read(root, "a.jpg") == ("a", {"txt": b"a.txt"}, b"a.jpg", "")
    assert read(root, "a.png") == ("a", {"txt": b"a.txt"}, b"a.png", "")


def test_names_that_are_not_utf8_come_out_as_they_are(fill):
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    root = fill("caf\udce9.jpg", "caf\udce9.txt", "größe.jpg")
    assert read(root, "caf\udce9.jpg") == ("caf\udce9", {"txt": b"caf\xe9.txt"}, b"caf\xe9.jpg", "")
    assert read(root, "größe.jpg")[0] == "größe"


def test_an_empty_file_is_whole_and_left_to_the_decoder(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert read(str(tmp_path), "a.jpg") == ("a", {}, b"", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(fill):
    root = fill("a.jpg")
    os.mkfifo(os.path.join(root, "a.txt"))
    os.mkfifo(os.path.join(root, "b.jpg"))
    assert read(root, "a.jpg") == ("a", {}, b"a.jpg", "")
    assert read(root, "b.jpg")[2:] == (None, "b.jpg is no file")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_broken_ones_are_a_problem(fill):
    root = fill("a.jpg", "text")
    os.symlink("text", os.path.join(root, "a.txt"))
    os.symlink("nowhere", os.path.join(root, "a.json"))
    os.symlink("nowhere", os.path.join(root, "b.jpg"))
    assert read(root, "a.jpg") == ("a", {"txt": b"text"}, b"a.jpg", "")
    assert read(root, "b.jpg")[2:] == (None, "b.jpg cannot be read: No such file or directory")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_sidecar_that_cannot_be_read_is_a_note_and_costs_no_picture_its_own(fill):
    root = fill("a.jpg", "a.json", "b.jpg", "b.txt")
    os.symlink("a.txt", os.path.join(root, "a.txt"))
    sample, data = FolderReader().read_sample(os.path.join(root, "a.jpg"), root)
    assert (sample.problem, list(sample.sidecars)) == (None, ["json"])
    assert sample.notes == ["a.txt cannot be read: Too many levels of symbolic links"]
    assert {os.path.basename(name) for name in data} == {"a.jpg", "a.json"}
    assert read(root, "b.jpg") == ("b", {"txt": b"b.txt"}, b"b.jpg", "")


def test_a_sidecar_of_any_size_costs_neither_the_picture_nor_memory(fill):
    root = fill("a.jpg", "a.txt", "a.mp4")
    for name in ("a.txt", "a.mp4"):
        os.truncate(os.path.join(root, name), MAX_IMAGE_BYTES + 1)
    sample, data = FolderReader().read_sample(os.path.join(root, "a.jpg"), root)
    assert (sample.problem, list(data)) == (None, [os.path.join(root, "a.jpg")])
    assert {extension: member.size for extension, member in sample.sidecars.items()} == dict.fromkeys(
        ("mp4", "txt"), MAX_IMAGE_BYTES + 1
    )
    assert sample.notes == ["a.txt has 2,147,483,649 bytes, too many for a row"]


def test_what_is_gone_or_is_a_folder_is_a_problem(fill):
    root = fill("folder.jpg/x.txt")
    assert read(root, "gone.jpg")[2:] == (None, "gone.jpg cannot be read: No such file or directory")
    assert read(root, "no/where.jpg")[2:] == (None, "where.jpg cannot be read: No such file or directory")
    assert read(root, "folder.jpg")[2:] == (None, "folder.jpg is no file")


def test_a_file_too_large_for_an_image_is_not_read(fill):
    root = fill("a.jpg")
    os.truncate(os.path.join(root, "a.jpg"), MAX_IMAGE_BYTES + 1)
    assert read(root, "a.jpg")[2:] == (None, "a.jpg has 2,147,483,649 bytes, too many for an image")


def test_a_folder_is_listed_once_even_if_the_walk_goes_through_others_in_between(fill, monkeypatch):
    names = [f"{n:02d}.jpg" for n in range(10)] + [f"{n:02d}/a.jpg" for n in range(10)]
    root, listed = fill(*names), []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    reader = FolderReader()
    for name in sorted(names):
        assert read(root, name, reader)[3] == ""
    assert len(listed) == 11
