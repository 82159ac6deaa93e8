"""New scores from stored embeddings: those that a run with the same head gives, and everything else as it was."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tastemaker
from safetensors.numpy import save_file
from tiny import snapshot

from tastemaker import ConfigurationError, RunOptions, ScoreTable, run_scoring
from tastemaker.runs.rescore import rescore
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import rows_schema
from tastemaker.testing import random_predictor


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "other.safetensors"
    save_file(random_predictor(768, np.random.default_rng(9)), path)
    return str(path)


@pytest.fixture(scope="module")
def scores(tmp_path_factory, photographs, model_dir):
    folder = tmp_path_factory.mktemp("rescored")
    for number, (name, data) in enumerate(photographs.items()):
        (folder / "photos" / f"day{number % 2}").mkdir(parents=True, exist_ok=True)
        (folder / "photos" / f"day{number % 2}" / name).write_bytes(data)
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    run_scoring(folder / "photos", folder / "scores", RunOptions(model_dir=str(model_dir)))
    return folder / "scores"


def rows_of(folder):
    table = ScoreTable(folder)
    rows = table.to_arrow([*table.columns]).to_pylist()
    return {row["image_path"]: row for row in rows}


def test_scores_are_those_of_a_run_with_that_head_and_the_rest_stays(scores, head, model_dir, tmp_path):
    done = rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    run_scoring(scores.parent / "photos", tmp_path / "run", RunOptions(model_dir=str(model_dir), predictor=head))
    before, after, expected = rows_of(scores), rows_of(tmp_path / "new"), rows_of(tmp_path / "run")
    assert before.keys() == after.keys() == expected.keys()
    for path, row in after.items():
        assert {**row, "aesthetic_score": 0} == {**before[path], "aesthetic_score": 0}
        score = expected[path]["aesthetic_score"]
        assert row["aesthetic_score"] == (None if score is None else pytest.approx(score, abs=done.rounding))
    assert (done.rows, done.scored, done.finished_before) == (len(after), len(after) - 1, 0)
    assert 0 < done.rounding < 0.02


def test_the_provenance_names_the_new_head_and_the_old_embeddings(scores, head, model_dir, tmp_path):
    rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    [old], [new] = ScoreTable(scores).provenance, ScoreTable(tmp_path / "new").provenance
    assert new.entries["predictor_sha256"] != old.entries["predictor_sha256"]
    assert new.entries["clip_sha256"] == old.entries["clip_sha256"]


def test_only_what_is_not_finished_is_done_again(scores, head, model_dir, tmp_path):
    first = rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    files = sorted((tmp_path / "new" / "rows").rglob("*.parquet"))
    written = [file.stat().st_mtime_ns for file in files]
    files[0].unlink()
    again = rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    assert (again.files, again.finished_before, again.scored) == (len(files), len(files) - 1, first.scored)
    assert [file.stat().st_mtime_ns for file in files][1:] == written[1:]
    default = rescore(scores, tmp_path / "new", model_dir=model_dir)
    assert default.finished_before == 0
    assert rows_of(tmp_path / "new").keys() == rows_of(scores).keys()


def test_own_rows_and_files_of_others_are_never_replaced(scores, head, model_dir, tmp_path):
    with pytest.raises(ConfigurationError, match="choose another directory"):
        rescore(scores, scores, predictor=head, model_dir=model_dir)
    name = next((scores / "rows").rglob("*.parquet")).relative_to(scores / "rows")
    foreign = tmp_path / "new" / "rows" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="Tastemaker did not write it"):
        rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    assert foreign.read_bytes() == b"mine"


@pytest.mark.parametrize("output", ["scores", "link", "scores/rows", "scores/rows/below", "rows", "other"])
def test_rows_that_a_run_made_are_never_replaced_by_new_scores(photo_folder, head, model_dir, tmp_path, output):
    for name in ("scores", "other"):
        run_scoring(photo_folder, tmp_path / name, RunOptions(model_dir=str(model_dir)))
    (tmp_path / "link").symlink_to("scores")
    source, target = ("scores/rows", "scores") if output == "rows" else ("scores", output)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigurationError, match="choose another directory"):
        rescore(tmp_path / source, tmp_path / target, predictor=head, model_dir=model_dir)
    assert snapshot(tmp_path) == before


def test_the_command_says_how_many_and_how_exact(scores, head, model_dir, tmp_path):
    command = ("rescore", scores, "--predictor", head, "--model-dir", model_dir, "--output", tmp_path / "new")
    result = tastemaker(*command)
    assert result.returncode == 0, result.stderr
    assert "rows have a score" in result.stdout
    assert "at most 0.0" in result.stdout
    assert json.loads(tastemaker(*command, "--json").stdout)["finished_before"] > 0


def test_rows_without_embeddings_are_refused(tmp_path, photo_folder, model_dir):
    run_scoring(photo_folder, tmp_path / "bare", RunOptions(model_dir=str(model_dir), embeddings=False))
    with pytest.raises(ConfigurationError, match="--no-embeddings"):
        rescore(tmp_path / "bare", tmp_path / "new", model_dir=model_dir)
    assert not (tmp_path / "new").exists()


def test_the_new_rows_are_plain_parquet(scores, head, model_dir, tmp_path):
    rescore(scores, tmp_path / "new", predictor=head, model_dir=model_dir)
    old = pq.read_table(scores / "rows").drop_columns(["aesthetic_score"])
    assert pq.read_table(tmp_path / "new" / "rows").drop_columns(["aesthetic_score"]).equals(old)


def test_row_groups_stay_small_however_many_rows_come_at_once(tmp_path):
    schema = rows_schema(with_embeddings=False, with_signals=False)
    many = pa.table([pa.nulls(10_000, field.type) for field in schema], schema=schema)
    rows = RowsFile(tmp_path / "many.parquet", schema)
    rows.add_rows(many)
    rows.commit()
    footer = pq.read_metadata(tmp_path / "many.parquet")
    assert [footer.row_group(n).num_rows for n in range(footer.num_row_groups)] == [4096, 4096, 1808]
