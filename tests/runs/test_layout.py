"""Rows as other programs find them, whatever a command wrote beside them; and what makes them other rows."""

from dataclasses import dataclass, replace
from importlib.util import find_spec

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from tiny import make_tiny_shards, rows_of

from tastemaker import (
    ConfigurationError,
    ImageReaderStage,
    Selection,
)
from tastemaker.errors import ReasonKind
from tastemaker.runs.run import RunMode, RunOptions, run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.selections.filter import filter_images


@pytest.fixture
def options(model_dir):
    return RunOptions(model_dir=str(model_dir))


def with_datasets(folder):
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache")).to_pandas()


READERS = {
    "pandas": pd.read_parquet,
    "polars": lambda folder: pl.read_parquet(folder).to_pandas(),
    "polars scan": lambda folder: pl.scan_parquet(folder).collect().to_pandas(),
    "duckdb": lambda folder: duckdb.sql(f"SELECT * FROM '{folder}/*.parquet'").df(),
    **({"datasets": with_datasets} if find_spec("datasets") else {}),
}


def test_any_reader_takes_the_rows_as_they_are_after_any_command(tmp_path, options):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    cut = Selection(top=Top(share=0.5))
    for command in (
        lambda: run_scoring(shards, out, options),
        lambda: filter_images(shards, out, cut, options),
        lambda: filter_images(shards, out, cut, options, kind="folder"),
    ):
        command()
        for name, read in READERS.items():
            rows = read(out / "rows")
            assert sorted(rows["image_path"]) == sorted(rows_of(out)), name
            assert rows["status"].value_counts().to_dict() == {"kept": 9, "failed": 3}, name
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"rows", "kept", "_tastemaker"}
    assert {path.name for path in (out / "rows").rglob("*")} == {"0.parquet", "1.parquet", "2.parquet"}


def test_a_row_says_what_is_wrong_in_a_sentence_and_in_a_word_of_a_closed_set(tmp_path, options):
    shards = make_tiny_shards(tmp_path / "in")
    (shards / "1.tar").write_bytes((shards / "1.tar").read_bytes()[:900])
    summary = run_scoring(shards, tmp_path / "out", options)
    rows = rows_of(tmp_path / "out").values()
    for row in rows:
        assert (row["reason"] is None) == (row["reason_kind"] is None) == (row["status"] == "kept")
    kinds = [row["reason_kind"] for row in rows if row["reason_kind"]]
    assert {*kinds} == {ReasonKind.DAMAGED, ReasonKind.DAMAGED_SHARD}
    assert summary.reasons == {kind: kinds.count(kind) for kind in {*kinds}}
    assert {"kept", "tar_file", "member_name"} & set(next(iter(rows))) == set()
    assert summary.rows_files == [str(tmp_path / "out" / "rows" / f"{n}.parquet") for n in range(3)]
    assert "rows_files" not in summary.as_json()


@dataclass
class SharperReader(ImageReaderStage):
    """A stage with an option more than ours."""

    sharpness: float = 1.0


def test_rows_of_a_stage_with_another_option_are_refused(tmp_path, options, monkeypatch):
    shards, made = make_tiny_shards(tmp_path / "in"), []

    def make_stages(*arguments):
        stages = original(*arguments)
        number = next(n for n, stage in enumerate(stages) if isinstance(stage, ImageReaderStage))
        stages[number] = SharperReader(stages[number].batch_size, sharpness=len(made))
        return stages

    from tastemaker.runs import run

    original = run.make_stages
    monkeypatch.setattr(run, "make_stages", make_stages)
    run_scoring(shards, tmp_path / "out", options)
    made.append(True)
    with pytest.raises(ConfigurationError, match="sharpness of image_reader was 0 and is 1"):
        run_scoring(shards, tmp_path / "out", options)
    assert run_scoring(shards, tmp_path / "out", options, RunMode(overwrite=True)).images_scored_now == 12


def test_options_that_change_no_row_change_no_fingerprint(tmp_path, options):
    shards = make_tiny_shards(tmp_path / "in")
    run_scoring(shards, tmp_path / "out", options)
    for harmless in ({"threads": 1}, {"batch_size": 2}, {"verbose": True}):
        assert run_scoring(shards, tmp_path / "out", replace(options, **harmless)).images_scored_now == 0


def test_shards_in_folders_have_rows_in_folders(tmp_path, options):
    shards = make_tiny_shards(tmp_path / "in")
    (shards / "more").mkdir()
    (shards / "1.tar").rename(shards / "more" / "1.tar")
    run_scoring(shards, tmp_path / "out", options)
    assert pq.read_table(tmp_path / "out" / "rows" / "more" / "1.parquet").num_rows == 4
    assert len(pd.read_parquet(tmp_path / "out" / "rows")) == len(pl.read_parquet(tmp_path / "out" / "rows")) == 12
