"""The command line, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import typer
from command import start_tastemaker, tastemaker
from conftest import finished_files, make_tar
from typer.testing import CliRunner

from tastemaker.cli import app


@pytest.fixture
def shard(tmp_path, photographs):
    members = [*photographs.items(), ("bad.jpg", b"no image")]
    return make_tar(tmp_path / "shard.tar", members)


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", [*COMMANDS, *(f"scorers {name}" for name in COMMANDS["scorers"].commands)])
def test_help_shows_an_example(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: tastemaker {command}" in " ".join(result.stdout.split())


def test_score_writes_a_row_for_every_image_and_sums_up(tmp_path, shard, model_dir):
    result = tastemaker("score", shard, "--output", tmp_path / "out", "--model-dir", model_dir, "--signals")
    assert result.returncode == 0, result.stderr
    table = pq.read_table(tmp_path / "out" / "rows")
    assert table["status"].to_pylist() == ["kept"] * 6 + ["failed"]
    assert "technical_quality" in table.column_names
    counts, scores, rows = result.stdout.splitlines()
    assert counts.startswith("7 images in ")
    assert counts.endswith(": 6 scored, 1 failed (1 not an image)")
    assert scores.startswith("Scores: ")
    assert rows.startswith(f"Rows: {tmp_path / 'out'}/rows ")


def test_progress_says_how_many_images_there_are_from_the_start(tmp_path, photo_folder, model_dir):
    result = tastemaker("score", photo_folder, "--output", tmp_path / "out", "--model-dir", model_dir, "--verbose")
    assert "scoring: 0 of 7 images\n" in result.stderr
    assert "percentile" in result.stdout
    assert "image_embedding" in result.stdout


def test_json_is_all_that_stdout_holds(tmp_path, shard, model_dir):
    options = ("--output", tmp_path / "out", "--model-dir", model_dir, "--json", "--no-embeddings", "--verbose")
    result = start_tastemaker("filter", shard, "--top", "50%", *options)
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["kept"], summary["dropped"], summary["failed"]) == (7, 6, 0, 1)
    assert (summary["selection"]["chosen"], summary["selection"]["written"]) == (3, 3)
    assert sorted(map(int, summary["percentiles"])) == [1, 5, 10, 25, 50, 75, 90, 95, 99]
    assert "embedding" not in pq.read_schema(tmp_path / "out" / "rows" / "shard.parquet").names
    assert "bad.jpg" in result.stderr  # --verbose


def test_the_kind_of_output_follows_the_kind_of_input(tmp_path, shard, photo_folder, model_dir):
    for source, name in ((shard, "tars"), (photo_folder, "files")):
        output = ("--output", tmp_path / name, "--model-dir", model_dir)
        result = tastemaker("filter", source, "--min-score", "0", *output)
        assert f"Kept: {tmp_path / name / 'kept'}" in result.stdout
    assert len(list((tmp_path / "tars" / "kept").glob("*.tar"))) == 1
    assert (tmp_path / "files" / "kept" / "coffee.txt").read_text() == "a cup of coffee"


def test_max_failures_decides_the_exit_code(tmp_path, shard, model_dir):
    for limit, code in (("1", 0), ("0", 1), ("50%", 0), ("1%", 1), ("0.5", 0), ("some", 2), (None, 0)):
        more = () if limit is None else ("--max-failures", limit)
        result = tastemaker("score", shard, "-o", tmp_path / "out", "--model-dir", model_dir, *more)
        assert result.returncode == code, (limit, result.stderr)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["score", "missing", "-o", "out"], "missing does not exist"),
        (["explore", "missing"], "missing does not exist"),
        (["filter", ".", "-o", "out"], "nothing says which images to keep"),
        (["filter", ".", "-o", "out", "--top", "lots"], "'lots' is neither a share"),
        (["score", ".", "-o", "out"], "no images in ."),
        (["score", ".", "-o", ""], "what follows '-o' is empty; is a variable of the shell not set?"),
        (["score", "", "-o", "out"], "what follows 'score' is empty"),
        (["filter", ".", "-o", "out", "--top", ""], "what follows '--top' is empty"),
        (["filter", ".", "-o", "out", "--top="], "--top is empty"),
        (["select", "", "--to", "out"], "what follows 'select' is empty"),
        (["report", ""], "what follows 'report' is empty"),
        (["run", ""], "what follows 'run' is empty"),
        (["score", ".", "-o", "out", "--address", "auto"], "address='auto' is of a cluster: add --executor xenna"),
        (["score", ".", "-o", "out", "--null"], "--null has no effect without --files-from"),
        (["filter", ".", "-o", "out", "--as", "links", "--images-per-tar", "9"], "--images-per-tar has no effect"),
        (["score", ".", "-o", "out", "--no-signals", "--min-technical", "0.3"], "leave --no-signals"),
        (["scorers", "--json", "pull"], "--json has no effect before pull: say it behind"),
        (["run", "missing.py"], "missing.py does not exist"),
        (["run", "."], ". is no file"),
        pytest.param(
            ["score", __file__, "-o", "/proc/out"],
            "/proc/out cannot be written to",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to"),
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_traceback(tmp_path, arguments, part):
    result = tastemaker(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert part in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
@pytest.mark.parametrize(("no_color", "is_red"), [("", True), ("1", False)])
def test_an_error_on_a_terminal_is_red_unless_the_user_wants_no_colours(tmp_path, no_color, is_red):
    parent, child = os.openpty()
    command = [sys.executable, "-m", "tastemaker", "cutoff", "missing"]
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run(command, stderr=child, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment, check=False)
    shown = os.read(parent, 4096).decode()
    assert "missing does not exist" in shown
    assert ("\x1b[31m" in shown) == is_red
    os.close(parent)
    os.close(child)


def test_without_weights_two_lines_say_what_to_do_and_ranking_by_technical_quality_works(tmp_path, photo_folder):
    arguments = ("score", photo_folder, "-o", tmp_path / "out", "--model-dir", tmp_path / "models")
    result = tastemaker(*arguments)
    assert result.returncode == 2
    what, help_ = result.stderr.splitlines()
    for part in ("openai/clip-vit-large-patch14", str(tmp_path / "models")):
        assert part in what
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "models").exists()
    assert "tastemaker scorers pull --model-dir" in help_
    assert "--rank-by technical_quality" in help_
    assert tastemaker(*arguments, "--rank-by", "technical_quality").returncode == 0
    assert pq.read_table(tmp_path / "out" / "rows")["technical_quality"].null_count == 0


def test_the_demo_ranks_originals_above_their_damaged_versions_and_writes_a_report(tmp_path, model_dir):
    result = tastemaker("demo", "-o", tmp_path / "demo", env={"TASTEMAKER_MODEL_DIR": str(tmp_path / "none")})
    assert result.returncode == 0, result.stderr
    assert "ranked by technical quality instead" in result.stdout
    best = [line.split()[2] for line in result.stdout.splitlines() if line.rstrip().endswith("kept")]
    assert len(best) == 7
    assert not any("-" in name for name in best)
    page = (tmp_path / "demo" / "index.html").read_text()
    assert "you keep 20% of 35 images" in page
    assert page.count("<figure>") > 35
    assert "http" not in page.replace("http-equiv", "")
    assert list((tmp_path / "demo" / "results" / "rows").glob("*.parquet"))
    result = tastemaker("demo", "-o", tmp_path / "demo", "--model-dir", model_dir)  # once the weights are there
    assert result.returncode == 0, result.stderr
    assert "technical quality" not in result.stdout


@pytest.mark.parametrize("loaded", ["typer", "tastemaker.cli.score"])
def test_ctrl_c_while_the_command_is_being_loaded_is_quiet(loaded):
    script = f"""
import os, runpy, signal, sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == {loaded!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupted())
sys.argv = ["tastemaker", "--help"]
runpy.run_module("tastemaker", run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_with_the_code_of_its_signal_and_the_same_command_goes_on(
    number, tmp_path, photographs, model_dir
):
    for shard in range(12):
        make_tar(tmp_path / f"{shard:03d}.tar", [(f"{n}.jpg", photographs["rocket.jpg"]) for n in range(30)])
    arguments = ("score", tmp_path, "-o", tmp_path / "out", "--model-dir", model_dir)
    command = [sys.executable, "-m", "tastemaker", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not finished_files(tmp_path / "out") and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert stdout == ""
    assert stderr.splitlines()[-1] == "tastemaker: stopped; the same command goes on from here"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_tastemaker", "rows"]
    assert {path.suffix for path in (tmp_path / "out" / "rows").iterdir()} == {".parquet"}
    summary = json.loads(tastemaker(*arguments, "--json").stdout)
    assert summary["images"] == 360
    assert 0 < summary["images_scored_now"] < 360


def test_names_that_are_no_text_in_the_terminals_encoding_are_printed_escaped(tmp_path, photographs, model_dir):
    make_tar(tmp_path / "a.tar", [("\u20ac.jpg", photographs["rocket.jpg"])])
    tastemaker("score", tmp_path / "a.tar", "-o", tmp_path / "out", "--model-dir", model_dir)
    result = start_tastemaker("top", tmp_path / "out", env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert (result.returncode, result.stderr) == (0, "")
    assert r"a.tar/\u20ac.jpg" in result.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
def test_output_that_cannot_be_written_is_one_line():
    command = [sys.executable, "-m", "tastemaker", "--version"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "tastemaker: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="others keep a folder that somebody is in")
def test_a_command_in_a_folder_that_is_gone_says_so(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    found = start_tastemaker("score", "photos", "-o", "out", cwd=gone, preexec_fn=lambda: os.rmdir(gone))
    assert (found.returncode, found.stderr) == (
        1,
        "tastemaker: the folder that you are in is gone; change to another\n",
    )


def test_a_machine_without_a_folder_for_temporary_files_says_so(tmp_path, shard, model_dir):
    tastemaker("score", shard, "-o", tmp_path / "out", "--model-dir", model_dir)
    nowhere = "import tempfile; tempfile._candidate_tempdir_list = list; from tastemaker.cli import main; main()"
    command = [sys.executable, "-c", nowhere, "top", tmp_path / "out"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (
        1,
        "tastemaker: no folder for temporary files can be written to; set TMPDIR to one that can\n",
    )


def test_a_run_needs_no_standard_streams(tmp_path, shard, model_dir):
    command = '"$0" -m tastemaker score "$1" -o "$2" --model-dir "$3" <&- >&- 2>&-'
    arguments = [sys.executable, shard, tmp_path / "out", model_dir]
    assert subprocess.run(["sh", "-c", command, *arguments], timeout=120, check=False).returncode == 0
    assert pq.read_table(tmp_path / "out" / "rows").num_rows == 7
