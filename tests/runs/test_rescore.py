"""Columns of scores from stored embeddings: those of a run with the same heads, and all else as it was."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tastemaker
from safetensors.numpy import save_file

from tastemaker import ConfigurationError, RunOptions, ScoreTable, run_scoring
from tastemaker.runs.rescore import rescore
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import rows_schema
from tastemaker.testing import random_detector, random_predictor


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two files, whose columns are ``other`` and ``my_detector``."""
    folder, rng = tmp_path_factory.mktemp("head"), np.random.default_rng(9)
    save_file(random_predictor(768, rng), folder / "other.safetensors")
    save_file(random_detector(768, rng), folder / "My detector.safetensors")
    return [str(folder / "other.safetensors"), str(folder / "My detector.safetensors")]


@pytest.fixture(scope="module")
def made(tmp_path_factory, photographs, model_dir):
    folder = tmp_path_factory.mktemp("rescored")
    for number, (name, data) in enumerate(photographs.items()):
        (folder / "photos" / f"day{number % 2}").mkdir(parents=True, exist_ok=True)
        (folder / "photos" / f"day{number % 2}" / name).write_bytes(data)
    (folder / "photos" / "broken.jpg").write_bytes(b"no picture")
    run_scoring(folder / "photos", folder / "scores", RunOptions(model_dir=str(model_dir)))
    return folder


@pytest.fixture
def scores(made, tmp_path):
    return shutil.copytree(made / "scores", tmp_path / "scores")


def rows_of(folder):
    table = ScoreTable(folder)
    rows = table.to_arrow([*table.columns]).to_pylist()
    return {row["image_path"]: row for row in rows}


def test_columns_are_those_of_a_run_with_these_heads_and_the_rest_stays(made, scores, heads, model_dir, tmp_path):
    before = rows_of(scores)
    done = rescore(scores, heads)
    options = RunOptions(model_dir=str(model_dir), scorer=("laion-v2", *heads))
    run_scoring(made / "photos", tmp_path / "run", options)
    after, expected = rows_of(scores), rows_of(tmp_path / "run")
    assert before.keys() == after.keys() == expected.keys()
    for path, row in after.items():
        assert {name: value for name, value in row.items() if name not in ("other", "my_detector")} == before[path]
        for name in ("other", "my_detector"):
            score = expected[path][name]
            assert row[name] == (None if score is None else pytest.approx(score, abs=done.rounding[name] + 1e-6))
    assert (done.rows, done.finished_before) == (len(after), 0)
    assert done.scored == {"other": len(after) - 1, "my_detector": len(after) - 1}
    assert 0 < done.rounding["other"] < 0.02
    assert 0 < done.rounding["my_detector"] < 0.02


def test_the_provenance_names_each_columns_head_and_the_old_embeddings(scores, heads):
    [old] = ScoreTable(scores).provenance
    rescore(scores, heads)
    [new] = ScoreTable(scores).provenance
    made_by = new.entries["scores"]
    assert made_by["aesthetic_score"] == old.entries["scores"]["aesthetic_score"]
    assert made_by["other"]["scorer"] == "other"
    assert made_by["other"]["embedding"] == "float16"
    assert len({entry["sha256"] for entry in made_by.values()}) == 3
    assert {name: value for name, value in new.entries.items() if name != "scores"} == {
        name: value for name, value in old.entries.items() if name != "scores"
    }


def test_only_what_is_not_finished_is_done_again(scores, heads):
    first = rescore(scores, heads[0])
    files = sorted((scores / "rows").rglob("*.parquet"))
    written = [file.stat().st_mtime_ns for file in files]
    again = rescore(scores, heads[0])
    assert (again.files, again.finished_before, again.scored) == (len(files), len(files), first.scored)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert rescore(scores, heads).finished_before == 0


def test_other_weights_of_the_same_name_renew_the_column(scores, heads, tmp_path):
    rescore(scores, heads[0])
    before = rows_of(scores)
    save_file(random_predictor(768, np.random.default_rng(10)), tmp_path / "other.safetensors")
    assert rescore(scores, tmp_path / "other.safetensors").finished_before == 0
    after = rows_of(scores)
    assert all(row["other"] != after[path]["other"] for path, row in before.items() if row["other"] is not None)


def test_a_run_goes_on_with_rows_that_have_more_columns_and_fills_none_of_them(
    made, scores, heads, model_dir, tmp_path
):
    photos = shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.rmtree(scores)
    options = RunOptions(model_dir=str(model_dir))
    run_scoring(photos, scores, options)
    rescore(scores, heads[0])
    filled = rows_of(scores)
    new = next(photos.rglob("*.jpg")).with_name("new.jpg")
    shutil.copy(next(photos.rglob("*.png")), new)
    summary = run_scoring(photos, scores, options)
    assert summary.images_scored_now == 1
    rows = rows_of(scores)
    assert {path: rows[path]["other"] for path in filled} == {path: row["other"] for path, row in filled.items()}
    assert rows[str(new)]["other"] is None
    assert rescore(scores, heads[0]).scored["other"] == len(rows) - 1
    assert rows_of(scores)[str(new)]["other"] is not None


def test_a_run_does_not_take_rows_for_its_own_whose_scores_came_from_other_weights(made, scores, model_dir, tmp_path):
    other = shutil.copytree(model_dir, tmp_path / "models")
    save_file(random_predictor(768, np.random.default_rng(3)), next(other.glob("ttj/*/model.safetensors")))
    rescore(scores, model_dir=other)
    with pytest.raises(ConfigurationError, match="made otherwise"):
        run_scoring(made / "photos", scores, RunOptions(model_dir=str(model_dir)))


def test_a_column_that_holds_something_else_and_files_of_others_are_refused(scores, heads, tmp_path):
    head = shutil.copy(heads[0], tmp_path / "width.safetensors")
    with pytest.raises(ConfigurationError, match="width, which rows have for something else"):
        rescore(scores, head)
    file = next((scores / "rows").rglob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(table.append_column("other", pa.array(["mine"] * len(table))), file)
    with pytest.raises(ConfigurationError, match="has a column other that no scorer filled"):
        rescore(scores, heads[0])


def test_the_embeddings_of_another_backbone_are_refused_by_record(scores, tmp_path):
    with pytest.raises(ConfigurationError, match=r"clip-vit-large-patch14 made .* laion-v1-b32 takes those of openai"):
        rescore(scores, "laion-v1-b32")
    assert "laion_v1_b32" not in ScoreTable(scores).columns


def test_the_command_says_how_many_and_how_exact(scores, heads):
    command = ("rescore", scores, "--scorer", heads[0], "--scorer", heads[1])
    result = tastemaker(*command)
    assert result.returncode == 0, result.stderr
    assert "my_detector: " in result.stdout
    assert "moves it by 0.0" in result.stdout
    assert json.loads(tastemaker(*command, "--json").stdout)["finished_before"] > 0


def test_row_groups_stay_small_however_many_rows_come_at_once(tmp_path):
    schema = rows_schema(with_embeddings=False, with_signals=False)
    many = pa.table([pa.nulls(10_000, field.type) for field in schema], schema=schema)
    rows = RowsFile(tmp_path / "many.parquet", schema)
    rows.add_rows(many)
    rows.commit()
    footer = pq.read_metadata(tmp_path / "many.parquet")
    assert [footer.row_group(n).num_rows for n in range(footer.num_row_groups)] == [4096, 4096, 1808]
