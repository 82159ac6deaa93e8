"""Originals and their rows become visible together."""

import os

import pytest

from tastemaker.imaging.tars import Member
from tastemaker.scores.files import RowsFile
from tastemaker.scores.originals import OriginalsWriter, finished_together
from tastemaker.scores.schema import make_table, rows_schema
from tastemaker.tasks import ImageObject

SCHEMA = rows_schema(with_embeddings=False, with_signals=False)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def write(folder, *, number=1, with_tars=True, error=None):
    rows, originals = RowsFile(folder / "a.parquet", SCHEMA), OriginalsWriter(folder, "a", "a", "shards", 1)
    with finished_together(rows, originals, with_tars=with_tars):
        for n in range(number):
            originals.add({f"{n}.jpg": b"bytes"})
        rows.add_rows(SCHEMA.empty_table())
        if error:
            raise error
        assert not {"a.parquet", "a-000000.tar"}.intersection(names(folder)) or number == 0


def test_tars_and_rows_are_there_after_the_block_and_neither_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, error=KeyboardInterrupt())
    assert names(tmp_path) == []
    write(tmp_path, number=2)
    assert names(tmp_path) == ["a-000000.tar", "a-000001.tar", "a.parquet"]


def test_tars_that_are_not_written_anew_stay_as_they_are(tmp_path):
    write(tmp_path, number=2)
    write(tmp_path, number=0, with_tars=False)
    assert names(tmp_path) == ["a-000000.tar", "a-000001.tar", "a.parquet"]
    write(tmp_path, number=0)
    assert names(tmp_path) == ["a.parquet"]


def test_plain_copies_are_on_the_disk_itself_before_the_rows_of_them(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), fsync(number)))
    rows, originals = RowsFile(tmp_path / "a.parquet", SCHEMA), OriginalsWriter(tmp_path, "a", "a", "folder", 1)
    with finished_together(rows, originals):
        originals.add({"0.jpg": b"bytes", "0.txt": b"caption"})
        rows.add_rows(SCHEMA.empty_table())
    *copies, last = [path for number in synced for path in tmp_path.rglob("*") if path.stat().st_ino == number]
    assert last.name == "a.parquet"
    assert {path.name for path in copies} == {"0.jpg", "0.txt"}


def test_a_caption_of_gigabytes_stays_in_its_sidecar():
    """Eight megabytes of a compressed tar became one of two gigabytes, whose row took sixteen in memory."""
    sidecars = {"txt": bytes(2**24 + 1), "json": b"{}"}
    image = ImageObject(sidecars=sidecars, sidecar_members={"txt": Member("a.txt", 512, 2**24 + 1)})
    [row] = make_table([image], {}, with_embeddings=False, with_signals=False).to_pylist()
    assert (row["caption"], row["json"]) == (None, "{}")
    assert row["sidecars"] == [{"extension": "txt", "member": "a.txt", "offset": 512, "size": 2**24 + 1}]
