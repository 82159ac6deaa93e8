"""Near-duplicates, and the best of them."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import write_scores

from tastemaker import ScoreTable, errors
from tastemaker.scores import groups, vectors
from tastemaker.scores.groups import group_duplicates
from tastemaker.scores.neighbours import nearest_rows
from tastemaker.scores.schema import EMBEDDING_TYPE
from tastemaker.scores.stacks import best_of_group


def with_copies(count, seed=0, cosine=0.97, size=64):
    """Unit vectors of which every third is a near copy of the one two before it."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = rng.standard_normal((count // 3, size))
    originals = vectors[0 : 3 * (count // 3) : 3]
    noise -= (noise * originals).sum(1, keepdims=True) * originals
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    vectors[2::3] = cosine * originals + (1 - cosine**2) ** 0.5 * noise
    return vectors.astype(np.float32)


def test_near_copies_are_grouped_under_the_first_of_them():
    found = group_duplicates(with_copies(300))
    expected = np.arange(300)
    expected[2::3] -= 2
    assert found.tolist() == expected.tolist()
    assert found.dtype == np.int64


def test_length_and_number_type_do_not_matter():
    vectors = with_copies(300)
    lengths = np.random.default_rng(1).uniform(0.5, 20, (300, 1)).astype(np.float32)
    assert (group_duplicates(vectors * lengths) == group_duplicates(vectors)).all()
    assert (group_duplicates((vectors * lengths).astype(np.float16)) == group_duplicates(vectors)).all()


def test_a_chain_is_cut_where_a_picture_is_too_far_from_the_first():
    angles = np.arange(10) * np.arccos(0.97)
    burst = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = group_duplicates(burst, min_similarity=0.96)
    assert found.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    assert (np.einsum("ij,ij->i", burst, burst[found]) >= 0.96).all()


def test_rows_without_an_embedding_are_groups_of_their_own():
    vectors = np.ones((6, 8), np.float16)
    vectors[1], vectors[3, 2], vectors[4, 0] = 0, np.nan, np.inf
    assert group_duplicates(vectors).tolist() == [0, 1, 0, 3, 4, 0]
    assert group_duplicates(np.zeros((3, 8), np.float32)).tolist() == [0, 1, 2]
    assert group_duplicates(np.empty((0, 8), np.float32)).tolist() == []


def test_the_index_finds_what_comparing_all_pairs_finds(monkeypatch):
    pytest.importorskip("faiss")
    vectors = with_copies(6000, cosine=0.96)
    exact = group_duplicates(vectors)
    monkeypatch.setattr(groups, "EXACT_ROWS", 100)
    found = group_duplicates(vectors)
    is_same = found == exact
    assert is_same.mean() > 0.99
    assert (found[~is_same] == np.flatnonzero(~is_same)).all()  # missed, never wrong
    assert (group_duplicates(vectors) == found).all()


def test_many_identical_pictures_are_one_group_in_little_time(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(groups, "EXACT_ROWS", 100)
    vectors = with_copies(9000)
    vectors[1000:] = vectors[0]
    found = group_duplicates(vectors)
    assert (found[1000:] == 0).all()
    assert (found[:1000] == group_duplicates(vectors[:1000])).mean() > 0.99


def test_many_embeddings_without_the_extra_say_what_to_install(monkeypatch):
    monkeypatch.setattr(groups, "EXACT_ROWS", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(errors.MissingExtraError, match=r"tastemaker\[groups\]"):
        group_duplicates(with_copies(12))


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan")])
def test_a_similarity_that_is_none_is_an_error(value):
    with pytest.raises(errors.ConfigurationError, match="min_similarity"):
        group_duplicates(np.ones((2, 8), np.float32), min_similarity=value)


def test_the_best_of_a_group_is_its_highest_score_and_of_equal_ones_the_first():
    rng = np.random.default_rng(0)
    found, scores = rng.integers(0, 50, 1000), rng.integers(0, 9, 1000).astype(np.float64)
    scores[rng.random(1000) < 0.1] = np.nan
    marks = best_of_group(found, scores).marks
    for group in range(50):
        rows = np.flatnonzero(found == group)
        assert np.flatnonzero(marks & (found == group)).tolist() == [rows[np.nanargmax(scores[rows])]]
    assert not best_of_group([1, 1], [np.nan, np.nan]).marks.any()


def test_nearest_rows_are_those_of_exact_search(tmp_path):
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((500, 96)) * rng.uniform(0.1, 9, (500, 1))).astype(np.float16)
    vectors[7], vectors[8, 3] = 0, np.nan
    rows = pq.read_table(write_scores(tmp_path / "a.parquet", [5.0] * 500))
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), 96)
    pq.write_table(rows.append_column("embedding", column), tmp_path / "a.parquet")
    table, unit = ScoreTable(tmp_path), vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    found, similarities = nearest_rows(table, 42, 5)
    expected = np.nan_to_num(unit @ unit[42], nan=-9)
    expected[42] = -9
    assert found.tolist() == np.argsort(-expected)[:5].tolist()
    assert np.abs(similarities - expected[found]).max() < 1e-5
    by_vector, _ = nearest_rows(table, vectors[42].astype(np.float32) * 3, 6)
    assert by_vector.tolist() == [42, *found.tolist()]
    assert len(nearest_rows(table, 42, 10_000)[0]) == 497
    for query in (7, 8):
        with pytest.raises(errors.ModelError, match="96 numbers"):
            nearest_rows(table, query)


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_embeddings_are_those_of_the_rows_whether_or_not_memory_holds_them(tmp_path, monkeypatch, share):
    monkeypatch.setattr(vectors, "MEMORY_SHARE", share)
    stored = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float16)
    lists = {"a": [None, *map(list, stored[:2])], "c": [list(stored[2]), [1.0, 2.0], list(stored[3])]}
    for name in "abc":
        rows = pq.read_table(write_scores(tmp_path / f"{name}.parquet", [5.0, 6.0, 7.0]))
        if name in lists:
            rows = rows.append_column("embedding", pa.array(lists[name], EMBEDDING_TYPE))
            pq.write_table(rows, tmp_path / f"{name}.parquet", row_group_size=2)
    table, expected = ScoreTable(tmp_path), np.zeros((9, 8), np.float16)
    expected[[1, 2, 6, 8]] = stored
    for _ in range(2):
        assert (table.embeddings.take(np.array([1, 3, 7, 8])) == expected[[1, 3, 7, 8]]).all()
        assert (table.embeddings.take(np.arange(9)) == expected).all()
        assert sorted(nearest_rows(table, 2)[0].tolist()) == [1, 6, 8]
    with pytest.raises(errors.ModelError, match="8 numbers"):
        nearest_rows(table, 7)  # which has two
    assert table.embeddings.take(np.array([7])).tolist() == [[0] * 8]


def test_embeddings_of_two_backbones_are_never_compared_though_they_are_of_one_length(tmp_path):
    for name in ("b16", "b32"):
        made_by = {"scores": {name: {"backbone": f"clip-{name}"}}}
        rows = pq.read_table(write_scores(tmp_path / f"{name}.parquet", [5.0, 6.0], provenance=made_by))
        rows = rows.append_column("embedding", pa.array([[1.0, 0.0], [0.0, 1.0]], EMBEDDING_TYPE))
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    assert nearest_rows(ScoreTable(tmp_path / "b16.parquet"), 0)[0].tolist() == [1]
    with pytest.raises(errors.ConfigurationError, match="clip-b16 and clip-b32 made the embeddings"):
        nearest_rows(ScoreTable(tmp_path), 0)
