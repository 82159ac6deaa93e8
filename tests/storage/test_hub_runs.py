"""Runs with inputs, weights and rows on the Hugging Face hub (a server that behaves like it): those of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import time

import numpy as np
import pytest
from remote_runs import keep, kept_here, local_files, rows_of, run, shards, tars_of  # noqa: F401 - fixtures
from remote_servers import IMPATIENT, HubRepo, _impatient, dataset, hub  # noqa: F401 - fixtures
from web_server import Fault

from tastemaker.errors import ConfigurationError, RemoteError
from tastemaker.explorer.report import write_report
from tastemaker.scores.cutoff import Top
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection
from tastemaker.storage.place import Place, look_anew

pytestmark = pytest.mark.network
SECRET = "hf_SECRET"


def test_a_run_reads_one_commit_with_the_rows_of_a_local_run_and_the_next_scores_what_changed(
    tmp_path, shards, kept_here, dataset, hub, model_dir
):
    hub.page_size = 2
    url, changed = dataset.upload(shards, "in/below/"), (shards / "2.tar").read_bytes()

    def replace_meanwhile(_request):
        if len(dataset.repo.commits) == 2:
            dataset.repo.commit({"in/below/0.tar": changed, "in/below/1.tar": changed, "README.md": b"new"})

    hub.cdn.on_request = replace_meanwhile
    keep([url], tmp_path / "there", model_dir, dataset, top=4)
    assert len(dataset.repo.commits) == 3
    there = local_files(tmp_path / "there")
    assert rows_of(there) == rows_of(kept_here)
    assert tars_of(there) == tars_of(kept_here) != {}
    assert run([f"{url}/*.tar"], tmp_path / "there", model_dir, dataset).images_scored_now == 6
    assert run([url], tmp_path / "there", model_dir, dataset).images_scored_now == 0


def test_a_shard_is_one_question_to_the_hub_and_its_blocks_come_from_elsewhere(shards, dataset, hub):
    url = dataset.upload(shards)
    file = Place.at(f"{url}/0.tar", dataset.options).open_ranges()
    body = (shards / "0.tar").read_bytes()
    assert b"".join(file.read_at(start, 2**16) for start in range(0, len(body), 2**16)) == body
    asked = [request.path.split("?")[0] for request in hub.requests]
    assert [path.split("/")[-1] for path in asked if "/api/" not in path] == ["0.tar"]
    assert len(asked) == 3  # what is main, what is the file, where is it
    assert len(hub.cdn.requests) == -(-len(body) // 2**16)


def test_an_address_that_has_run_out_is_asked_for_again(dataset, hub):
    dataset.repo.commit({"f.bin": bytes(range(200))})
    file = Place.at(f"{dataset.url}/f.bin", dataset.options).open_ranges()
    assert file.read_at(0, 50) == bytes(range(50))
    hub.signature += 1
    assert file.read_at(50, 50) == bytes(range(50, 100))
    assert file.read_at(100, 500) == bytes(range(100, 200))
    assert [request.path.rpartition("=")[2] for request in hub.cdn.requests] == ["0", "0", "1", "1"]


def test_small_files_come_without_ranges_and_are_read_by_position(dataset):
    dataset.repo.commit({"a.txt": bytes(range(200)), "empty.txt": b""})
    file = Place.at(f"{dataset.url}/a.txt", dataset.options).open_ranges()
    assert file.read_at(150, 10) == bytes(range(150, 160))
    assert file.read_at(190, 100) == bytes(range(190, 200))
    assert Place.at(f"{dataset.url}/empty.txt", dataset.options).open_ranges().read_at(0, 10) == b""


def test_a_revision_is_a_branch_a_tag_or_a_commit(dataset):
    dataset.repo.commit({f"in/{n}.tar": b"tar" for n in range(3)})
    old = dataset.repo.refs["main"]
    dataset.repo.refs |= {"v1": old, "refs/pr/7": old, "a/b": old}
    dataset.repo.commit({}, removed=["in/1.tar", "in/2.tar"])
    for revision, count in (("v1", 3), (old, 3), ("refs/pr/7", 3), ("a%2Fb", 3), ("main", 1)):
        files = Place.of(f"{dataset.url}@{revision}/in", dataset.options).list()
        assert len(files) == count
        assert files[0].path == f"{dataset.url}@{revision}/in/0.tar"


def test_the_hub_is_asked_again_when_it_says_so(dataset, hub):
    dataset.repo.commit({"a.bin": bytes(100_000)})
    for headers in ({"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}):
        look_anew([dataset.url])
        hub.faults = [Fault(status=503), Fault(429, headers)]
        started = time.monotonic()
        assert Place.of(f"{dataset.url}/a.bin", dataset.options).read() == bytes(100_000)
        assert time.monotonic() - started > 1  # so long the hub said to wait
    assert hub.faults == []


def test_a_listing_that_says_nothing_is_asked_for_again(shards, dataset, hub, monkeypatch):
    monkeypatch.setenv("TASTEMAKER_REMOTE_TIMEOUT_S", "0.7")
    url, stalled = dataset.upload(shards), []

    def stall_once(request):
        if "/tree/" in request.path and not stalled:
            stalled.append(request)
            hub.released.wait(60)

    hub.on_request = stall_once
    assert len(Place.of(url, dataset.options).list()) == 3
    assert stalled


def test_a_private_dataset_is_read_with_a_token_that_goes_to_the_hub_only(
    tmp_path, shards, hub, model_dir, monkeypatch
):
    private = HubRepo(hub, token=SECRET)
    url = private.upload(shards)
    with pytest.raises(ConfigurationError, match=r"or it is private: set HF_TOKEN") as caught:
        run([url], tmp_path / "no", model_dir, private)
    assert "\n" not in str(caught.value)
    hub.requests.clear()
    private.options = {"hf": {"endpoint": hub.url, "token": SECRET}}
    assert run([url], tmp_path / "option", model_dir, private).images == 9
    private.options = {"hf": {"endpoint": hub.url}}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert run([f"{url}/0.tar"], tmp_path / "variable", model_dir, private).images == 3
    assert {request.authorization for request in hub.requests} == {f"Bearer {SECRET}"}
    assert {request.authorization for request in hub.cdn.requests} == {None}
    assert not any(SECRET.encode() in body for body in local_files(tmp_path).values())


def test_what_is_not_there_is_one_line(tmp_path, shards, dataset, hub, model_dir, monkeypatch):
    gated = HubRepo(hub, gated=True)
    problems = {
        "hf://datasets/tester/none/a.tar": "there is no dataset tester/none, or it is private",
        "hf://tester/none/a.tar": "there is no model tester/none, or it is private",
        f"{dataset.upload(shards)}@v9/0.tar": "has no revision 'v9'",
        f"{dataset.url}/nothing": "nothing does not exist",
        f"{dataset.url}/*.zip": "does not exist",
        f"{gated.upload(shards)}/0.tar": "is gated: accept its conditions on its page, and set HF_TOKEN",
        "hf://buckets/tester/b/0.tar": "names no repository",
        "hf://alone": "names no repository",
        "hf://datasets/alone": "names no repository",
    }
    for url, problem in problems.items():
        with pytest.raises((ConfigurationError, RemoteError), match=problem) as caught:
            run([url], tmp_path / "out", model_dir, dataset)
        assert "\n" not in str(caught.value)
        with pytest.raises(ConfigurationError, match=problem):
            ScoreTable(url, storage_options=dataset.options)
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((ConfigurationError, RemoteError), match="while HF_HUB_OFFLINE is set"):
        run([f"{dataset.url}/0.tar"], tmp_path / "out", model_dir, dataset)
    assert len(hub.requests) == asked


def test_results_are_not_written_to_the_hub_and_the_error_says_what_to_do(tmp_path, shards, dataset, hub, model_dir):
    run([str(shards / "0.tar")], tmp_path / "out", model_dir)
    table = ScoreTable(tmp_path / "out")
    for write in (
        lambda: run([str(shards)], f"{dataset.url}/out", model_dir, dataset),
        lambda: select_images(table, f"{dataset.url}/best", Selection(top=Top(count=1))),
        lambda: write_report(table, f"{dataset.url}/report.html"),
        Place.of(f"{dataset.url}/out").make_folder,
    ):
        with pytest.raises(ConfigurationError, match=r"not written to the hub.*`hf upload OWNER/NAME FOLDER"):
            write()
    assert hub.requests == []


def test_rows_on_the_hub_are_a_table_and_their_originals_are_selected(tmp_path, shards, dataset, hub, model_dir):
    url = dataset.upload(shards, "shards/")
    run([url], tmp_path / "out", model_dir, dataset)
    here = ScoreTable(tmp_path / "out", storage_options=dataset.options)
    scores = dataset.upload(tmp_path / "out", "scores/")
    hub.faults = [Fault(status=503)] * 2
    table = ScoreTable(scores, storage_options=dataset.options)
    assert len(table) == 9
    np.testing.assert_array_equal(table.values(), here.values())
    ask = "SELECT image_id, aesthetic_score FROM rows ORDER BY image_id"
    dataset.server.faults = [Fault(status=503), Fault(cut_after=100)]
    assert table.query(ask).to_pylist() == here.query(ask).to_pylist()
    for name, rows in (("here", here), ("there", table)):
        done = select_images(rows, tmp_path / name, Selection(top=Top(count=3)), kind="folder")
        assert (done.written, done.skipped) == (3, {})
    assert local_files(tmp_path / "here").keys() == local_files(tmp_path / "there").keys()
    dataset.repo.commit({"scores/rows/0.parquet": b"no rows"})
    with pytest.raises(ConfigurationError, match="is no rows file"):
        ScoreTable(scores, storage_options=dataset.options)  # each table asks what is there now
