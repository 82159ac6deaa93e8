"""`select`, `cutoff` and `top`, as a user starts them."""

import inspect
import json
import os
import re
import shlex

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import tastemaker

from tastemaker import ScoreTable
from tastemaker.cli.select import select
from tastemaker.imaging.xmp import read_rating
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.groups import MIN_SIMILARITY
from tastemaker.selections.stars import DEFAULT_BOUNDS, parse_star_bounds


@pytest.fixture
def scores(tmp_path, photo_folder, model_dir):
    run_scoring([str(photo_folder)], tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    return tmp_path / "scores"


def test_select_writes_and_says_what(tmp_path, scores):
    result = tastemaker("select", scores, "--top", "3", "--to", "best", "--as", "folder", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"3 of 7 images, aesthetic_score -?\d+\.\d{3} and up: best\n", result.stdout)
    again = tastemaker("select", scores, "--top", "3", "--to", "best", "--as", "folder", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["written"] == 3
    other = tastemaker("select", scores, "--top", "2", "--to", "best", "--as", "folder", cwd=tmp_path)
    assert (other.returncode, other.stdout) == (2, "")
    assert "say --overwrite" in other.stderr


def test_select_ends_with_1_where_an_original_is_gone(tmp_path, scores, photo_folder):
    (photo_folder / "rocket.jpg").unlink()
    result = tastemaker("select", scores, "--where", "true", "--to", tmp_path / "out", "--as", "folder")
    assert result.returncode == 1
    assert re.search(r"skipped 1 missing, such as: .*rocket.jpg is gone; see ", result.stderr)
    assert "rocket.jpg is gone" in (tmp_path / "out" / "_tastemaker" / "skipped.jsonl").read_text()


def test_select_keeps_the_best_of_each_group(tmp_path, scores):
    result = tastemaker("select", scores, "--best-of-group", "--min-similarity", "0.9999", "--to", tmp_path / "o")
    assert result.returncode == 0, result.stderr
    rows = pq.read_table(tmp_path / "o" / "_tastemaker" / "selected.parquet")
    names = [os.path.basename(path) for path in rows["image_path"].to_pylist()]
    assert ("coffee.png" in names) != ("again.png" in names)  # the same picture twice
    assert len(set(rows["group"].to_pylist())) == len(rows)


def test_select_as_xmp_stars_the_originals(scores, photo_folder):
    dry = tastemaker("select", scores, "--as", "xmp", "--dry-run")
    assert "7 of 7 images would be starred" in dry.stdout
    assert not list(photo_folder.rglob("*.xmp"))
    result = tastemaker("select", scores, "--as", "xmp", "--top", "2", "--stars-bounds", "100%", "--json")
    assert json.loads(result.stdout)["created"] == 2
    assert [read_rating(path.read_bytes(), by_score=True) for path in photo_folder.rglob("*.xmp")] == [5, 5]
    again = tastemaker("select", scores, "--as", "xmp", "--overwrite-ratings")
    assert "7 of 7 images starred (5 sidecars created" in again.stdout
    assert tastemaker("select", scores, "--as", "xmp", "--undo").stdout == "7 files taken back\n"
    assert not list(photo_folder.rglob("*.xmp"))


def test_select_embeds_stars_into_copies(tmp_path, scores):
    result = tastemaker("select", scores, "--where", "true", "--embed", "--as", "folder", "--to", tmp_path / "o")
    assert result.stdout.splitlines()[-2:] == [
        "2 copies have their stars inside now",
        "5 copies are no JPEGs, and have no stars inside",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "3"], "nothing says where to write"),
        (["--to", "x"], "say what to select"),
        (["--to", "x", "--top", "3", "--min-score", "5"], "not both"),
        (["--to", "x", "--as", "xmp"], "--to has no effect with --as xmp"),
        (["--as", "xmp", "--embed"], "--embed has no effect without copies"),
        (["--as", "xmp", "--overwrite"], "--overwrite has no effect with --as xmp"),
        (["--to", "x", "--top", "3", "--overwrite-ratings"], "--overwrite-ratings has no effect without --as xmp"),
        (["--to", "x", "--top", "3", "--stars-bounds", "5%"], "--stars-bounds has no effect without --as xmp"),
        (["--to", "x", "--top", "3", "--grid", "4x5"], "--grid has no effect without --as pdf"),
        (["--to", "x", "--top", "3", "--variety", "0.5"], "--variety has no effect without --varied"),
        (["--to", "x", "--top", "3", "--min-similarity", "0.9"], "--min-similarity has no effect without --best-of"),
        (["--to", "x", "--top", "3", "--as", "links", "--images-per-tar", "9"], "--images-per-tar has no effect"),
        (["--as", "xmp", "--stars-bounds", "5"], "no list of shares"),
        (["--to", "x", "--top", "3", "--dry-run"], "--dry-run has no effect without --as xmp or --undo"),
        (["--to", "x", "--as", "manifest", "--top", "3"], "ends with .parquet"),
        (["--to", "x.csv", "--as", "manifest", "--top", "3", "--embed"], "--embed has no effect without copies"),
        (["--to", "x", "--where", "width >"], "the condition"),
        (["--to", "x", "--where", "true", "--best-of-group", "--min-similarity", "2"], "is not in (0, 1]"),
    ],
)
def test_options_that_make_no_sense_are_errors(tmp_path, scores, options, message):
    result = tastemaker("select", scores, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "x").exists()


def test_cutoff_prints_how_many_remain(scores):
    result = tastemaker("cutoff", scores, "--top", "3", "--top", "50%")
    lines = result.stdout.splitlines()
    assert [re.sub(r"-?\d+\.\d+$", "N", line) for line in lines] == [
        "top      3  keep            3  cut-off N",
        "top    50%  keep            4  cut-off N",
    ]
    for line, kept in zip(lines, (3, 4), strict=True):
        assert ScoreTable(scores).cutoff(min_score=float(line.split()[-1])).kept == kept
    found = json.loads(tastemaker("cutoff", scores, "--top", "3", "--json").stdout)
    assert found[0]["score"] >= float(lines[0].split()[-1])


def test_top_prints_best_and_worst(scores):
    result = tastemaker("top", scores, "-n", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["rank", "1", "2", "...", "6", "7"]
    assert not re.search(" $", result.stdout, re.MULTILINE)


def test_top_as_json_has_what_leads_to_the_originals(scores):
    ranked = json.loads(tastemaker("top", scores, "-n", "2", "--json").stdout)
    assert [row["rank"] for row in ranked] == [1, 2, 6, 7]
    assert ranked[0]["aesthetic_score"] >= ranked[1]["aesthetic_score"] > ranked[3]["aesthetic_score"]
    assert set(ranked[0]) >= {"image_path", "shard", "offset", "size", "xxh3"}


def test_top_names_rows_of_embeddings_that_have_no_path(tmp_path, model_dir):
    np.save(tmp_path / "given.npy", np.eye(3, 768, dtype=np.float32))
    run_scoring([str(tmp_path / "given.npy")], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    shown = tastemaker("top", tmp_path / "s", "-n", "1").stdout.split()
    assert {"given/000000000", "given/000000001", "given/000000002"}.intersection(shown)


def test_filter_with_two_cuts_names_the_command_that_makes_both(tmp_path, scores):
    result = tastemaker("filter", scores, "--top", "50%", "--min-score", "-9", "-o", "out", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "two cuts, and filter makes one" in result.stderr
    command = re.search(r"tastemaker (select .* --to FOLDER)", " ".join(result.stderr.split()))
    written = tastemaker(*shlex.split(command[1].replace("SCORES", str(scores))), cwd=tmp_path)
    assert (written.returncode, written.stdout[:13]) == (0, "4 of 7 images"), written.stderr


def test_names_cannot_steer_the_terminal(tmp_path, photographs, model_dir):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a\x1b]0;title\x07.jpg").write_bytes(photographs["rocket.jpg"])
    run_scoring([str(tmp_path / "p")], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    printed = tastemaker("top", tmp_path / "s").stdout
    command = ("select", tmp_path / "s", "--min-score", "-99", "--as", "uids", "--to", tmp_path / "l.npy")
    for said in (printed, tastemaker(*command).stderr):
        assert "title" in said
        assert "\x1b]" not in said


@pytest.mark.parametrize("cut", [["--top", "30%"], ["--cut-off", "4.5"], []])
def test_the_command_that_the_report_prints_takes_what_passes(tmp_path, scores, cut):
    assert tastemaker("report", "scores", "--output", "r.html", *cut, cwd=tmp_path).returncode == 0
    page = (tmp_path / "r.html").read_text()
    command = re.search(r"<code>tastemaker (select [^<]*)</code>", page)
    assert command, "no command in the page"
    result = tastemaker(*shlex.split(command[1].replace("&#39;", "'")), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "kept" / "_tastemaker" / "selected.parquet").is_file()


def test_the_defaults_of_select_are_those_of_the_library():
    """The command states them itself, because to import the library takes longer than to show the help."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(select).parameters.items()}
    assert defaults["min_similarity"] == MIN_SIMILARITY
    assert parse_star_bounds(defaults["stars_bounds"]) == DEFAULT_BOUNDS
