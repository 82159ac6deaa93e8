"""Rows are data from others: originals are read only from places that the user named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tastemaker
from conftest import encode
from web_server import WebServer

from tastemaker import ScoreTable, Selection, select_images, write_stars
from tastemaker.explorer.report import write_report
from tastemaker.explorer.service import Explorer
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.named import NamedPlaces

ALL = Selection(where="true")


@pytest.fixture
def scored(tmp_path, photo_folder, model_dir):
    """The output of a run of one's own."""
    run_scoring([str(photo_folder)], tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    return tmp_path / "scores"


@pytest.fixture
def stranger(scored, tmp_path, photo_folder):
    """Rows from somebody else, about a private picture of this machine and one behind a URL, with notes to match."""
    (tmp_path / "private").mkdir()
    (photo_folder / "rocket.jpg").rename(tmp_path / "private" / "rocket.jpg")
    (rows,) = (scored / "rows").iterdir()
    table = pq.read_table(rows)
    table = table.filter(pa.compute.equal(table["image_id"], "rocket"))
    paths = [str(tmp_path / "private" / "rocket.jpg")]
    table = table.set_column(table.schema.get_field_index("image_path"), "image_path", [paths])
    (tmp_path / "theirs" / "rows").mkdir(parents=True)
    pq.write_table(table, tmp_path / "theirs" / "rows" / "0.parquet")
    run = json.loads((scored / "_tastemaker" / "run.json").read_text())
    run["originals"]["places"].append("/")
    (tmp_path / "theirs" / "_tastemaker").mkdir()
    (tmp_path / "theirs" / "_tastemaker" / "run.json").write_text(json.dumps(run))
    return tmp_path / "theirs"


@pytest.mark.parametrize("kind", ["folder", "webdataset", "links"])
def test_a_selection_refuses_and_counts_what_is_elsewhere_until_it_is_named(stranger, tmp_path, kind):
    summary = select_images(ScoreTable(stranger), tmp_path / "best", ALL, kind=kind)
    assert (summary.written, summary.skipped) == (0, {"refused": 1})
    assert "is in no place that you named; if you trust these rows, say --originals PLACE" in summary.skipped_first
    named = ScoreTable(stranger, originals=tmp_path / "private")
    assert select_images(named, tmp_path / "named", ALL, kind=kind).written == 1


def test_the_command_says_it_in_one_line_that_names_the_option(stranger, tmp_path):
    command = ("select", stranger, "--where", "true", "--as", "folder", "--to", tmp_path / "best")
    refused = tastemaker(*command)
    assert refused.returncode == 1
    assert [line for line in refused.stderr.splitlines() if "skipped 1 refused" in line and "--originals PLACE" in line]
    assert tastemaker(*command, "--originals", tmp_path / "private" / "rocket.jpg").returncode == 0


def test_a_report_and_the_page_show_no_such_picture(stranger, tmp_path):
    said = tastemaker("report", stranger, "--output", tmp_path / "a.html")
    assert "not shown, of 1 pictures: 1, which are in no place that you named" in said.stderr
    assert "say --originals PLACE" in said.stderr
    assert write_report(stranger, tmp_path / "b.html", originals=[tmp_path / "private"]).missing == 0
    explorer = Explorer([str(stranger)])
    with pytest.raises(Exception, match="is in no place that you named"):
        explorer.small_picture(0, 200)
    explorer.close()


def test_no_sidecar_is_written_there(stranger, tmp_path):
    report = write_stars(ScoreTable(stranger), ALL)
    assert report.starred == 0
    assert [problem for problem in report.failed.values() if "--originals PLACE" in problem]
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["rocket.jpg"]


def test_a_sidecar_that_is_elsewhere_is_not_copied_either(scored, tmp_path, photo_folder):
    secret = tmp_path / "secret.txt"
    secret.write_text("word")
    (rows,) = (scored / "rows").iterdir()
    table = pq.read_table(rows)
    sidecar = {"extension": "txt", "member": str(secret), "offset": 0, "size": 4}
    column = pa.array([[sidecar]] * len(table), table.schema.field("sidecars").type)
    pq.write_table(table.set_column(table.schema.get_field_index("sidecars"), "sidecars", column), rows)
    summary = select_images(ScoreTable(scored), tmp_path / "best", ALL, kind="folder")
    assert (summary.written, summary.skipped) == (0, {"refused": len(table)})


def test_rows_of_a_run_of_ones_own_need_no_option_also_when_they_were_moved(scored, tmp_path):
    scored.rename(tmp_path / "moved")
    assert select_images(ScoreTable(tmp_path / "moved"), tmp_path / "best", ALL, kind="folder").skipped == {}
    file = next((tmp_path / "moved" / "rows").iterdir())
    assert select_images(ScoreTable(file), tmp_path / "again", ALL, kind="folder").skipped == {}


def test_inputs_of_earlier_runs_into_the_same_output_stay_named(scored, tmp_path, photographs, model_dir):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(photographs["coffee.png"])
    run_scoring([str(tmp_path / "more")], scored, RunOptions(model_dir=str(model_dir)))
    summary = select_images(ScoreTable(scored), tmp_path / "best", ALL, kind="folder")
    assert (summary.written, summary.skipped) == (8, {})


def test_the_notes_of_another_user_count_for_nothing(scored, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other user"))
    summary = select_images(ScoreTable(scored), tmp_path / "best", ALL, kind="folder")
    assert summary.written == 0
    assert set(summary.skipped) == {"refused"}


@pytest.mark.network
def test_a_url_that_was_not_named_is_not_asked_for_and_gets_no_credentials(tmp_path, scored):
    picture = encode(np.zeros((9, 9, 3), np.uint8), "JPEG")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jpg").write_bytes(picture)
    (rows,) = (scored / "rows").iterdir()
    table = pq.read_table(rows).slice(0, 1)
    with WebServer(tmp_path / "web") as server:
        for name, value in {"image_path": f"{server.url}/a.jpg", "size": len(picture), "xxh3": None}.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pa.array([value], table.schema.field(at).type))
        pq.write_table(table, tmp_path / "theirs.parquet")
        options = {server.url: {"headers": {"Authorization": "Bearer word"}}}
        refused = select_images(
            ScoreTable(tmp_path / "theirs.parquet", storage_options=options), tmp_path / "one", ALL, kind="folder"
        )
        assert refused.skipped == {"refused": 1}
        assert server.requests == []
        named = ScoreTable(tmp_path / "theirs.parquet", storage_options=options, originals=server.url)
        assert select_images(named, tmp_path / "two", ALL, kind="folder").written == 1


@pytest.mark.parametrize(
    ("place", "inside", "outside"),
    [
        ("{0}/photos", "{0}/photos/a/b.jpg", "{0}/photos2/a.jpg"),
        ("{0}/photos", "{0}/photos/./a.jpg", "{0}/photos/../private/a.jpg"),
        ("{0}/link", "{0}/photos/a.jpg", "{0}/private/a.jpg"),
        ("{0}/photos/*.jpg", "{0}/photos/a.jpg", "{0}/a.jpg"),
        ("{0}/photos/a.jpg", "{0}/photos/a.jpg.xmp", "{0}/photos/b.jpg"),
        ("{0}/photos/a.jpg", "{0}/photos/a.txt", "{0}/photos/ab.txt"),
        ("file://{0}/photos", "{0}/photos/a.jpg", "https://host/photos/a.jpg"),
        ("s3://bucket/a", "s3a://bucket/a/b.tar", "s3://bucket/ab/b.tar"),
        ("s3://bucket", "s3://bucket/a.jpg", "s3://bucket2/a.jpg"),
        ("gs://bucket/{{0..9}}.tar", "gs://bucket/0.tar", "gs://other/0.tar"),
        ("https://host/a.tar?token=1", "https://host/a.tar", "https://host/b.tar"),
        ("https://host/a", "https://host/a/b.jpg", "https://host/a/../b.jpg"),
        ("https://host/a", "https://host/a/c.jpg", "https://host/a/%2e%2E/b.jpg"),
        ("https://host/a", "https://host/a/d.jpg", "https://host/a/..%2Fb.jpg"),
        ("https://host/a", "https://host/a/e.jpg", "https://host/a/%252e%252e%252fb.jpg"),
        ("https://host/a", "https://host/a/f.jpg", "https://host/a/..\\b.jpg"),
        ("https://host/a", "https://host/a/g.jpg", "https://host/a/..;/b.jpg"),
        ("https://host/a", "https://host/a/h.jpg", "https://host@evil/a/h.jpg"),
        ("az://box@mine/a", "abfss://box@mine/a/b.tar", "az://box@evil/a/b.tar"),
        ("az://box/a", "az://box/a/b.tar", "az://box@evil/a/b.tar"),
        ("{0}/photos", "{0}/photos/b.jpg", "{0}/photos" + "/a" * 500_000),
        ("https://host/a", "https://host/a/i.jpg", "https://host/a" + "/a" * 500_000),
        ("https://host", "https://host/a.jpg", "https://host.evil/a.jpg"),
        ("https://host/a.tar", "https://host/a.json", "https://host:81/a.tar"),
    ],
)
def test_what_lies_in_a_place(tmp_path, place, inside, outside):
    for folder in ("photos/a", "private", "photos2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    named = NamedPlaces([place.format(tmp_path)])
    assert inside.format(tmp_path) in named
    assert outside.format(tmp_path) not in named
