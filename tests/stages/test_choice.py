"""Which of the files that are found are read, and what is said of the others."""

import io
import os
import sys
import tarfile
import zipfile

import pytest
from PIL import Image

from tastemaker import ConfigurationError, FilePartitioningStage, ImageReaderStage
from tastemaker.stages.choice import describe, without_sidecars
from tastemaker.storage.place import Place


def encode(kind="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 100, 50)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def fill(tmp_path):
    """Write files below a folder: a dictionary of name -> content, or names of JPEGs. Return the folder."""

    def write(*pictures, **contents):
        folder = tmp_path / "in"
        for name, content in {**dict.fromkeys(pictures, encode()), **contents.pop("files", {})}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return write


def look(paths, **options):
    """Return the names of the files that are read, and what was passed over."""
    stage = FilePartitioningStage(paths, **options)
    names = [os.path.basename(path) for task in stage.process() for path in task.data]
    return sorted(names), without_sidecars(stage.passed_over)


def a_tar(name="0.jpg"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(encode())
        tar.addfile(info, io.BytesIO(encode()))
    return file.getvalue()


NAMES = [
    "b.jpg_large",
    "c.jpg!d",
    "d.JPG~",
    "IMG.20200101",
    "photo.1",
    "e.bak",
    "noext",
    "g.jpg.download",
    "k.",
    "n.mpo",
]


def test_pictures_are_known_by_their_content_whatever_they_are_called(fill):
    folder = fill(*NAMES, "stereo.jps", files={"notes.doc": b"no picture", "readme": b"text"})
    assert look(str(folder)) == (sorted([*NAMES, "stereo.jps"]), {".doc": 1, "without extension": 1})


def test_what_is_at_a_url_is_known_by_its_content_too():
    store = Place.of("memory://by-content")
    for name, content in {"a.jpg_large": encode(), "b.zip": b"PK", "c.wds": a_tar(), "@eaDir/t.jpg": encode()}.items():
        (store / name).write(content)
    assert look("memory://by-content") == (["a.jpg_large", "c.wds"], {".zip": 1, "in @eaDir": 1})


@pytest.mark.parametrize("name", ["shard.wds", "shard.tar.part", "shard"])
def test_a_tar_is_known_by_its_content_and_read_as_one(fill, name):
    folder = fill(files={name: a_tar()})
    for given in (folder, folder / name):
        (task,) = FilePartitioningStage(str(given)).process()
        (batch,) = ImageReaderStage().process(task)
        assert [(image.image_id, image.failed) for image in batch.data] == [("0", False)]


def test_what_is_no_input_is_counted_by_kind_and_sidecars_are_not(fill):
    files = dict.fromkeys(
        ["a.txt", "a.json", "a.mov", "metadata.jsonl", "b.jxl", "c.jxl", "more.zip", "clip.mov"], b"x"
    )
    assert look(str(fill("a.jpg", files=files))) == (["a.jpg"], {".jxl": 2, ".zip": 1, ".mov": 1})


def test_thumbnails_recycle_bins_and_catalogues_are_passed_over_and_originals_in_them_are_not(fill):
    junk = ["@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_SM.jpg", "#recycle/b.jpg"]
    junk += ["$RECYCLE.BIN/S-1/$R1.jpg", "__MACOSX/c.jpg", "Lib Previews.lrdata/A/x.jpg", "._a.jpg"]
    junk += ["X.photoslibrary/resources/derivatives/a.jpg", ".thumbnails/t.jpg"]
    folder = fill("a.jpg", "X.photoslibrary/originals/0/o.jpg", "lost+found/l.jpg", *junk)
    names, passed_over = look(str(folder))
    assert names == ["a.jpg", "l.jpg", "o.jpg"]
    assert passed_over.pop("in @eaDir") == 2
    counted = ["#recycle", "$RECYCLE.BIN", "__MACOSX", "Lib Previews.lrdata", "X.photoslibrary"]
    assert passed_over == {**{f"in {name}": 1 for name in counted}, "hidden folder": 1}
    assert look(str(folder / "@eaDir"))[0] == ["SYNOPHOTO_THUMB_SM.jpg", "SYNOPHOTO_THUMB_XL.jpg"]  # somebody named it


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_counted_and_read_where_they_are_named(fill, tmp_path):
    folder = fill("a.jpg", "deep/b.jpg")
    os.symlink(tmp_path / "in" / "deep", folder / "album")
    os.symlink(".", folder / "loop")
    assert look(str(folder)) == (["a.jpg", "b.jpg"], {"linked folder": 2})
    assert look(str(folder / "album")) == (["b.jpg"], {})


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.png", ["a.jpg", "b.jpg", "d.jpg"]),
        ("drafts", ["a.jpg", "b.jpg", "c.png"]),
        ("2019/*", ["a.jpg", "c.png", "d.jpg"]),
        ("2019", ["a.jpg", "c.png", "d.jpg"]),
    ],
)
def test_what_is_excluded_is_counted(fill, pattern, left):
    folder = fill("a.jpg", "2019/b.jpg", "c.png", "x/drafts/d.jpg")
    assert look(str(folder), exclude=[pattern]) == (left, {"excluded": 1})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("images.zip", "unpack archives"),
        ("photo.jxl", "PNG or JPEG"),
        ("train.tfrecord", "to tars, Parquet or a folder"),
        ("list.txt", "--files-from FILE"),
        ("clip.mp4", "ffmpeg"),
    ],
)
def test_where_there_are_no_images_the_error_says_what_there_is_and_what_helps(fill, name, advice):
    folder = fill(files={name: b"x"})
    for given in (folder, folder / name):
        with pytest.raises(ConfigurationError) as caught:
            FilePartitioningStage(str(given)).process()
        assert f"Passed over: 1 {os.path.splitext(name)[1]}" in str(caught.value)
        assert advice in str(caught.value)


def test_an_archive_is_known_by_its_content(fill):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", encode())
    with pytest.raises(ConfigurationError, match=r"1 \.zip \(unpack archives first"):
        FilePartitioningStage(str(fill(files={"download": file.getvalue()}))).process()


def test_a_line_about_very_many_kinds_stays_short():
    assert describe({f".x{n:02d}": 1 for n in range(20)}).endswith("12 other files")
    assert describe({".txt": 3}) == ""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("{00..02}.tar", ["00.tar", "01.tar", "02.tar"]),
        ("{00,02}.tar", ["00.tar", "02.tar"]),
        ("x{1}.tar", ["x{1}.tar"]),
        ("p [2020]/*.jpg", ["a.jpg", "b[0].jpg"]),
        ("p [2020]/b[0].jpg", ["b[0].jpg"]),
        ("s*r/*", ["c.jpg"]),
        ("**/*.jpg", ["a.jpg", "b[0].jpg", "c.jpg"]),
    ],
)
def test_braces_and_patterns_stand_for_files_and_what_exists_for_itself(fill, given, found):
    tars = {name: a_tar() for name in ("00.tar", "01.tar", "02.tar", "x{1}.tar")}
    folder = fill("p [2020]/a.jpg", "p [2020]/b[0].jpg", "s*r/c.jpg", files=tars)
    assert look(f"{folder}/{given}")[0] == found


@pytest.mark.parametrize("given", [b"photos", 3, [3], [encode()]])
def test_inputs_that_are_no_paths_are_refused_with_what_is_wanted(given):
    with pytest.raises(ConfigurationError, match="path"):
        FilePartitioningStage(given).process()
