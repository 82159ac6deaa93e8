"""Exports: the same files as `select_images` writes, only where the user says, and to be stopped."""

import time
from threading import Event

import pytest
from tiny import copies

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.exports import Exports
from tastemaker.explorer.selection import start_export
from tastemaker.scores.cutoff import Top
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection


def export(explorer, to, **body):
    started = start_export(explorer, {"to": str(to), "as": "folder", "filter": {}, **body})
    while (state := explorer.exports.get(started["number"]))["state"] == "running":
        time.sleep(0.01)
    return state


@pytest.mark.parametrize(
    ("body", "selection"),
    [
        ({"score": 5.42}, Selection(min_score=5.42)),
        ({"top": "25%"}, Selection(top=Top(share=0.25))),
        (
            {"top": "4", "filter": {"where": "width > height"}},
            Selection(where="(\nwidth > height\n)", top=Top(count=4)),
        ),
    ],
)
@pytest.mark.parametrize("form", ["folder", "webdataset"])
def test_an_export_is_what_select_writes(explorer, tmp_path, body, selection, form):
    state = export(explorer, tmp_path / "page", **{"as": form}, **body)
    summary = select_images(explorer.table, tmp_path / "select", selection, kind=form)
    assert state["state"] == "done", state["message"]
    assert state["done"] == state["images"] == summary.written > 0
    assert copies(tmp_path / "page") == copies(tmp_path / "select")


def test_rejected_pictures_are_left_out_and_not_replaced_by_others(explorer, tmp_path):
    explorer.rate(5, 0, True)
    state = export(explorer, tmp_path / "out", top="3", without_rejected=True)
    assert state["done"] == 2
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {"p00000.jpg", "p00009.jpg"}


def test_a_manifest_follows_the_filter_on_ratings(explorer, tmp_path):
    import pyarrow.csv

    explorer.rate(1, 5, False)
    explorer.rate(2, 3, False)
    state = export(explorer, tmp_path / "list.csv", score=0, **{"as": "manifest", "filter": {"rated": "4"}})
    assert state["state"] == "done", state["message"]
    assert pyarrow.csv.read_csv(tmp_path / "list.csv")["image_id"].to_pylist() == ["p00001"]


@pytest.mark.parametrize(
    "body",
    [
        {"to": "", "score": 5},
        {"to": "s3://bucket/kept", "score": 5},
        {"score": 99},
        {"score": None},
        {"score": 5, "filter": {"by": "width"}},
    ],
)
def test_what_makes_no_sense_is_refused_at_once(explorer, tmp_path, body):
    with pytest.raises(ConfigurationError):
        start_export(explorer, {"to": str(tmp_path / "out"), "as": "folder", "filter": {}, **body})
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_told_and_nothing_is_replaced(explorer, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    state = export(explorer, tmp_path / "mine", score=5)
    assert state["state"] == "failed"
    assert "mine" in state["message"]
    assert copies(tmp_path / "mine").keys() == {"precious.txt"}
    assert export(explorer, tmp_path / "out", score=5, **{"as": "sculpture"})["state"] == "failed"


def test_originals_that_are_gone_are_counted(explorer, tmp_path):
    (tmp_path / "shards" / "00000.tar").unlink()
    state = export(explorer, tmp_path / "out", score=5.42)
    assert "0 images written" in state["message"]
    assert "6 missing, not copied" in state["message"]


def test_one_export_runs_at_a_time_and_can_be_stopped(tmp_path):
    exports = Exports()

    def work(path, on_progress):
        for done in range(10**9):
            on_progress(done)
            time.sleep(0.001)

    number = exports.start(str(tmp_path / "out"), "folder", 100, work)["number"]
    with pytest.raises(ConfigurationError, match="running"):
        exports.start(str(tmp_path / "other"), "folder", 100, work)
    exports.stop(number)
    while exports.get(number)["state"] == "running":
        time.sleep(0.01)
    assert exports.get(number)["state"] == "stopped"
    with pytest.raises(ConfigurationError, match="no export"):
        exports.get(7)


def test_an_export_ends_with_the_explorer_and_leaves_nothing(explorer, tmp_path, monkeypatch):
    begun = Event()

    def wait(*_arguments):
        begun.set()
        time.sleep(0.01)
        return "there", "name"

    monkeypatch.setattr("tastemaker.scores.copies.FileCopies.add", wait)
    number = start_export(explorer, {"to": str(tmp_path / "new" / "out"), "as": "folder", "filter": {}, "score": 0})[
        "number"
    ]
    assert begun.wait(10)
    explorer.close()
    assert explorer.exports.get(number)["state"] == "stopped"
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []
