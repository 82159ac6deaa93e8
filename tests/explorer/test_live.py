"""Rows that come while one looks, and pictures that are scored meanwhile."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import PROGRAM, start_tastemaker
from rows import make_image, write_rows
from starlette.testclient import TestClient

from tastemaker.explorer.live import Live
from tastemaker.explorer.scoring import default_output
from tastemaker.explorer.server import create_app
from tastemaker.explorer.service import Explorer
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.locations import is_of_rows
from tastemaker.scores.table import ScoreTable

BASE = "http://127.0.0.1:8765"


def wait_until(found, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return result


def test_new_rows_are_told_and_shown_and_old_numbers_are_refused(tmp_path):
    write_rows(tmp_path / "b.parquet", [make_image(7, 5.0), make_image(8, 6.0)])
    with closing(Live(lambda: Explorer([str(tmp_path)]), [str(tmp_path)])) as live:
        page = TestClient(create_app(live, "t", 8765), base_url=BASE, headers={"origin": BASE})
        page.get("/?token=t")
        stamp = page.get("/api/table").json()["stamp"]
        assert page.get("/api/news").json() == {"stamp": stamp, "more": 0, "scoring": None}

        write_rows(tmp_path / "a.parquet", [make_image(number, 7.0) for number in range(3)])
        news = page.get("/api/news").json()
        assert (news["more"], news["stamp"] == stamp) == (3, False)
        first = {"changes": [{"row": 0, "stars": 5}]}
        assert page.post("/api/ratings", params={"v": stamp}, json=first).status_code == 200  # row 0 is still 00007

        assert page.post("/api/news/show").json() == {"stamp": news["stamp"]}
        assert page.get("/api/table").json()["images"] == 5
        refused = page.post("/api/ratings", params={"v": stamp}, json=first)
        assert (refused.status_code, refused.json()["error"][:23]) == (409, "the rows were read anew")
        assert page.get("/picture/0/320", params={"v": stamp}).status_code == 404
        rows = page.get("/api/rows", params={"v": news["stamp"], "places": "0,1,2,3,4"}).json()
        assert {row["name"]: row["stars"] for row in rows} == {
            **dict.fromkeys(("00000", "00001", "00002", "00008"), 0),
            "00007": 5,
        }


@pytest.mark.network
def test_pictures_without_rows_are_scored_while_one_looks(tmp_path, photo_folder, model_dir):
    output = tmp_path / "out"
    without = {"HF_ENDPOINT": "http://127.0.0.1:9", "TASTEMAKER_MODEL_DIR": str(tmp_path / "none")}

    def look(env, until):
        command = [
            *PROGRAM,
            "explore",
            str(photo_folder),
            "--output",
            str(output),
            "--no-browser",
            *env.pop("more", []),
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # A job that a shell runs in the background ignores Ctrl-C.
        pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(command, env={**os.environ, **env}, **pipes) as process:
            address, token = process.stdout.readline().strip().split("?token=")
            page = httpx2.Client(base_url=address, params={"token": token}, headers={"origin": address.rstrip("/")})
            assert "tastemaker" in page.get("/").text
            wait_until(lambda: until(page.get("/api/news").json()))
            assert page.post("/api/news/show").status_code == 200
            table = page.get("/api/table").json()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        return table, errors

    def is_over(news):
        return news["more"] >= 0 and news["scoring"]["text"] == "" and news

    table, errors = look(dict(without), is_over)
    assert (table["name"], table["ranked_by"]) == ("photos", ["technical_quality"])
    assert "--rank-by technical_quality" in errors
    assert str(output) in errors
    number = table["images"]
    table, errors = look({**without, "more": ["--rank-by", "technical_quality"]}, is_over)
    assert (table["images"], "weights" in errors) == (number, False), "what the message says is done"

    table, errors = look({"more": ["--model-dir", str(model_dir)]}, is_over)
    assert (table["images"], table["ranked_by"][0]) == (number, "aesthetic_score")
    assert {entry.name for entry in photo_folder.iterdir() if entry.name.startswith("_")} == set()
    assert len(ScoreTable(output)) == number


def test_copies_that_a_selection_made_are_pictures_and_rows_that_cannot_be_shown_end_the_explorer(
    tmp_path, photo_folder, model_dir
):
    shutil.copytree(photo_folder, tmp_path / "copies")
    (tmp_path / "copies/_tastemaker").mkdir()
    (tmp_path / "out/rows").mkdir(parents=True)
    (tmp_path / "out/rows/foreign.parquet").write_bytes(b"PAR1 not really PAR1")
    command = ("explore", "copies", "--output", "out", "--no-browser", "--model-dir", str(model_dir))
    found = start_tastemaker(*command, cwd=tmp_path)
    assert found.returncode == 2
    assert "foreign.parquet is no rows file" in found.stderr.splitlines()[-1]


def test_ctrl_c_in_a_terminal_ends_page_and_scoring_with_one_line_at_the_first_moment(tmp_path, photo_folder):
    command = [*PROGRAM, "explore", str(photo_folder), "--output", str(tmp_path / "out"), "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, **pipes) as process:
        assert "?token=" in process.stdout.readline()
        time.sleep(0.5)  # the other process is being loaded
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.count("Traceback")) == (130, 0)
    assert errors.splitlines()[-1].startswith("tastemaker: stopped")


def test_rows_of_a_folder_with_a_long_name_have_a_place(tmp_path, photographs, model_dir):
    folder = tmp_path / ("\N{SPARKLES}" * 63)
    folder.mkdir()
    (folder / "rocket.jpg").write_bytes(photographs["rocket.jpg"])
    (tmp_path / "data").mkdir()
    output = tmp_path / "data" / Path(default_output([str(folder)])).name
    assert run_scoring([str(folder)], output, RunOptions(model_dir=str(model_dir))).images == 1


def test_rows_of_a_folder_follow_it_when_it_is_renamed_and_not_to_a_copy_of_it(tmp_path, photo_folder, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda _name: str(tmp_path / "data"))
    options = RunOptions(rank_by="technical_quality")
    before = default_output([str(photo_folder)])
    images = run_scoring([str(photo_folder)], before, options).images
    copy = shutil.copytree(photo_folder, tmp_path / "copy")
    assert not Path(default_output([str(copy)])).exists()
    renamed = str(photo_folder.rename(tmp_path / "wedding"))
    after = default_output([renamed])
    summary = run_scoring([renamed], after, options)
    assert (summary.images, summary.images_scored_now, summary.moved >= images) == (images, 0, True)
    assert (Path(before).exists(), default_output([renamed])) == (False, after)


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_a_place_without_pictures_is_one_line(tmp_path, what):
    (tmp_path / "empty").mkdir()
    found = start_tastemaker("explore", what, "--no-browser", cwd=tmp_path)
    assert found.returncode == 2
    assert what in found.stderr.splitlines()[-1]
    assert "no rows" not in found.stderr


def test_pictures_with_a_parquet_file_of_something_else_beside_them_are_no_rows(tmp_path):
    pq.write_table(pa.table({"anything": [1]}), tmp_path / "notes.parquet")
    assert not is_of_rows(tmp_path)
