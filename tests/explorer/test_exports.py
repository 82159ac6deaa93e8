"""Exports: the same files as `select_images` writes, only where the user says, and to be stopped."""

import time

import pytest
from tiny import copies

from tastemaker.errors import ConfigurationError
from tastemaker.explorer.exports import Exports
from tastemaker.explorer.index import Filter
from tastemaker.progress import Progress
from tastemaker.scores.cutoff import Top
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection


def start(explorer, to, *, form="folder", cut="", **chosen):
    return explorer.export(Filter(**chosen), str(to), form, cut)


def export(explorer, to, **options):
    start(explorer, to, **options)
    while (state := explorer.exports.state())["state"] == "running":
        time.sleep(0.01)
    return state


def test_an_export_is_what_select_writes(explorer, tmp_path):
    cut = Selection(where="(\nwidth > height\n)", top=Top(count=4))
    for number, (form, body, selection) in enumerate(
        (
            ("folder", {"cut": "5.42"}, Selection(min_score=5.42)),
            ("webdataset", {"cut": "25%"}, Selection(top=Top(share=0.25))),
            ("folder", {"cut": "top 4", "where": "width > height"}, cut),
        )
    ):
        page, chosen = tmp_path / f"page{number}", tmp_path / f"select{number}"
        state = export(explorer, page, form=form, **body)
        summary = select_images(explorer.table, chosen, selection, kind=form)
        assert state["state"] == "done", state["message"]
        assert state["done"] == state["images"] == summary.written > 0
        assert copies(page) == copies(chosen)


def test_a_manifest_follows_the_filter_on_ratings(explorer, tmp_path):
    import pyarrow.csv

    explorer.rate(Filter(), {1: {"stars": 5}, 2: {"stars": 3}})
    sheet = export(explorer, tmp_path / "sheet.pdf", cut="0.0", form="pdf", rated="4,5")
    assert (sheet["state"], (tmp_path / "sheet.pdf").read_bytes()[:5]) == ("done", b"%PDF-"), sheet["message"]
    state = export(explorer, tmp_path / "list.csv", cut="0.0", form="manifest", rated="4,5")
    assert state["state"] == "done", state["message"]
    assert pyarrow.csv.read_csv(tmp_path / "list.csv")["image_id"].to_pylist() == ["p00001"]


def test_what_makes_no_sense_is_refused_at_once(explorer, tmp_path):
    explorer.rate(Filter(), {1: {"rejected": True}})
    for options in (
        {"to": "", "cut": "5.0"},
        {"to": "s3://bucket/kept", "cut": "5.0"},
        {"cut": "99.0"},
        {"cut": ""},
        {"cut": "5.0", "by": "width"},
        {"cut": "0.0", "rated": "rejected"},
    ):
        with pytest.raises(ConfigurationError):
            start(explorer, **{"to": tmp_path / "out", **options})
        assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_told_and_nothing_is_replaced(explorer, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    state = export(explorer, tmp_path / "mine", cut="5.0")
    assert state["state"] == "failed"
    assert "mine" in state["message"]
    assert copies(tmp_path / "mine").keys() == {"precious.txt"}
    assert export(explorer, tmp_path / "out", cut="5.0", form="sculpture")["state"] == "failed"


def test_originals_that_are_gone_are_counted(explorer, tmp_path):
    (tmp_path / "shards" / "00000.tar").unlink()
    state = export(explorer, tmp_path / "out", cut="5.42")
    assert "0 images written" in state["message"]
    assert "6 missing, not copied" in state["message"]


def test_one_export_runs_at_a_time_and_can_be_stopped(tmp_path):
    exports = Exports()

    def work(path, on_progress):
        for done in range(10**9):
            on_progress(Progress(done))
            time.sleep(0.001)

    exports.start(str(tmp_path / "out"), 100, work)
    with pytest.raises(ConfigurationError, match="running"):
        exports.start(str(tmp_path / "other"), 100, work)
    exports.stop()
    while exports.state()["state"] == "running":
        time.sleep(0.01)
    assert exports.state()["state"] == "stopped"
