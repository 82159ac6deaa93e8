"""Selections and reports written to an object store: the files of a local one, complete once the record is there."""

# ruff: noqa: F811 - fixtures are arguments

import json
from datetime import date

import pytest
from conftest import contents, make_tar
from remote_servers import _impatient, bucket, moto_port  # noqa: F401 - fixtures
from tastemaker.selections.url_outputs import UrlOutput
from web_server import Fault

from tastemaker import ConfigurationError, ScoreTable, Selection, select_images
from tastemaker.errors import RemoteError
from tastemaker.explorer.report import write_report
from tastemaker.runs.run import RunOptions, run_scoring

pytestmark = pytest.mark.network
ALL = Selection(where="status = 'kept'")
RECORD = "_tastemaker/selection.json"


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


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_folder_at_a_url_has_the_files_of_a_local_one(tmp_path, table, bucket, select, kind):
    here = select_images(table, tmp_path / "out", ALL, kind=kind, images_per_tar=4)
    there = select("out", kind=kind, images_per_tar=4)
    assert bucket.files("out") == contents(tmp_path / "out")
    assert (there.written, there.bytes_written) == (6, here.bytes_written)
    select("out", kind=kind, images_per_tar=4)
    assert bucket.files("out") == contents(tmp_path / "out")


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl", "keys.txt"])
def test_lists_at_a_url_are_those_of_this_machine(tmp_path, table, bucket, select, name):
    kind = "uids" if name == "keys.txt" else "manifest"
    select_images(table, tmp_path / "out" / name, ALL, kind=kind)
    select(f"out/{name}", kind=kind)
    select(f"out/{name}", kind=kind)
    assert bucket.files("out") == contents(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="is there with other content"):
        select(f"out/{name}", Selection(min_score=-1e9, where="image_id = 'rocket'"), kind=kind)
    select(f"out/{name}", Selection(where="image_id = 'rocket'"), kind=kind, overwrite=True)
    assert bucket.files("out") != contents(tmp_path / "out")


def test_what_select_did_not_write_is_refused_and_another_selection_is_replaced_when_told(bucket, select):
    bucket.system.write("mine/a.txt", b"mine")
    with pytest.raises(ConfigurationError, match="select did not write it"):
        select("mine", kind="folder")
    assert bucket.files("mine") == {"a.txt": b"mine"}
    select("out", kind="folder")
    rocket = Selection(where="image_id = 'rocket'")
    with pytest.raises(ConfigurationError, match="holds another selection"):
        select("out", rocket, kind="folder")
    select("out", rocket, kind="folder", overwrite=True)
    assert sorted(bucket.files("out")) == ["_tastemaker/selected.parquet", RECORD, "rocket.jpg"]


def test_a_selection_that_broke_off_has_no_record_and_the_next_one_finishes_it(tmp_path, table, bucket, select):
    def stop(progress):
        if progress.images == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select("out", kind="folder", on_progress=stop)
    assert RECORD not in bucket.files("out")
    assert json.loads(bucket.files("out")["_tastemaker/unfinished.json"])["kind"] == "folder"
    select("out", Selection(where="image_id = 'rocket'"), kind="folder")
    assert sorted(bucket.files("out")) == ["_tastemaker/selected.parquet", RECORD, "rocket.jpg"]


def stop(progress):
    raise KeyboardInterrupt


def is_of(bucket, name, kind, selection, select):
    """The files that a selection has where nothing else was."""
    select(name, selection, kind=kind, images_per_tar=1)
    return bucket.files(name)


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_files_of_two_selections_are_never_beside_each_other(bucket, select, kind):
    others = Selection(where="image_id != 'rocket'")
    old, new = (is_of(bucket, name, kind, chosen, select) for name, chosen in (("old", ALL), ("new", others)))
    with pytest.raises(KeyboardInterrupt):
        select("old", others, kind=kind, images_per_tar=1, overwrite=True, on_progress=stop)
    midway = bucket.files("old")
    assert RECORD not in midway
    assert all(new[name] == data for name, data in midway.items() if not name.startswith("_tastemaker/"))
    assert midway["_tastemaker/unfinished.json"] == new[RECORD]
    select("old", others, kind=kind, images_per_tar=1)  # the same command, and nothing to overwrite any more
    assert bucket.files("old") == new != old


def test_a_kill_while_a_folder_is_emptied_is_made_good_by_the_next_selection(bucket, select, monkeypatch):
    select("new", rocket := Selection(where="image_id = 'rocket'"), kind="folder")
    select("old", kind="folder")
    new = bucket.files("new")
    record = bucket.files("old")[RECORD]
    delete = UrlOutput._delete

    def delete_some(output, names):
        names = list(names)
        delete(output, names[:2])
        if len(names) > 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UrlOutput, "_delete", delete_some)
        with pytest.raises(KeyboardInterrupt):
            select("old", rocket, kind="folder", overwrite=True)
    midway = bucket.files("old")
    assert RECORD not in midway
    assert json.loads(midway["_tastemaker/unfinished.json"]) == {"emptied of": record.decode()}
    assert len(midway) > 3
    with pytest.raises(KeyboardInterrupt):
        select("old", rocket, kind="folder", on_progress=stop)
    assert set(bucket.files("old")) <= {*new, "_tastemaker/unfinished.json"}
    select("old", rocket, kind="folder")
    assert bucket.files("old") == new


def test_an_upload_that_fails_for_good_leaves_no_record(bucket, select):
    bucket.server.only, bucket.server.always = "rocket.jpg", Fault(status=503)
    with pytest.raises(RemoteError, match=r"rocket\.jpg cannot be written"):
        select("out", kind="folder")
    bucket.server.always = None
    assert RECORD not in bucket.files("out")
    assert select("out", kind="folder").written == 6
    assert RECORD in bucket.files("out")


def test_links_at_a_url_are_refused_in_one_line(bucket, select):
    with pytest.raises(ConfigurationError, match="so there are none at a URL; use --as folder"):
        select("out", kind="links")
    assert bucket.files() == {}


def test_a_report_at_a_url_is_that_of_this_machine(tmp_path, table, bucket):
    scores, day = [str(tmp_path / "s")], date(2026, 1, 1)
    write_report(scores, tmp_path / "r.html", made_on=day)
    summary = write_report(scores, f"{bucket.url}/r.html", made_on=day, storage_options=bucket.options)
    assert str(summary.path) == f"{bucket.url}/r.html"
    assert bucket.files() == {"r.html": (tmp_path / "r.html").read_bytes()}
