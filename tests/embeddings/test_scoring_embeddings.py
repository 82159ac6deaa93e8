"""Embeddings that others computed go in, the same rows as of images come out."""

# ruff: noqa: F811 - fixtures are arguments

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_files import clip_retrieval, unit_vectors  # noqa: F401 - one is a fixture
from safetensors.numpy import save_file
from typer.testing import CliRunner

from tastemaker import AestheticPredictor, ScoreTable, errors
from tastemaker.cli import app
from tastemaker.embeddings.find import find_embeddings
from tastemaker.models.hub import weights_path
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.scores.schema import rows_schema
from tastemaker.testing import random_predictor


@pytest.fixture
def score(tmp_path, model_dir):
    def run(*inputs, output="out", overwrite=False, **options):
        options = RunOptions(model_dir=str(model_dir), **options)
        return run_scoring([str(path) for path in inputs], tmp_path / output, options, RunMode(overwrite=overwrite))

    return run


@pytest.fixture
def predictor(model_dir):
    return AestheticPredictor.from_file(weights_path(AESTHETIC_PREDICTOR, model_dir))


def test_a_clip_retrieval_folder_is_scored_with_its_metadata(tmp_path, clip_retrieval, score, predictor):
    summary = score(clip_retrieval)
    assert (summary.images, summary.kept, summary.failed) == (50, 50, 0)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.parquet")) == [
        "img_emb_0.parquet",
        "img_emb_1.parquet",
    ]
    table = pq.read_table(tmp_path / "out" / "rows" / "img_emb" / "img_emb_1.parquet")
    columns = rows_schema(with_embeddings=False, with_signals=False)
    assert table.schema.names[: len(columns)] == columns.names
    assert [field.type for field in list(table.schema)[: len(columns)]] == columns.types
    assert table["image_id"].to_pylist() == [f"1-{row}" for row in range(20)]
    assert table["image_path"][3].as_py() == "000010003"
    assert table["caption"][3].as_py() == "picture 3"
    assert table["width"].to_pylist()[:3] == [None, 1, 2]
    assert table["height"][0].as_py() == 480
    assert table["URL"][2].as_py() == "https://example.com/2.jpg"
    assert table["similarity"][0].as_py() == pytest.approx(0.2)
    assert table["given_aesthetic_score"][0].as_py() == 6.5
    expected = predictor.score(np.load(clip_retrieval / "img_emb" / "img_emb_1.npy"))
    assert np.abs(table["aesthetic_score"].to_numpy() - expected).max() < 1e-5


def test_metadata_that_was_missing_is_taken_up_by_the_next_run(tmp_path, clip_retrieval, score):
    metadata = clip_retrieval / "metadata" / "metadata_1.parquet"
    metadata.rename(tmp_path / "away")
    score(clip_retrieval)
    rows = tmp_path / "out" / "rows" / "img_emb" / "img_emb_1.parquet"
    assert pq.read_table(rows)["image_id"][3].as_py() == "img_emb/img_emb_1/000000003"
    (tmp_path / "away").rename(metadata)
    assert score(clip_retrieval).images_scored_now == 20  # the other file has its rows
    assert pq.read_table(rows)["image_id"][3].as_py() == "1-3"
    moved = score(clip_retrieval.rename(tmp_path / "moved"))
    assert (moved.images_scored_now, moved.images, moved.moved) == (0, 50, 4)


def test_rows_say_where_the_embeddings_came_from_and_what_scored_them(tmp_path, clip_retrieval, score):
    score(clip_retrieval)
    schema = pq.read_schema(tmp_path / "out" / "rows" / "img_emb" / "img_emb_0.parquet")
    made_by = json.loads(schema.metadata[b"tastemaker"])
    assert made_by["clip_model"] == "unknown, as given"
    assert made_by["embeddings"]["file"].endswith("img_emb_0.npy")
    assert made_by["embeddings"]["dtype"] == "float16"
    assert len(made_by["scores"]["aesthetic_score"]["sha256"]) == 64


@pytest.mark.parametrize("dtype", [np.float16, ">f8"])
@pytest.mark.parametrize("kind", ["npy", "npz", "fixed", "varying"])
def test_every_kind_of_file_and_number_gives_the_predictors_scores(tmp_path, kind, dtype, score, predictor):
    vectors = unit_vectors(100, dtype=np.float64).astype(dtype)
    path = tmp_path / f"given.{kind if kind in ('npy', 'npz') else 'parquet'}"
    if kind == "npy":
        np.save(path, vectors)
    elif kind == "npz":
        np.savez_compressed(path, b32_img=vectors[:, :512], l14_img=vectors, l14_txt=-vectors, uid=np.array(["a"]))
    else:
        native = vectors.astype(vectors.dtype.newbyteorder("="))
        column = pa.FixedSizeListArray.from_arrays(native.ravel(), 768)
        column = column if kind == "fixed" else column.cast(pa.list_(column.type.value_type))
        pq.write_table(pa.table({"embedding": column, "text_embedding": column}), path)
    score(path)
    rows = pq.read_table(tmp_path / "out" / "rows" / "given.parquet")
    expected = predictor.score(vectors.astype(np.float32))
    assert np.abs(rows["aesthetic_score"].to_numpy() - expected).max() < 1e-5
    assert rows["image_id"].to_pylist()[:2] == ["given/000000000", "given/000000001"]


def test_datacomp_metadata_lies_beside_its_npz(tmp_path, score):
    folder = tmp_path / "metadata"
    folder.mkdir()
    np.savez(folder / "00ab.npz", l14_img=unit_vectors(3), b32_img=np.zeros((3, 512), np.float16))
    table = {"uid": ["x", "y", "z"], "url": ["u0", "u1", "u2"], "text": ["a", "b", "c"], "original_width": [1, 2, 3]}
    pq.write_table(pa.table(table), folder / "00ab.parquet")
    score(folder)
    rows = pq.read_table(tmp_path / "out" / "rows" / "00ab.parquet").to_pylist()
    assert [(row["image_id"], row["image_path"], row["caption"], row["width"]) for row in rows] == [
        *(("x", "u0", "a", 1), ("y", "u1", "b", 2), ("z", "u2", "c", 3))
    ]


def test_embeddings_of_another_length_are_normalised_and_counted(tmp_path, score, predictor, capsys):
    from tastemaker.cli.summary import print_summary

    unit = unit_vectors(10, dtype=np.float32)
    given = unit * np.array([1, 1, 10, 0.5, 1, 1.001, 1, 1, 20, 1], np.float32)[:, None]
    np.save(tmp_path / "given.npy", given)
    summary = score(tmp_path / "given.npy", copy_embeddings=True)
    assert summary.embeddings_normalised == 3
    print_summary(summary, as_json=False)
    assert "3 embeddings were not of unit length" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "rows" / "given.parquet")
    is_exact = np.arange(10) != 5  # within the tolerance it is scored as it is
    assert np.abs(rows["aesthetic_score"].to_numpy() - predictor.score(unit))[is_exact].max() < 1e-5
    stored = np.array(rows["embedding"].to_pylist(), np.float32)
    assert np.abs(np.linalg.norm(stored, axis=1) - 1).max() < 2e-3


def test_unusable_embeddings_fail_with_a_reason_and_the_others_go_on(tmp_path, score):
    vectors = unit_vectors(8, dtype=np.float32)
    vectors[1, 5], vectors[2, 6], vectors[3] = np.nan, np.inf, 0
    rows = [list(map(float, row)) for row in vectors]
    rows[4], rows[5], rows[6][9] = None, [1.0, 2.0], None
    pq.write_table(pa.table({"embedding": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "given.parquet")
    summary = score(tmp_path / "given.parquet", copy_embeddings=True)
    table = pq.read_table(tmp_path / "out" / "rows" / "given.parquet")
    assert table["reason"].to_pylist() == [
        None,
        "unusable: the embedding holds a NaN or an infinity",
        "unusable: the embedding holds a NaN or an infinity",
        "unusable: the embedding is zero",
        "unusable: no embedding",
        "unusable: the embedding has 2 numbers, not 768",
        "unusable: the embedding holds a NaN or an infinity",
        None,
    ]
    assert table["status"].to_pylist() == ["kept", *["failed"] * 6, "kept"]
    assert table["aesthetic_score"].is_null().to_pylist() == [False, *[True] * 6, False]
    assert table["embedding"].is_null().to_pylist() == [False, *[True] * 6, False]
    assert (summary.kept, summary.failed) == (2, 6)


def test_blocks_do_not_change_rows(tmp_path, score, predictor):
    """Twenty thousand embeddings are two blocks; scores, numbers and metadata stay with their rows."""
    vectors = unit_vectors(20_000)
    np.save(tmp_path / "given.npy", vectors)
    pq.write_table(pa.table({"id": np.arange(20_000)}), tmp_path / "given.parquet", row_group_size=7001)
    score(tmp_path / "given.npy")
    rows = pq.read_table(tmp_path / "out" / "rows" / "given.parquet")
    assert rows["image_id"].to_pylist() == list(map(str, range(20_000)))
    assert np.abs(rows["aesthetic_score"].to_numpy() - predictor.score(vectors)).max() < 1e-5


def test_a_run_that_was_killed_goes_on_with_the_next_file(tmp_path, clip_retrieval, score):
    score(clip_retrieval)
    first, second = sorted((tmp_path / "out").rglob("*.parquet"))
    before, stamp = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    (second.parent / ".tastemaker-tmp-dead-img_emb_1.parquet").write_bytes(b"half")
    summary = score(clip_retrieval)
    assert (summary.images, summary.images_scored_now) == (50, 20)
    assert first.stat().st_mtime_ns == stamp
    assert second.read_bytes() == before
    assert not list((tmp_path / "out").rglob(".tastemaker-tmp-*"))
    assert score(clip_retrieval).images_scored_now == 0


def test_rows_of_an_earlier_run_are_scored_again_and_keep_where_the_originals_lie(tmp_path, photo_folder, score):
    score(photo_folder, output="scores")
    summary = score(tmp_path / "scores" / "rows", output="again")
    assert summary.images == summary.kept == 7
    old = pq.read_table(tmp_path / "scores" / "rows" / "photos-00000.parquet")
    new = pq.read_table(tmp_path / "again" / "rows" / "photos-00000.parquet")
    for name in ("image_id", "image_path", "offset", "size", "width", "height", "format", "caption", "sidecars"):
        assert new[name].to_pylist() == old[name].to_pylist(), name
    assert new["given_aesthetic_score"].equals(old["aesthetic_score"])
    assert np.abs(new["aesthetic_score"].to_numpy() - old["aesthetic_score"].to_numpy()).max() < 0.02  # float16


def test_the_command_line_filters_rows_only_and_refuses_what_needs_pictures(
    tmp_path, clip_retrieval, model_dir, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def run(*command):
        return CliRunner().invoke(app, [*command, "--model-dir", str(model_dir), "--json"])

    summary = json.loads(run("filter", "laion", "--top", "10", "--output", "b").stdout)
    assert (summary["selection"]["kind"], summary["selection"]["chosen"]) == ("manifest", 10)
    assert len(pq.read_table(tmp_path / "b" / "kept.parquet")) == 10
    refused = run("score", "laion", "--output", "d", "--signals").exception
    assert isinstance(refused, errors.ConfigurationError)
    assert "technical quality is measured in pictures" in str(refused)


def test_a_file_that_is_named_twice_is_scored_once(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((3, 768), np.float16))
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in find_embeddings(["./a.npy", "a.npy", str(tmp_path / "a.npy")])] == [
        str(tmp_path / "a.npy")
    ]


def test_each_scorer_fills_a_column_of_its_own(tmp_path, score):
    for name, seed in (("one", 1), ("two", 2)):
        save_file(random_predictor(768, np.random.default_rng(seed)), tmp_path / f"{name}.safetensors")
    heads = tuple(str(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    np.save(tmp_path / "given.npy", unit_vectors(3))
    summary = score(tmp_path / "given.npy", scorer=heads)
    assert list(summary.provenance["scores"]) == ["one", "two"]
    for name, path in zip(("one", "two"), heads, strict=True):
        expected = AestheticPredictor.from_file(Path(path)).score(unit_vectors(3))
        np.testing.assert_allclose(ScoreTable(summary.rows_files).values(name), expected, atol=1e-4)


def test_a_missing_predictor_is_an_error_before_the_work(tmp_path, score):
    np.save(tmp_path / "given.npy", unit_vectors(3))
    with pytest.raises(errors.ConfigurationError, match=r"missing\.safetensors does not exist"):
        score(tmp_path / "given.npy", scorer="missing.safetensors")


def test_rows_are_written_below_a_folder_whose_name_is_no_utf8(tmp_path, score):
    np.save(tmp_path / "a.npy", unit_vectors(3))
    assert score(tmp_path / "a.npy", output="caf\udce9").kept == 3
    assert (tmp_path / "caf\udce9" / "rows" / "a.parquet").is_file()
