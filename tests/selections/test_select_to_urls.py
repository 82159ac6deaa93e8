"""Selections and reports written to an object store: the files of a local one, complete once the record is there."""

# ruff: noqa: F811 - fixtures are arguments

from datetime import date

import pytest
from conftest import contents, make_tar
from remote_servers import _impatient, bucket, moto_port  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker import ConfigurationError, ScoreTable, Selection, select_images
from tastemaker.errors import RemoteError
from tastemaker.explorer.report import write_report
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network
ALL = Selection(where="status = 'kept'")
NOTES = ["_tastemaker/files/files.jsonl", "_tastemaker/selected.parquet", "_tastemaker/selection.json"]


@pytest.fixture
def table(tmp_path, photographs, model_dir):
    tar = make_tar(tmp_path / "a.tar", photographs.items())
    run_scoring([str(tar)], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    return ScoreTable(tmp_path / "s")


@pytest.fixture
def select(table, bucket):
    def run(name, selection=ALL, **options):
        return select_images(table, f"{bucket.url}/{name}", selection, storage_options=bucket.options, **options)

    return run


def without_versions(files):
    """Leave out the record of files: it has what tells their versions apart, in each place another."""
    return {name: data for name, data in files.items() if not name.endswith("files.jsonl")}


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_folder_at_a_url_has_the_files_of_a_local_one(tmp_path, table, bucket, select, kind):
    here = select_images(table, tmp_path / "out", ALL, kind=kind, images_per_tar=4)
    there = select("out", kind=kind, images_per_tar=4)
    assert without_versions(bucket.files("out")) == without_versions(contents(tmp_path / "out"))
    assert (there.written, there.bytes_written) == (6, here.bytes_written)
    select("out", kind=kind, images_per_tar=4)
    assert without_versions(bucket.files("out")) == without_versions(contents(tmp_path / "out"))


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl", "keys.txt"])
def test_lists_at_a_url_are_those_of_this_machine(tmp_path, table, bucket, select, name):
    kind = "uids" if name == "keys.txt" else "manifest"
    select_images(table, tmp_path / "out" / name, ALL, kind=kind)
    select(f"out/{name}", kind=kind)
    select(f"out/{name}", kind=kind)
    assert without_versions(bucket.files("out")) == without_versions(contents(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="is there with other content"):
        select(f"out/{name}", Selection(min_score=-1e9, where="image_id = 'rocket'"), kind=kind)
    select(f"out/{name}", Selection(where="image_id = 'rocket'"), kind=kind, overwrite=True)
    assert bucket.files("out")[name] != (tmp_path / "out" / name).read_bytes()


def test_what_select_did_not_write_is_refused_and_another_selection_is_replaced_when_told(bucket, select):
    bucket.store.put("mine/a.txt", b"mine")
    with pytest.raises(ConfigurationError, match="no selection wrote it"):
        select("mine", kind="folder")
    assert bucket.files("mine") == {"a.txt": b"mine"}
    select("out", kind="folder")
    rocket = Selection(where="image_id = 'rocket'")
    with pytest.raises(ConfigurationError, match="holds another selection"):
        select("out", rocket, kind="folder")
    select("out", rocket, kind="folder", overwrite=True)
    assert sorted(bucket.files("out")) == [*NOTES, "rocket.jpg"]


def files_but_notes(bucket, name):
    return {path: data for path, data in bucket.files(name).items() if not path.startswith("_tastemaker/")}


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_selection_that_broke_off_is_finished_by_any_other(bucket, select, kind):
    def stop(progress):
        if progress.images == 3:
            raise KeyboardInterrupt

    others = Selection(where="image_id != 'rocket'")
    for name, selection in (("old", ALL), ("new", others)):
        select(name, selection, kind=kind, images_per_tar=1)
    with pytest.raises(KeyboardInterrupt):
        select("old", others, kind=kind, images_per_tar=1, overwrite=True, on_progress=stop)
    assert b'"unfinished"' in bucket.files("old")["_tastemaker/selection.json"]
    select("old", others, kind=kind, images_per_tar=1)  # the same command, and nothing to overwrite any more
    assert files_but_notes(bucket, "old") == files_but_notes(bucket, "new")
    assert sorted(bucket.files("old")) == sorted(bucket.files("new"))
    with pytest.raises(KeyboardInterrupt):
        select("fresh", kind=kind, on_progress=stop)
    assert bucket.files("fresh") == {}


def test_an_upload_that_fails_for_good_leaves_nothing_that_says_it_is_finished(bucket, select):
    bucket.server.only, bucket.server.always = "rocket.jpg", Fault(status=503)
    with pytest.raises(RemoteError, match=r"rocket\.jpg cannot be written"):
        select("out", kind="folder")
    bucket.server.always = None
    assert b'"finished"' not in bucket.files("out").get("_tastemaker/selection.json", b"")
    assert select("out", kind="folder").written == 6
    assert b'"finished"' in bucket.files("out")["_tastemaker/selection.json"]


def test_only_what_we_wrote_is_replaced_in_a_store(bucket, select):
    def put(name, data):
        Place.of(f"{bucket.url}/out/{name}", bucket.options).write(data)

    select("out", kind="folder")
    put("mine.txt", b"mine")
    put("coffee.png", b"edited")
    summary = select("out", Selection(where="image_id = 'rocket'"), kind="folder", overwrite=True)
    assert sum(summary.moved_aside.values()) == 1
    found = bucket.files("out")
    assert (found["mine.txt"], found["_tastemaker/aside/1/coffee.png"]) == (b"mine", b"edited")
    assert set(files_but_notes(bucket, "out")) == {"mine.txt", "rocket.jpg"}
    put("coffee.png", b"mine too")
    with pytest.raises(ConfigurationError, match=r"coffee\.png is there, and Tastemaker did not write it"):
        select("out", kind="folder", overwrite=True)
    assert bucket.files("out")["coffee.png"] == b"mine too"


def test_links_at_a_url_are_refused_in_one_line(bucket, select):
    with pytest.raises(ConfigurationError, match="so there are none at a URL; use --as folder"):
        select("out", kind="links")
    assert bucket.files() == {}


def test_a_report_at_a_url_is_that_of_this_machine(tmp_path, table, bucket):
    scores, day = [str(tmp_path / "s")], date(2026, 1, 1)
    write_report(scores, tmp_path / "r.html", made_on=day)
    summary = write_report(scores, f"{bucket.url}/r.html", made_on=day, storage_options=bucket.options)
    assert str(summary.path) == f"{bucket.url}/r.html"
    assert without_versions(bucket.files()) == {"r.html": (tmp_path / "r.html").read_bytes()}
