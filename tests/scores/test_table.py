"""The score table: what it opens, what it answers, and what it refuses."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import make_image, mark_as_gone, write_rows, write_scores

from tastemaker import ConfigurationError, ScoreTable
from tastemaker.errors import ReasonKind
from tastemaker.scores.cutoff import Cutoff, Top, mark_best
from tastemaker.scores.schema import EMBEDDING_TYPE
from tastemaker.storage.place import Place

MADE_BY = {"tastemaker": "0.1.0", "precision": "bf16", "options": {"signals": False}}


@pytest.fixture
def runs(tmp_path):
    """Two runs with different columns: one with embeddings, one with signals; and what is no rows file beside them."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_scores(one / "b.parquet", [6.0, None, 4.5], embeddings=True, provenance=MADE_BY | {"sources": "b"})
    write_scores(one / "a" / "0.parquet", [5.0, 7.25], embeddings=True, provenance=MADE_BY | {"sources": "a0"})
    write_scores(two / "x.parquet", [5.5], signals=True, provenance=MADE_BY | {"precision": "f32"})
    for passed_over in (one / "_tastemaker" / "x.parquet", one / ".hidden.parquet", one / "notes.txt"):
        passed_over.parent.mkdir(exist_ok=True)
        passed_over.write_bytes(b"no rows")
    return one, two


def test_rows_are_in_the_order_of_the_files_and_are_numbered(runs):
    table = ScoreTable(runs)
    rows = table.query("SELECT row_id, aesthetic_score FROM rows").to_pylist()
    assert [row["aesthetic_score"] for row in rows] == [5.0, 7.25, 6.0, None, 4.5, 5.5]
    assert [row["row_id"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert len(table) == 6
    assert [source.path.rpartition("/")[2] for source in table.sources] == ["0.parquet", "b.parquet", "x.parquet"]
    assert table.query("SELECT aesthetic_score FROM rows WHERE row_id = 2").to_pylist() == [{"aesthetic_score": 6.0}]


def test_a_file_a_directory_and_both_at_once_are_sources(runs):
    one, two = runs
    assert len(ScoreTable(one / "b.parquet")) == 3
    assert len(ScoreTable(str(one))) == 5
    assert len(ScoreTable([one, one / "b.parquet", two])) == 6  # a file counts once


def test_columns_that_a_run_does_not_have_are_null(runs):
    table = ScoreTable(runs)
    assert table.to_arrow(["sharpness"]).column(0).null_count == 5
    assert table.to_arrow(["embedding"]).column(0).null_count == 2
    assert table.columns["embedding"] == EMBEDDING_TYPE
    assert table.values("technical_quality").tolist()[-1] == 0.0


def test_the_embedding_is_there_only_where_it_is_named(runs):
    table = ScoreTable(runs)
    assert "embedding" not in table.query("SELECT * FROM rows").column_names
    assert "embedding" not in table.to_arrow().column_names
    assert table.query("SELECT row_id, embedding FROM rows LIMIT 1").column_names == ["row_id", "embedding"]
    stored = table.to_arrow(["embedding"]).column(0)[0].as_py()
    assert stored == np.full(768, 768**-0.5, np.float16).tolist()


def test_the_provenance_tells_runs_apart_and_not_their_partitions(runs):
    first, second = ScoreTable(runs).provenance
    assert (first.entries["precision"], first.rows) == ("bf16", 5)
    assert (second.entries["precision"], second.rows) == ("f32", 1)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW rows",
        "SELECT 1; DROP VIEW rows",
        "CREATE TABLE t (a INT)",
        "COPY rows TO '{folder}/copy.csv'",
        "ATTACH '{folder}/other.db'",
        "SET threads = 1",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '{folder}/other.parquet'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM frame",
        "SELECT nothing FROM rows",
        "",
    ],
)
def test_a_query_can_only_select_from_the_rows(runs, tmp_path, sql):
    frame = pa.table({"a": [1]})
    pq.write_table(frame, tmp_path / "other.parquet")
    table = ScoreTable(runs)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match="query"):
        table.query(sql.format(folder=tmp_path))
    assert len(table.query("SELECT * FROM rows")) == 6
    assert sorted(tmp_path.rglob("*")) == before


def test_values_go_into_a_query_as_parameters(runs):
    table = ScoreTable(runs)
    assert len(table.query("SELECT * FROM rows WHERE aesthetic_score > ?", [5.9])) == 2
    assert len(table.query("SELECT * FROM rows WHERE image_id = $key", {"key": "0'; DROP VIEW rows; --"})) == 0


def test_a_condition_chooses_rows(runs):
    table = ScoreTable(runs)
    assert table.to_arrow(["aesthetic_score"], "aesthetic_score >= 6 -- the best").column(0).to_pylist() == [7.25, 6.0]
    assert table.cutoff(keep=1, where="aesthetic_score < 6").score == 5.5
    assert table.summary(where="status = 'failed'").images == 1
    with pytest.raises(ConfigurationError, match="no column 'wdith'; there are image_id"):
        table.to_arrow(["wdith"])


def random_scores(number, seed=0):
    """Scores with many ties, some NaN, some missing."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(5.5, 0.7, number), 1).astype(np.float32).tolist()
    for index in rng.choice(number, number // 5, replace=False):
        scores[index] = float("nan") if index % 2 else None
    return scores


@pytest.mark.parametrize("top", [Top(count=1), Top(count=17), Top(count=10**6), Top(share=0.2), Top(share=0.001)])
def test_a_cut_keeps_what_filter_keeps(tmp_path, top):
    scores = random_scores(500)
    write_scores(tmp_path / "a.parquet", scores[:200])
    write_scores(tmp_path / "b.parquet", scores[200:])
    marks = mark_best(np.array([np.nan if s is None else s for s in scores], np.float32), top)
    cut = ScoreTable(tmp_path).cutoff(top=top.share, keep=top.count)
    assert cut.kept == marks.sum()
    assert cut.score == min(s for s, marked in zip(scores, marks, strict=True) if marked)
    assert cut.scored == 400
    assert cut.share == cut.kept / 400


@pytest.mark.parametrize("min_score", [5.5, 5.6, 4.1, 99.0, -99.0])
def test_a_minimum_keeps_what_duckdb_counts_in_float32(tmp_path, min_score):
    write_scores(tmp_path / "a.parquet", random_scores(500))
    table = ScoreTable(tmp_path)
    condition = "aesthetic_score >= CAST(? AS FLOAT) AND NOT isnan(aesthetic_score)"
    counted = table.query(f"SELECT count(*), min(aesthetic_score) FROM rows WHERE {condition}", [min_score])
    cut = table.cutoff(min_score=min_score)
    assert [cut.kept, cut.score] == [column[0].as_py() for column in counted.columns]


def test_single_rows_come_in_the_order_they_are_asked_for(runs):
    table = ScoreTable(runs)
    found = table.take([4, 0, 5, 0], ["row_id", "aesthetic_score", "sharpness"])
    assert found["row_id"].to_pylist() == [4, 0, 5, 0]
    assert found["aesthetic_score"].to_pylist() == [4.5, 5.0, 5.5, 5.0]
    assert found["sharpness"].to_pylist() == [None, None, 0.0, None]
    assert "embedding" not in table.take([1]).column_names
    assert table.take([1], ["embedding"]).schema.field("embedding").type == EMBEDDING_TYPE
    assert table.take([], ["row_id"]).num_rows == 0
    for wrong in ([6], [-1], [0, 99]):
        with pytest.raises(ConfigurationError, match="not in a table of 6 rows"):
            table.take(wrong)


def test_rows_are_taken_from_every_row_group(tmp_path):
    write_scores(tmp_path / "a.parquet", [n / 1000 for n in range(9000)])
    write_scores(tmp_path / "b.parquet", [9 + n / 1000 for n in range(10)])
    table, wanted = ScoreTable(tmp_path), [0, 4095, 4096, 8191, 8192, 8999, 9000, 9009]
    assert table.take(wanted, ["aesthetic_score"]).column(0).to_numpy().tolist() == table.values()[wanted].tolist()


@pytest.mark.parametrize(
    "wrong", [{}, {"top": 0.2, "keep": 3}, {"top": 20}, {"top": 0}, {"keep": 0}, {"min_score": float("nan")}]
)
def test_a_cut_that_makes_no_sense_is_an_error(runs, wrong):
    with pytest.raises(ConfigurationError):
        ScoreTable(runs).cutoff(**wrong)


def test_a_summary_equals_numpy(tmp_path):
    scores = random_scores(1000)
    write_scores(tmp_path / "a.parquet", scores)
    present = np.array([s for s in scores if s is not None and not np.isnan(s)], np.float32)
    summary = ScoreTable(tmp_path).summary()
    assert (summary.images, summary.kept, summary.failed, summary.scored) == (
        1000,
        1000 - scores.count(None),
        scores.count(None),
        800,
    )
    assert (summary.minimum, summary.maximum) == (present.min(), present.max())
    assert summary.mean == pytest.approx(present.mean(dtype=np.float64))
    for percentile, value in summary.percentiles.items():
        assert value == pytest.approx(np.percentile(present.astype(np.float64), percentile), abs=1e-9)


def test_reasons_are_counted_by_their_kind(tmp_path):
    kinds = [ReasonKind.DAMAGED, ReasonKind.MISSING, ReasonKind.DAMAGED, ReasonKind.BELOW_CUTOFF, None]
    images = [
        make_image(n, None, reason=f"naïve 'sentence' {n}", reason_kind=kind, failed=n < 3)
        for n, kind in enumerate(kinds)
    ]
    write_rows(tmp_path / "a.parquet", [make_image(9, 5.0), *images])
    summary = ScoreTable(tmp_path).summary()
    assert summary.reasons == {"damaged": 2, "missing": 1, "below_cutoff": 1, "dropped_by_stage": 1}
    assert next(iter(summary.reasons)) == "damaged"
    assert (summary.kept, summary.dropped, summary.failed) == (1, 2, 3)


def test_a_table_of_failures_and_one_without_rows_have_no_cutoff(tmp_path):
    for name, scores in (("failed", [None, None]), ("empty", [])):
        write_scores(tmp_path / name / "a.parquet", scores)
        table = ScoreTable(tmp_path / name)
        assert (len(table), table.summary().images) == (len(scores), len(scores))
        for cut in ({"top": 0.2}, {"keep": 5}, {"min_score": 1.0}):
            assert table.cutoff(**cut).score is None
            assert (table.cutoff(**cut).kept, table.cutoff(**cut).share) == (0, 0.0)


def test_what_is_no_rows_file_is_a_clear_error(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigurationError, match=r"no rows in .*nothing"):
        ScoreTable(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="does not exist"):
        ScoreTable(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="no rows"):
        ScoreTable([])
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigurationError, match="no column image_path, status, reason_kind"):
        ScoreTable(tmp_path)
    (tmp_path / "other.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ConfigurationError, match=r"other\.parquet is no rows file"):
        ScoreTable(tmp_path)


def retyped(table, **types):
    """Return rows with columns of other types."""
    return table.cast(pa.schema([field.with_type(types.get(field.name, field.type)) for field in table.schema]))


@pytest.mark.parametrize("kind", ["pandas", "polars", "categories", "nulls", "fixed lists", "no provenance"])
def test_rows_that_another_program_wrote_again_are_read(tmp_path, kind):
    images = [make_image(0, 6.0), make_image(1, 4.5, reason="not in the top 20%"), make_image(2, None, failed=True)]
    table = pq.read_table(write_rows(tmp_path / "a.parquet", images, embeddings=True))
    texts = [field.name for field in table.schema if field.type == pa.string()]
    again = {
        "pandas": lambda: pa.Table.from_pandas(table.to_pandas()),
        "polars": lambda: retyped(table, **dict.fromkeys(texts, pa.large_string())),
        "categories": lambda: retyped(table, **dict.fromkeys(texts, pa.dictionary(pa.int32(), pa.string()))),
        "nulls": lambda: table.drop_columns(["caption", "rating"]).append_column("caption", pa.nulls(3)),
        "fixed lists": lambda: retyped(table, embedding=pa.list_(pa.float16(), 768)),
        "no provenance": lambda: table.replace_schema_metadata({b"tastemaker": b"{damaged"}),
    }
    pq.write_table(again[kind](), tmp_path / "b.parquet")
    before, after = ScoreTable(tmp_path / "a.parquet"), ScoreTable(tmp_path / "b.parquet")
    assert after.take([0, 2, 1], texts).equals(before.take([0, 2, 1], texts))
    assert after.summary() == before.summary()
    assert len(after.provenance) == 1
    both = ScoreTable(tmp_path)
    assert both.values().tolist()[:2] == both.values().tolist()[3:5] == [6.0, 4.5]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: retyped(rows, width=pa.string()), "the column width of .* holds string"),
        (lambda rows: rows.append_column("status", rows["status"]), "more than one column status"),
        (
            lambda rows: rows.append_column("file_row_number", rows["size"]),
            "a column file_row_number, which DuckDB takes",
        ),
    ],
)
def test_rows_that_another_program_spoilt_are_refused(tmp_path, change, problem):
    rows = pq.read_table(write_scores(tmp_path / "a.parquet", [6.0, None]))
    pq.write_table(change(rows), tmp_path / "a.parquet")
    with pytest.raises(ConfigurationError, match=problem):
        ScoreTable(tmp_path)


def test_columns_of_the_users_own_must_agree(tmp_path):
    rows = pq.read_table(write_scores(tmp_path / "a.parquet", [6.0, None]))
    pq.write_table(rows.append_column("mine", rows["size"]), tmp_path / "a.parquet")
    pq.write_table(rows.append_column("mine", rows["sidecars"]), tmp_path / "b.parquet")
    with pytest.raises(ConfigurationError, match=r"cannot be read together: .*mine"):
        ScoreTable(tmp_path)


@pytest.mark.parametrize(
    "name", ["a*b.parquet", "what?.parquet", "[2019] it's.parquet", "caf\udce9.parquet", "naïve 東.parquet"]
)
def test_files_of_any_name_are_read(tmp_path, name):
    write_scores(tmp_path / "ab" / "axb.parquet", [1.0])
    write_scores(tmp_path / "rows", [2.0]).rename(tmp_path / "ab" / name)
    assert sorted(ScoreTable(tmp_path).values().tolist()) == [1.0, 2.0]
    assert ScoreTable(tmp_path / "ab" / name).values().tolist() == [2.0]


def test_rows_at_a_url_are_those_of_this_machine(tmp_path):
    for name, score in (("b/1.parquet", 2.0), ("a.parquet", 1.0), ("_x/2.parquet", 3.0)):
        rows = write_scores(tmp_path / name, [score], embeddings=True).read_bytes()
        Place.of(f"memory://scores/{name}").write(rows)
    table = ScoreTable(["memory://scores", tmp_path / "a.parquet"])
    assert table.values().tolist() == [1.0, 2.0, 1.0]
    assert len(ScoreTable("memory://scores/a.parquet")) == 1
    with pytest.raises(ConfigurationError, match="does not exist"):
        ScoreTable("memory://elsewhere")


def test_threads_share_a_table(runs):
    table, results = ScoreTable(runs), []
    ask = "SELECT count(*) AS n FROM rows", "SELECT count(embedding) AS n FROM rows"
    threads = [
        threading.Thread(target=lambda n=n: results.append((n % 2, table.query(ask[n % 2])["n"][0].as_py())))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(0, 6)] * 8 + [(1, 4)] * 8


def test_a_table_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tastemaker.scores.database.draft_folder", lambda: folder)
    table = ScoreTable(runs)
    assert list(folder.iterdir())
    del table
    gc.collect()
    assert not list(folder.iterdir())


def test_what_a_killed_process_left_of_a_table_is_cleared_by_the_next(runs, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    code = "import os, sys; from tastemaker import ScoreTable; table = ScoreTable(sys.argv[1:])"
    for end, left in [("os.kill(os.getpid(), 9)", 1), ("", 0)]:
        command = [sys.executable, "-c", f"{code}; {end}", *map(str, runs)]
        subprocess.run(command, env=os.environ | {"TMPDIR": str(folder)}, check=False)
        assert len(list(folder.iterdir())) == left


def test_the_table_loads_no_model_and_no_data_frame_library():
    code = "import sys, tastemaker; tastemaker.ScoreTable; print(*sorted(m for m in sys.modules if '.' not in m))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "pandas", "polars"} & set(modules)
    assert "duckdb" in modules


def test_pictures_that_are_gone_are_told_and_otherwise_left_out(tmp_path):
    path = write_scores(tmp_path / "rows.parquet", [6.0, None, 7.0, 5.0, 4.0])
    mark_as_gone(path, [1, 2])
    table = ScoreTable(path)
    summary = table.summary()
    assert (summary.images, summary.kept, summary.failed, summary.deleted) == (3, 3, 0, 2)
    assert (summary.scored, summary.maximum, summary.reasons) == (3, 6.0, {})
    assert table.cutoff(keep=1) == Cutoff(6.0, 1, 1 / 3, 3)
    assert table.cutoff(min_score=0).kept == 3
    assert np.isnan(table.values()[[1, 2]]).all()
    assert len(table.values(where="aesthetic_score > 5.5")) == 2
    assert np.nanmax(table.values(where="aesthetic_score > 5.5")) == 6.0
    assert table.present_rows().tolist() == [0, 3, 4]
    assert table.present_rows("aesthetic_score < 4.5 OR image_id = '00002'").tolist() == [4]
    assert len(table.to_arrow()) == len(table) == 5  # their rows are there for who asks


ENDLESS = "(SELECT count(*) FROM range(100000000000) t(i) WHERE i % 3 = 1) > 0"


def test_a_query_without_end_is_stopped_and_the_next_is_answered(runs):
    table = ScoreTable(runs)
    with pytest.raises(ConfigurationError, match=r"longer than 0\.2 seconds and was stopped"):
        table.query(f"SELECT row_id FROM rows WHERE {ENDLESS}", limit_s=0.2)
    assert len(table.to_arrow(["row_id"], limit_s=60)) == 6
