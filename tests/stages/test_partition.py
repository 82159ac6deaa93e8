"""Which files end up in which group."""

import os
import sys

import pytest
from conftest import make_tar

from tastemaker import ConfigurationError, FilePartitioningStage, ImageReaderStage, RunOptions, ScoreTable, run_scoring
from tastemaker.storage import inputs, relative_to, without_repeats
from tastemaker.storage.inputs import Listing, without_results
from tastemaker.storage.place import Entry, Place


@pytest.fixture
def tree(tmp_path):
    for name in ("b.tar", "a/c.tar.gz", "a/x.JPG", "a/y.webp", "z.txt", ".hidden.jpg", ".git/w.png", "notes.json"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (tmp_path / "data" / "no_extension").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "data"


def groups_of(*arguments, **options):
    return [
        [path.rpartition("/data/")[2] for path in task.data]
        for task in FilePartitioningStage(*arguments, **options).process()
    ]


RESULTS = ("best/rows/a.parquet", "best/kept/1.jpg", "best/_tastemaker/run.json", "best/mine.tar", "kept/mine.tar")


def test_what_a_run_or_a_selection_wrote_at_a_url_is_not_read_as_input():
    store = Place.of("memory://results-below/data")
    chosen = ("chosen/images-000000.tar", "chosen/_tastemaker/selection.json")
    for name in ("a.tar", *RESULTS, *chosen):
        (store / name).write(b"x")
    url = "memory://results-below/data"
    assert groups_of(url) == [["a.tar"], ["best/mine.tar"], ["kept/mine.tar"]]
    assert groups_of(f"{url}/chosen") == [["chosen/images-000000.tar"]]  # somebody named it


@pytest.mark.parametrize(
    ("listed", "root"),
    [
        ("s3", "s3a://box/data"),
        ("gcs", "gs://box/data/"),
        ("abfss", "az://box/data"),
        ("az", "abfss://box@account.dfs.core.windows.net/data"),
    ],
)
def test_results_are_known_under_every_spelling_of_their_place(listed, root):
    found = without_results([Entry(Place.at(f"{listed}://box/data/{name}"), 1) for name in ("a.tar", *RESULTS)], root)
    assert [relative_to(entry.path, root) for entry in found] == ["a.tar", "best/mine.tar", "kept/mine.tar"]


def test_a_file_is_one_file_under_two_spellings_of_its_place():
    files = [Entry(Place.at(f"{scheme}://box/a.tar"), 1) for scheme in ("s3", "s3a", "gs")]
    assert [file.path for file in without_repeats(files)] == ["s3://box/a.tar", "gs://box/a.tar"]
    accounts = [Entry(Place.at(f"abfss://box@{account}.dfs.core.windows.net/a.tar"), 1) for account in ("one", "two")]
    assert without_repeats(accounts) == accounts


def test_shards_are_groups_of_their_own_and_loose_images_go_together(tree):
    assert groups_of(str(tree)) == [["a/c.tar.gz"], ["b.tar"], ["a/x.JPG", "a/y.webp", "no_extension"]]


def test_extensions_count_and_limit_narrow_the_list(tree):
    assert groups_of(str(tree), file_extensions=[".tar"]) == [["b.tar"]]
    assert groups_of(str(tree), file_extensions=["jpg", ".webp"], files_per_partition=1) == [["a/x.JPG"], ["a/y.webp"]]
    assert groups_of(str(tree), files_per_partition=2, limit=1) == [["a/c.tar.gz", "b.tar"]]
    assert groups_of(str(tree), blocksize="12B") == [["a/c.tar.gz", "b.tar"], ["a/x.JPG", "a/y.webp"], ["no_extension"]]


def test_globs_files_and_folders_may_be_mixed_and_no_file_comes_twice(tree):
    paths = [str(tree / "*.tar"), str(tree / "a"), str(tree / "a" / "x.JPG"), str(tree / "z")]
    (tree / "z").write_bytes(b"damaged, perhaps")  # somebody named it
    paths.append(f"{tree}/a/../b.tar")
    assert groups_of(paths) == [["b.tar"], ["a/c.tar.gz"], ["a/x.JPG", "a/y.webp"], ["z"]]


def test_outputs_have_the_names_of_their_inputs_and_never_the_same(tmp_path):
    for name in ("one/s/00.tar", "two/s/00.tar", "one/photos/a.jpg", "two/photos/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    folders = [str(tmp_path / name) for name in ("one", "two", "one/photos", "two/photos")]
    names = [task.partition.name for task in FilePartitioningStage(folders[:2]).process()]
    assert names == ["s/00", "s/00-2", "one-00000", "two-00000"]
    names = [task.partition.name for task in FilePartitioningStage(folders[2:]).process()]
    assert names == ["photos-00000", "photos-2-00000"]
    (tmp_path / "one/photos/photos-00000.tar").write_bytes(b"1")
    names = [task.partition.name for task in FilePartitioningStage(folders[2]).process()]
    assert names == ["photos-00000", "photos-00001"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes there")
@pytest.mark.parametrize("name", ["_best", ".hidden", "..", "é" * 125])
def test_rows_of_a_folder_of_any_name_are_found_again(tmp_path, photographs, model_dir, name):
    folder = tmp_path / "photos" if name == ".." else tmp_path / name
    for below in (folder, folder / "_"):
        below.mkdir()
        (below / "rocket.jpg").write_bytes(photographs["rocket.jpg"])
    make_tar(folder / "_train.tar", [("a.jpg", photographs["rocket.jpg"])])
    given = folder / "_" / name if name == ".." else folder
    summary = run_scoring([str(given)], tmp_path / "out", RunOptions(model_dir=str(model_dir)))
    assert len(ScoreTable(tmp_path / "out")) == summary.images == 3


def test_a_pipe_without_an_extension_is_not_waited_for(tree):
    os.mkfifo(tree / "pipe")
    assert groups_of(str(tree))[-1] == ["a/x.JPG", "a/y.webp", "no_extension"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_among_what_is_to_be_read(tree):
    (tree / "secret").mkdir(mode=0)
    assert groups_of(str(tree))[-1] == ["a/x.JPG", "a/y.webp", "no_extension", "secret"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": -1}, "limit=-1 is less than 0"),
        ({"files_per_partition": 1, "blocksize": "1MB"}, "not both"),
        ({"files_per_partition": 0}, "less than 1"),
        ({"blocksize": "a lot"}, "no size"),
        ({"blocksize": "1.2.3MB"}, "no size"),
    ],
)
def test_wrong_options_are_refused_at_once(options, message):
    with pytest.raises(ConfigurationError, match=message):
        FilePartitioningStage("data", **options)


def test_what_is_not_there_is_an_error(tree):
    for paths, message in (
        (["nowhere"], "nowhere does not exist"),
        ([], "no images"),
        ("memory://nowhere/x", "does not exist"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            FilePartitioningStage(paths).process()
    with pytest.raises(ConfigurationError, match="no images"):
        FilePartitioningStage(str(tree), file_extensions=[".heic"]).check()


def test_no_task_shows_the_key_of_a_store(tmp_path, photographs):
    make_tar(tmp_path / "a.tar", [("a.png", photographs["coffee.png"])])
    options = {"secret": "keep-it"}
    for task in FilePartitioningStage(str(tmp_path), storage_options=options).process():
        assert task.partition.storage_options == options
        assert "keep-it" not in repr([task, *ImageReaderStage().process(task)])


def test_a_place_is_listed_once_and_how_many_files_it_has_is_told_meanwhile(tree, monkeypatch):
    monkeypatch.setattr(inputs, "_TELL_S", -1)
    told = []
    listing = Listing(told.append)
    found = listing(Place.of(tree))
    (tree / "new.jpg").write_bytes(b"12345")
    assert listing(Place.of(tree)) is found
    assert told == list(range(1, len(found) + 1))


def test_files_at_a_url_and_files_of_a_list_are_counted_while_they_are_found(tree, monkeypatch):
    monkeypatch.setattr(inputs, "_TELL_S", -1)
    told = []
    for name in "ab":
        (Place.of("memory://counted") / f"{name}.jpg").write(b"12345")
    listing = Listing(told.append)
    for place in ("memory://counted", "memory://counted/*.jpg", str(tree / "b.tar")):
        listing(Place.at(place))
    assert told == [1, 2, 3, 4, 5]
