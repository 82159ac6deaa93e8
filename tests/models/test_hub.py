# ruff: noqa: F811 - fixtures are arguments

import hashlib
import io
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from remote_servers import _impatient, hub  # noqa: F401 - fixtures
from safetensors.numpy import save, save_file
from tiny import snapshot
from web_server import Fault

from tastemaker.errors import ModelError, WeightsNotFoundError
from tastemaker.models.hub import check_weights, ensure_weights, file_sha256, resolve_model_dir, weights_path
from tastemaker.models.published import find_scorer
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import VitDimensions
from tastemaker.testing import random_detector, random_predictor, random_tower, write_random_models

CLIP = replace(CLIP_VIT_L14, sha256=None)  # tiny files of the same format pass; the hub says the SHA-256
CHUNK = 2**24  # a download is written to disk in pieces of this size
CLIENT = """
import dataclasses, sys
from concurrent.futures import ThreadPoolExecutor
from tastemaker.models import hub
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
model = dataclasses.replace(CLIP_VIT_L14, sha256=None)
with ThreadPoolExecutor(2) as pool:
    jobs = [pool.submit(hub.ensure_weights, model, sys.argv[1]) for _ in range(2)]
print(jobs[0].result())
"""


def tiny_clip(layers=2, extra=0):
    """Return the tensors of a CLIP ViT-L/14 with small dimensions, and `extra` bytes of text tensors."""
    rng = np.random.default_rng(0)
    config = VitDimensions(width=64, layers=layers, heads=1, mlp=32, patch=14, image_size=28, dimension=768)
    text = {"text_model.embeddings.token_embedding.weight": rng.integers(0, 256, extra, np.uint8)}
    return random_tower(config, rng) | text


def tiny_predictor():
    return random_predictor(768, np.random.default_rng(0))


@pytest.fixture(scope="module")
def weights():
    return save(tiny_clip())


@pytest.fixture(scope="module")
def large_weights():
    return save(tiny_clip(extra=CHUNK))


@pytest.fixture
def path(tmp_path):
    """Where the weights are to lie."""
    return weights_path(CLIP, tmp_path / "models")


def ask(model=CLIP, model_dir="models"):
    return ensure_weights(model, model_dir)


def put(tensors, model, model_dir):
    path = weights_path(model, model_dir)
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    return path


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


pytestmark = [pytest.mark.network, pytest.mark.usefixtures("in_folder")]


def start_client(hub, home):
    """Start a process in which two threads ask for the weights in `home/models`."""
    command = [sys.executable, "-c", CLIENT, str(home / "models")]
    return subprocess.Popen(command, env=hub.environment(home), stdout=subprocess.DEVNULL)


def test_missing_weights_are_downloaded_and_nothing_else(hub, path, weights):
    hub.add(CLIP, weights)
    assert ask() == path
    assert path.read_bytes() == weights
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["model.safetensors"]


def test_what_is_fetched_is_named_with_its_licence(hub, weights, caplog):
    hub.add(CLIP, weights)
    with caplog.at_level("INFO", "tastemaker"):
        ask(replace(CLIP, licence="AGPL-3.0"))
    assert [message for message in caplog.messages if message.endswith("licence: AGPL-3.0")]


def test_a_server_that_does_not_answer_is_named_while_one_waits(hub, weights, caplog):
    caplog.set_level("INFO", "tastemaker.models.hub")
    hub.add(CLIP, weights)
    deadline = time.monotonic() + 20

    def answer_once_that_is_said(_request):
        while "waiting for the server" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)

    hub.on_request = answer_once_that_is_said
    ask()
    assert "waiting for the server to answer about hf://openai/clip-vit-large-patch14" in caplog.text


def test_weights_that_are_there_cost_no_request(hub, path, tmp_path):
    put(tiny_clip(), CLIP, tmp_path / "models")  # the layout that NeMo Curator fills
    assert ask() == path
    assert hub.requests == []


def test_processes_and_threads_that_ask_at_once_share_one_download(hub, path, tmp_path, weights):
    hub.add(CLIP, weights)
    clients = [start_client(hub, tmp_path) for _ in range(2)]
    assert [client.wait(30) for client in clients] == [0, 0]
    assert len(hub.cdn.requests) == 1
    assert path.read_bytes() == weights


def test_a_connection_that_breaks_once_is_resumed_in_the_same_run(hub, path, weights):
    hub.add(CLIP, weights)
    hub.cdn.faults = [Fault(cut_after=100_000)]
    assert ask() == path
    first, second = (request.byte_range for request in hub.cdn.requests)
    assert first.startswith("bytes=0-")
    assert not second.startswith("bytes=0-")
    assert path.read_bytes() == weights


def test_a_download_that_failed_is_resumed_by_the_next_run(hub, path, large_weights):
    hub.add(CLIP, large_weights)
    hub.cdn.faults = [Fault(), *[Fault(status=503)] * 3]
    with pytest.raises(WeightsNotFoundError, match="503"):
        ask()
    assert not path.exists()
    assert ask() == path
    assert hub.cdn.requests[-1].byte_range.startswith(f"bytes={CHUNK}-")
    assert path.read_bytes() == large_weights


def test_a_killed_download_is_resumed_by_the_next_run(hub, path, tmp_path, large_weights):
    hub.add(CLIP, large_weights)
    hub.cdn.faults = [Fault(), Fault(stall_after=1000)]
    client = start_client(hub, tmp_path)
    deadline = time.monotonic() + 20
    while not any(part.stat().st_size >= CHUNK for part in path.parent.glob(".incomplete/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.kill()
    client.wait()
    assert not path.exists()
    assert ask() == path
    start = hub.cdn.requests[-1].byte_range.removeprefix("bytes=").partition("-")[0]
    assert int(start) >= CHUNK
    assert path.read_bytes() == large_weights


def test_wrong_bytes_are_refused_and_not_kept(hub, path, tmp_path, weights):
    hub.add(CLIP, weights, served=weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"not {hashlib.sha256(weights).hexdigest()}"):
        ask()
    assert not path.exists()
    assert [file for file in tmp_path.rglob("*model.safetensors*") if file.stat().st_size] == []


@pytest.mark.parametrize("there", ["truncated", "mine", "a link"])
def test_a_file_in_the_place_of_weights_that_cannot_be_used_is_named_and_stays(hub, path, weights, there):
    hub.add(CLIP, weights)
    path.parent.mkdir(parents=True)
    if there == "a link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"mine" if there == "mine" else weights[:-100])
    before = snapshot(path.parent)
    with pytest.raises(ModelError, match=f"{path} cannot be used as the weights of .*Move it away"):
        ask()
    assert snapshot(path.parent) == before
    path.unlink()
    assert ask() == path
    assert path.read_bytes() == weights


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub, monkeypatch, weights):
    hub.add(CLIP, weights)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ask()
    assert {request.authorization for request in hub.requests} == {"Bearer hf_secret"}
    assert {request.authorization for request in hub.cdn.requests} == {None}


@pytest.mark.parametrize(
    ("constant", "value", "reason"),
    [
        ("HF_HUB_OFFLINE", True, "HF_HUB_OFFLINE is set"),
        ("ENDPOINT", "http://127.0.0.1:9", "Connection refused"),
    ],
)
def test_without_a_network_two_lines_say_at_once_what_is_missing_and_what_helps(
    hub, path, monkeypatch, constant, value, reason
):
    monkeypatch.setattr(f"huggingface_hub.constants.{constant}", value)
    monkeypatch.setenv("TASTEMAKER_REMOTE_WAIT_S", "1000")  # a second try would show
    with pytest.raises(WeightsNotFoundError) as raised:
        ask()
    what, help_ = str(raised.value).splitlines()
    assert "the weights of openai/clip-vit-large-patch14 are needed" in what
    assert reason in what
    assert str(path) in what
    assert "tastemaker scorers pull --model-dir" in help_
    assert "--rank-by technical_quality" in help_
    assert not path.parents[2].exists()


def test_a_head_that_is_not_on_the_hub_is_fetched_from_its_url_without_the_hubs_token(hub, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    head = find_scorer("laion-v1-b32").head
    made = weights_path(head, write_random_models(tmp_path / "made", scorer="laion-v1-b32"))
    hub.small["/somewhere/head.pth"] = made.read_bytes()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    head = replace(head, url=f"{hub.url}/somewhere/head.pth")
    with pytest.raises(ModelError, match=f"not {head.sha256}"):
        ask(head)
    path = weights_path(head, tmp_path / "models")
    assert not path.exists()
    assert ask(replace(head, sha256=None)) == path
    assert path.read_bytes() == made.read_bytes()
    assert {request.authorization for request in hub.requests} == {None}
    asked = len(hub.requests)
    assert ask(head) == path
    assert len(hub.requests) == asked


def test_a_head_in_an_archive_is_fetched_and_unpacked(hub, tmp_path):
    made = tmp_path / "made.safetensors"
    save_file(random_detector(768, np.random.default_rng(0)), made)
    head = replace(find_scorer("nsfw").head, filename="detector.safetensors", url=f"{hub.url}/somewhere/detector.zip")
    for members, expected in ((["other.txt"], None), (["read.me", "below/detector.safetensors"], made.read_bytes())):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name in members:
                archive.writestr(name, made.read_bytes())
        hub.small["/somewhere/detector.zip"] = packed.getvalue()
        if expected is None:
            with pytest.raises(ModelError, match=r"no archive with detector\.safetensors in it"):
                ask(head, tmp_path / "models")
        else:
            assert ask(head, tmp_path / "models").read_bytes() == expected
    assert [path.name for path in (tmp_path / "models").rglob("*.safetensors")] == ["detector.safetensors"]


def put_into_hub_cache(monkeypatch, folder, model, body):
    """Lay a file where the hub's own library keeps downloads, as it does: a link to a blob."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    repo = folder / f"models--{model.id.replace('/', '--')}"
    blob, snapshot = repo / "blobs" / "0123", repo / "snapshots" / ("ab" * 20) / model.filename
    for place in (blob, snapshot):
        place.parent.mkdir(parents=True)
    blob.write_bytes(body)
    snapshot.symlink_to(blob)
    return snapshot


def test_weights_in_the_hugging_face_cache_are_found_by_their_digest(hub, tmp_path, monkeypatch, weights):
    snapshot = put_into_hub_cache(monkeypatch, tmp_path / "cache", CLIP, weights)
    assert ask(replace(CLIP, sha256=hashlib.sha256(weights).hexdigest())) == snapshot
    assert hub.requests == []


def test_other_weights_in_the_hugging_face_cache_are_named_and_not_taken(hub, tmp_path, monkeypatch, weights):
    snapshot = put_into_hub_cache(monkeypatch, tmp_path / "cache", CLIP, weights)
    with pytest.raises(WeightsNotFoundError, match=f"{snapshot} is another version of it"):
        ask(CLIP_VIT_L14)


def test_the_digest_is_compared_when_it_is_asked_for(tmp_path, weights):
    path = put(tiny_clip(), CLIP, tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check_weights(replace(CLIP, sha256=digest), path, with_sha256=True).problems == []
    check = check_weights(CLIP_VIT_L14, path, with_sha256=True)
    assert check.problems == [f"its sha256 is {digest}, not {CLIP_VIT_L14.sha256}"]


def test_the_model_directory_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TASTEMAKER_MODEL_DIR", str(tmp_path / "variable"))
    assert resolve_model_dir(tmp_path / "argument") == tmp_path / "argument"
    assert resolve_model_dir() == tmp_path / "variable"
    monkeypatch.delenv("TASTEMAKER_MODEL_DIR")
    assert resolve_model_dir() == tmp_path / "cache" / "tastemaker" / "models"


def test_a_file_is_hashed_once_while_its_size_and_time_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "file"
    file.write_bytes(b"old")
    old = file_sha256(file)
    assert old == hashlib.sha256(b"old").hexdigest()
    stat = file.stat()
    file.write_bytes(b"new")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_sha256(file) == old  # not read again
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_sha256(file) == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe", b"not a digest"])
def test_a_corrupt_cache_of_digests_is_ignored(tmp_path, monkeypatch, rubbish):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "file"
    file.write_bytes(b"data")
    digest = file_sha256(file)
    (entry,) = (tmp_path / "cache" / "tastemaker" / "sha256").iterdir()
    entry.write_bytes(rubbish)
    assert file_sha256(file) == digest
    assert entry.read_text() == digest
