"""Runs with inputs, weights and rows on the Hugging Face hub (a server that behaves like it): those of a local run."""

# ruff: noqa: F811 - fixtures are arguments

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import encode
from remote_runs import keep, local_files, rows_of, run, shards, tars_of  # noqa: F401 - fixtures
from remote_servers import IMPATIENT, HubRepo, _impatient, dataset, hub  # noqa: F401 - fixtures
from safetensors.numpy import load, save
from web_server import Fault

from tastemaker.errors import ConfigurationError, RemoteError, WeightsNotFoundError
from tastemaker.explorer.report import write_report
from tastemaker.scores.cutoff import Top
from tastemaker.scores.table import ScoreTable
from tastemaker.selections.select import select_images
from tastemaker.selections.selection import Selection
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network
SECRET = "hf_SECRET"


def test_rows_and_tars_are_those_of_a_local_run_and_only_what_changes_is_scored_again(
    tmp_path, shards, dataset, model_dir
):
    dataset.hub.page_size = 2
    url = dataset.upload(shards, "in/below/")
    keep([str(shards)], tmp_path / "here", model_dir, top=4)
    keep([url], tmp_path / "there", model_dir, dataset, top=4)
    here, there = local_files(tmp_path / "here"), local_files(tmp_path / "there")
    assert len(rows_of(there)) == 3
    assert rows_of(there) == rows_of(here)
    assert tars_of(there) == tars_of(here) != {}
    assert run([url], tmp_path / "there", model_dir, dataset).images_scored_now == 0
    dataset.repo.commit({"in/below/1.tar": (shards / "2.tar").read_bytes(), "README.md": b"new"})
    again = run([f"{url}/*.tar"], tmp_path / "there", model_dir, dataset)
    assert 0 < again.images_scored_now <= 3


def test_each_run_and_each_table_of_a_process_sees_what_was_committed_before_it(tmp_path, shards, dataset, model_dir):
    dataset.upload(shards)
    arguments = ([f"{dataset.url}/0.tar"], tmp_path / "out", model_dir, dataset)
    assert run(*arguments).images_scored_now == 3
    dataset.repo.commit({"0.tar": (shards / "2.tar").read_bytes()})
    assert run(*arguments).images_scored_now == 3
    dataset.upload(tmp_path / "out")
    assert len(ScoreTable(f"{dataset.url}/rows/0.parquet", storage_options=dataset.options)) == 3
    dataset.repo.commit({"rows/0.parquet": (tmp_path / "out" / "rows" / "0.parquet").read_bytes() + b"no rows"})
    with pytest.raises(ConfigurationError, match="is no rows file"):
        ScoreTable(f"{dataset.url}/rows/0.parquet", storage_options=dataset.options)


def test_a_shard_is_one_question_to_the_hub_and_its_blocks_come_from_elsewhere(shards, dataset, hub):
    url = dataset.upload(shards)
    file = Place.at(f"{url}/0.tar", dataset.options).open_ranges()
    body = (shards / "0.tar").read_bytes()
    assert b"".join(file.read_at(start, 2**16) for start in range(0, len(body), 2**16)) == body
    asked = [request.path.split("?")[0] for request in hub.requests if request.server == "hub"]
    assert [path.split("/")[-1] for path in asked if "/api/" not in path] == ["0.tar"]
    assert len(asked) == 3  # what is main, what is the file, where is it
    assert len(hub.downloads()) == -(-len(body) // 2**16)


def test_an_address_that_has_run_out_is_asked_for_again(dataset, hub):
    dataset.repo.commit({"f.bin": bytes(range(200))})
    file = Place.at(f"{dataset.url}/f.bin", dataset.options).open_ranges()
    assert file.read_at(0, 50) == bytes(range(50))
    hub.signature += 1
    assert file.read_at(50, 50) == bytes(range(50, 100))
    assert file.read_at(100, 500) == bytes(range(100, 200))
    assert [request.path.rpartition("=")[2] for request in hub.downloads()] == ["0", "0", "1", "1"]


def test_small_files_come_without_ranges_and_are_read_by_position(dataset):
    dataset.repo.commit({"a.txt": bytes(range(200)), "empty.txt": b""})
    file = Place.at(f"{dataset.url}/a.txt", dataset.options).open_ranges()
    assert file.read_at(150, 10) == bytes(range(150, 160))
    assert file.read_at(190, 100) == bytes(range(190, 200))
    assert Place.at(f"{dataset.url}/empty.txt", dataset.options).open_ranges().read_at(0, 10) == b""


def test_a_run_reads_one_commit_whatever_is_committed_meanwhile(tmp_path, shards, dataset, hub, model_dir):
    url = dataset.upload(shards)
    keep([str(shards)], tmp_path / "here", model_dir, top=4)
    other = (shards / "0.tar").read_bytes()[::-1]

    def replace_all(request):
        if request.server == "cdn" and len(dataset.repo.commits) == 2:
            dataset.repo.commit({f"{n}.tar": other for n in range(3)})

    hub.on_request = replace_all
    keep([url], tmp_path / "there", model_dir, dataset, top=4)
    assert len(dataset.repo.commits) == 3
    here, there = local_files(tmp_path / "here"), local_files(tmp_path / "there")
    assert rows_of(there) == rows_of(here)
    assert tars_of(there) == tars_of(here) != {}


def test_loose_images_are_of_one_commit_too_whatever_is_committed_meanwhile(tmp_path, dataset, hub, model_dir):
    """The folders are listed for captions while the run reads, each when its first image comes."""
    images = {kind: encode(np.zeros((8, 8, 3), np.uint8), kind) for kind in ("PNG", "BMP")}
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        for number in range(40):
            (tmp_path / "in" / folder / f"{number:02d}.png").write_bytes(images["PNG"])
    dataset.upload(tmp_path / "in", "in/")

    def replace_all(request):
        if request.server == "cdn" and len(dataset.repo.commits) == 2:
            dataset.repo.commit({f"in/{folder}/{n:02d}.png": images["BMP"] for folder in "ab" for n in range(40)})

    hub.on_request = replace_all
    run([f"{dataset.url}/in"], tmp_path / "out", model_dir, dataset)
    assert len(dataset.repo.commits) == 3
    (rows,) = rows_of(local_files(tmp_path / "out")).values()
    assert [row["format"] for row in rows] == ["PNG"] * 80


def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path, shards, dataset, hub, model_dir):
    dataset.upload(shards, "in/")
    old = dataset.repo.refs["main"]
    dataset.repo.refs |= {"v1": old, "refs/pr/7": old, "a/b": old}
    dataset.repo.commit({}, removed=["in/1.tar", "in/2.tar"])
    for revision, count in (("v1", 3), (old, 3), ("refs/pr/7", 3), ("a%2Fb", 3), ("main", 1)):
        summary = run([f"{dataset.url}@{revision}/in"], tmp_path / str(count) / revision, model_dir, dataset)
        assert summary.images == 3 * count
    row = pq.read_table(tmp_path / "3" / "v1" / "rows" / "0.parquet").to_pylist()[0]
    assert row["shard"] == f"{dataset.url}@v1/in/0.tar"


def test_failing_connections_cost_no_row(tmp_path, shards, dataset, hub, model_dir):
    url = dataset.upload(shards)
    faults = [Fault(cut_after=40_000), Fault(reset=True), Fault(stall_after=20_000), Fault(status=503)]
    dataset.server.only, dataset.server.faults = "1.tar", faults
    hub.refusals = [(503, {}), (429, {"Retry-After": "1"}), (429, {"RateLimit": '"api";r=0;t=1'}), (503, {})]
    started = time.monotonic()
    run([f"{url}/{n}.tar" for n in range(3)], tmp_path / "there", model_dir, dataset)
    assert time.monotonic() - started > 1  # so long the hub said to wait
    assert (hub.refusals, dataset.server.faults) == ([], [])
    run([str(shards)], tmp_path / "here", model_dir)
    assert rows_of(local_files(tmp_path / "there")) == rows_of(local_files(tmp_path / "here"))


def test_a_listing_that_says_nothing_is_asked_for_again(tmp_path, shards, dataset, hub, model_dir):
    url = dataset.upload(shards)
    stalled = []

    def stall_once(request):
        if "/tree/" in request.path and not stalled:
            stalled.append(request)
            hub.released.wait(60)

    hub.on_request = stall_once
    assert run([url], tmp_path / "out", model_dir, dataset).images == 9
    assert stalled


def test_a_shard_that_stays_broken_is_a_failed_row_and_the_others_are_scored(tmp_path, shards, dataset, model_dir):
    url = dataset.upload(shards)
    dataset.server.only, dataset.server.always = "1.tar", Fault(stall_after=10)
    run([url], tmp_path / "out", model_dir, dataset)
    rows = rows_of(local_files(tmp_path / "out"))
    [row] = rows["1.parquet"]
    assert row["status"] == "failed"
    assert "unreadable: the shard cannot be read" in row["reason"]
    assert {row["status"] for row in rows["2.parquet"]} == {"kept", "failed"}


def test_a_private_dataset_is_read_with_a_token_that_goes_to_the_hub_only(
    tmp_path, shards, hub, model_dir, monkeypatch
):
    private = HubRepo(hub, hub.front, token=SECRET)
    url = private.upload(shards)
    with pytest.raises(ConfigurationError, match=r"or it is private: set HF_TOKEN") as caught:
        run([url], tmp_path / "no", model_dir, private)
    assert "\n" not in str(caught.value)
    hub.requests.clear()
    private.options = {"hf": {"endpoint": hub.url, "token": SECRET}}
    assert run([url], tmp_path / "option", model_dir, private).images == 9
    private.options = {"endpoint": hub.url}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert run([f"{url}/0.tar"], tmp_path / "variable", model_dir, private).images == 3
    assert {request.authorization for request in hub.requests if request.server == "hub"} == {f"Bearer {SECRET}"}
    assert {request.authorization for request in hub.downloads()} == {None}
    assert not any(SECRET.encode() in body for body in local_files(tmp_path).values())


def test_what_is_not_there_is_one_line(tmp_path, shards, dataset, hub, model_dir, monkeypatch):
    gated = HubRepo(hub, hub.front, gated=True)
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


def test_weights_on_the_hub_are_fetched_once_and_anew_when_they_change(tmp_path, shards, dataset, hub, model_dir):
    models = HubRepo(hub, hub.front)
    url = models.upload(model_dir, "models/")
    predictor = f"{url}/ttj/sac-logos-ava1-l14-linearMSE/model.safetensors"
    dataset.server.faults, dataset.server.only = [Fault(cut_after=5000)], "clip-vit-large-patch14/model.safetensors"
    run([str(shards / "0.tar")], tmp_path / "there", url, models)
    run([str(shards / "2.tar")], tmp_path / "again", url, models, predictor=predictor)
    run([str(shards / "0.tar")], tmp_path / "here", model_dir)
    assert rows_of(local_files(tmp_path / "there")) == rows_of(local_files(tmp_path / "here"))
    assert len(hub.front.reads("clip-vit-large-patch14/model.safetensors")) == 2  # cut once
    assert len(hub.front.reads("sac-logos-ava1-l14-linearMSE/model.safetensors")) == 1
    tensors = load((model_dir / "ttj" / "sac-logos-ava1-l14-linearMSE" / "model.safetensors").read_bytes())
    tensors["layers.7.bias"] = tensors["layers.7.bias"] + 1
    models.repo.commit({predictor.removeprefix(f"{models.url}/"): save(tensors)})
    run([str(shards / "2.tar")], tmp_path / "anew", url, models, predictor=predictor)
    before, after = (ScoreTable(tmp_path / name).values() for name in ("again", "anew"))
    np.testing.assert_allclose(after, before + 1, rtol=1e-5)
    with pytest.raises(WeightsNotFoundError, match=r"nowhere/.* does not exist"):
        run([str(shards / "0.tar")], tmp_path / "x", f"{url}/nowhere", models)


def test_embeddings_on_the_hub_are_scored_as_those_on_this_machine(tmp_path, dataset, model_dir):
    vectors = np.random.default_rng(0).standard_normal((7, 768), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (tmp_path / "given").mkdir()
    np.save(tmp_path / "given" / "a.npy", vectors)
    column = pa.array(list(vectors), pa.list_(pa.float32(), 768))
    pq.write_table(pa.table({"image_id": list("abcdefg"), "embedding": column}), tmp_path / "given" / "b.parquet")
    url = dataset.upload(tmp_path / "given", "laion/")
    here = run([str(tmp_path / "given")], tmp_path / "here", model_dir)
    there = run([url], tmp_path / "there", model_dir, dataset)
    assert (there.images, there.failed) == (here.images, here.failed) == (14, 0)
    for name in ("a", "b"):
        scores = [
            pq.read_table(tmp_path / place / "rows" / f"{name}.parquet")["aesthetic_score"].to_pylist()
            for place in ("here", "there")
        ]
        assert scores[0] == scores[1]


def test_rows_on_the_hub_are_a_table_and_their_originals_are_selected(tmp_path, shards, dataset, hub, model_dir):
    url = dataset.upload(shards, "shards/")
    run([url], tmp_path / "out", model_dir, dataset)
    here = ScoreTable(tmp_path / "out", storage_options=dataset.options)
    scores = dataset.upload(tmp_path / "out", "scores/")
    hub.refusals = [(503, {}), (503, {})]
    table = ScoreTable(scores, storage_options=dataset.options)
    assert len(table) == 9
    np.testing.assert_array_equal(table.values(), here.values())
    ask = "SELECT image_id, aesthetic_score FROM rows ORDER BY image_id"
    dataset.server.faults = [Fault(status=503), Fault(cut_after=100)]
    assert table.query(ask).to_pylist() == here.query(ask).to_pylist()
    for name, rows in (("here", here), ("there", table)):
        done = select_images(rows, tmp_path / name, Selection(top=Top(count=3)), kind="folder")
        assert (done.written, done.skipped) == (3, {})
        write_report(rows, tmp_path / f"{name}.html")
    assert local_files(tmp_path / "here").keys() == local_files(tmp_path / "there").keys()
    assert (tmp_path / "there.html").stat().st_size > 10_000


def _command(*arguments):
    return [sys.executable, "-m", "tastemaker", "score", *map(str, arguments)]


def _finished_rows(folder):
    return rows_of({f"rows/{path.name}": path.read_bytes() for path in (folder / "rows").glob("[0-9].parquet")})


def test_a_killed_run_is_finished_by_the_next(tmp_path, shards, hub, model_dir):
    private = HubRepo(hub, hub.front, token=SECRET)
    url = private.upload(shards)
    environment = hub.environment(tmp_path / "home", HF_TOKEN=SECRET, HF_HUB_OFFLINE="0", **IMPATIENT)
    command = _command(url, "-o", tmp_path / "there", "--model-dir", model_dir, "--json")
    hub.front.latency_s = 0.5
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not _finished_rows(tmp_path / "there") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    hub.front.latency_s = 0
    run([str(shards)], tmp_path / "here", model_dir)
    whole, seen = _finished_rows(tmp_path / "here"), _finished_rows(tmp_path / "there")
    assert 0 < len(seen) < len(whole)
    assert seen.items() <= whole.items()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert _finished_rows(tmp_path / "there") == whole
