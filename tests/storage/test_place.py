"""Each claim about a place, for a folder of this machine and for one in an object store."""

# ruff: noqa: F811 - fixtures are arguments

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from remote_servers import BUCKETS, _impatient, azure_port, bucket, google_port, moto_port, open_bucket  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.errors import ConfigurationError
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network


@pytest.fixture(params=["local", *BUCKETS])
def folder(request, tmp_path):
    """An empty folder."""
    if request.param == "local":
        yield Place.of(tmp_path / "folder")
        return
    with open_bucket(request.param, request) as bucket:
        yield Place.of(f"{bucket.url}/folder", bucket.options)


def test_what_is_written_is_read_whole_and_by_position(folder):
    file = folder / "a/b.bin"
    file.write(b"0123456789")
    file.write(b"abcdefghij")
    assert (file.read(), file.read(3)) == (b"abcdefghij", b"abc")
    ranges = file.open_ranges()
    assert (ranges.read_at(2, 3), ranges.read_at(8, 9), ranges.size_bytes()) == (b"cde", b"ij", 10)
    ranges.close()
    with file.open() as opened:
        opened.seek(-2, os.SEEK_END)
        assert opened.read() == b"ij"


def test_what_is_there_is_told_with_size_time_and_a_version_that_changes(folder):
    file = folder / "a.txt"
    assert (file.stat(), file.exists(), folder.exists()) == (None, False, False)
    file.write(b"one")
    first = file.stat()
    file.write(b"other")
    second = file.stat()
    assert (first.place, first.size, second.size) == (file, 3, 5)
    assert first.version != second.version != ""
    assert abs(second.modified - time.time()) < 60
    assert (file.is_file(), file.is_folder(), folder.is_file(), folder.is_folder()) == (True, False, False, True)
    assert folder.exists()


def test_a_listing_has_the_files_of_a_folder_or_of_those_below_too_in_order(folder):
    for name in ("b.txt", "a/c.txt", "a/d/e.txt"):
        (folder / name).write(name.encode())
    below = folder.list()
    assert [entry.place.relative_to(folder) for entry in below] == ["a/c.txt", "a/d/e.txt", "b.txt"]
    assert [entry.size for entry in below] == [7, 9, 5]
    assert all(entry == entry.place.stat() for entry in below)
    assert [entry.place for entry in folder.list(recursive=False)] == [folder / "b.txt"]
    assert (folder / "none").list() == []


def test_the_files_that_a_pattern_fits_are_found(folder):
    for name in ("a1.txt", "a2.txt", "b1.txt", "below/a1.txt", "below/deep/a3.txt"):
        (folder / name).write(b"")
    found = {
        "a*.txt": ["a1.txt", "a2.txt"],
        "[ab]1.txt": ["a1.txt", "b1.txt"],
        "*/a?.txt": ["below/a1.txt"],
        "**/a*.txt": ["a1.txt", "a2.txt", "below/a1.txt", "below/deep/a3.txt"],
        "c*": [],
    }
    for pattern, names in found.items():
        assert [entry.place.relative_to(folder) for entry in (folder / pattern).glob()] == names


def test_a_file_that_is_not_there_cannot_be_read(folder):
    for read in ((folder / "none").read, (folder / "none").open):
        with pytest.raises(FileNotFoundError):
            read()


def test_a_draft_is_seen_only_when_it_is_committed(folder):
    file = folder / "rows" / "0.parquet"
    with file.draft() as draft:
        draft.path.write_bytes(b"rows")
        assert not file.exists()
        assert folder.list() == []
    assert (file.read(), draft.path.exists()) == (b"rows", False)
    draft = file.draft()
    draft.path.write_bytes(b"half")
    draft.__exit__(ValueError, None, None)  # the block has raised
    assert (file.read(), draft.path.exists()) == (b"rows", False)


def test_drafts_that_were_left_are_removed(folder):
    (folder / "a.txt").write(b"a")
    draft = (folder / "below/b.txt").draft(beside=folder / "b.txt")
    draft.path.write_bytes(b"left")
    folder.remove_drafts()
    assert draft.path.exists() is (folder.local_path is None)  # that of a URL goes with this process
    assert [entry.place.name for entry in folder.list()] == ["a.txt"]


def test_a_store_without_conditional_writes_is_refused_where_a_lock_is_needed(bucket):
    """Such stores answer 501 to a put with a condition."""
    bucket.server.faults, bucket.server.faulty = [Fault(status=501)], {"PUT"}
    with pytest.raises(ConfigurationError, match="no conditional writes"):
        Place.of(f"{bucket.url}/a.lock", bucket.options).lock().acquire()


def test_what_is_deleted_is_gone_and_what_is_not_there_is_deleted_in_peace(folder):
    file = folder / "a.txt"
    file.write(b"a")
    file.delete()
    assert not file.exists()
    file.delete()


def test_a_copy_is_fetched(folder, tmp_path):
    (folder / "a.bin").write(b"0123456789")
    (folder / "a.bin").fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"


def test_places_know_their_names_and_their_parents(folder):
    file = folder / "a" / "b.jpg"
    assert (file.name, file.parent.parent, file.relative_to(folder)) == ("b.jpg", folder, "a/b.jpg")
    assert file == folder / "a/b.jpg" != folder / "a/c.jpg"
    assert len({file, folder / "a/b.jpg"}) == 1


def test_a_place_goes_to_another_process_with_its_options(folder):
    (folder / "a.txt").write(b"a")
    again = pickle.loads(pickle.dumps(folder / "a.txt"))
    assert (again, again.read()) == (folder / "a.txt", b"a")


def test_a_folder_is_made_and_one_that_cannot_be_made_is_told(folder, tmp_path):
    folder.make_folder()
    (tmp_path / "file").write_bytes(b"")
    store = folder.address.partition("://")[0]
    elsewhere = tmp_path / "file" / "x" if folder.local_path else f"{store}://none0/x"
    wrong = Place.of(elsewhere, folder.options)
    with pytest.raises(ConfigurationError, match=r"cannot be written to|there is no bucket 'none0'"):
        wrong.make_folder()


def test_a_lock_has_one_holder_who_is_named(folder):
    lock, other = (folder / "a.lock").lock(), (folder / "a.lock").lock()
    assert not other.is_held()
    with lock:
        lock.check()
        assert (other.acquire(), other.is_held()) == (False, True)
        assert other.holder().startswith(f"process {os.getpid()} on ")
    assert not other.is_held()
    assert other.acquire()
    other.release()


def test_of_many_that_want_a_lock_one_at_a_time_has_it(folder):
    inside, most = [], []

    def work():
        with (folder / "a.lock").lock():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 4


def test_a_process_that_was_killed_holds_nothing(folder):
    code = """if True:
        import pickle, sys, time
        lock = pickle.load(sys.stdin.buffer).lock()
        print(lock.acquire(), flush=True)
        time.sleep(60)"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdin.write(pickle.dumps(folder / "a.lock"))
        process.stdin.close()
        assert process.stdout.readline() == b"True\n"
        assert (folder / "a.lock").lock().is_held()
        process.send_signal(signal.SIGKILL)
    assert (folder / "a.lock").lock().acquire(wait_s=math.inf)


def test_the_ways_to_write_a_path_are_one_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("DATA", "a b")
    place = Place.of(tmp_path / "a b")
    for text in ("~/a b", "~/$DATA", "$HOME/a b", "${HOME}/${DATA}", f"{(tmp_path / 'a b').as_uri()}", place):
        assert Place.of(text) == place
    assert Place.of("$NOT_SET/a").name == "a"
    assert Place.at("~").local_path == Path("~")  # what a listing found is called so
    assert (Place.of(tmp_path) / "$HOME").name == "$HOME"


def test_no_secret_is_shown():
    place = Place.of("https://me:WORD@host/a.tar?sig=WORD", {"https://host": {"headers": {"token": "WORD"}}})
    bucket = Place.of("s3://bucket/out", {"key": "k", "secret": "WORD"})
    for shown in (str(place), repr(place), str(bucket / "a"), repr(bucket / "a"), place.name, str(place.parent)):
        assert "WORD" not in shown
    assert "WORD" in place.address
    assert (bucket / "a").options == {"key": "k", "secret": "WORD"}


@pytest.mark.parametrize("url", ["https://host/a", "hf://datasets/o/n/a"])
def test_what_cannot_be_written_to_says_so(url):
    place = Place.of(url)
    for write in (place.make_folder, place.draft, lambda: place.write(b""), place.delete):
        with pytest.raises(ConfigurationError, match=r"results (cannot be|are not) written to"):
            write()
