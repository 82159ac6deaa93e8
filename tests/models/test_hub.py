import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import free_port
from hub_server import Fault, HubServer
from safetensors.numpy import save, save_file

from tastemaker.models.hub import check_weights, file_sha256, resolve_model_dir, weights_path
from tastemaker.models.published import find_scorer
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import VitDimensions
from tastemaker.testing import random_predictor, random_tower, write_random_models

network = pytest.mark.network
CLIP = replace(CLIP_VIT_L14, sha256=None)  # tiny files of the same format pass; the hub's ETag says the SHA-256
CHUNK = 10 * 2**20  # huggingface_hub writes to disk in pieces of this size
CLIENT = """
import dataclasses, sys
from concurrent.futures import ThreadPoolExecutor
from tastemaker.models import hub
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
model = dataclasses.replace(CLIP_VIT_L14, sha256=sys.argv[2] or None)
with ThreadPoolExecutor(4) as pool:
    jobs = [pool.submit(hub.ensure_weights, model, sys.argv[1]) for _ in range(int(sys.argv[3]))]
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


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def weights():
    return save(tiny_clip())


@pytest.fixture(scope="module")
def large_weights():
    return save(tiny_clip(extra=2 * CHUNK))


def start_client(hub, home, sha256="", threads=1, **environment):
    """Start a process that asks for the CLIP weights in `home/models`."""
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(home / "models"), sha256, str(threads)],
        env=hub.environment(home, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(hub, home, **options):
    """Return the last line that such a process printed, or raised, and what it wrote in all."""
    client = start_client(hub, home, **options)
    stdout, stderr = client.communicate(timeout=30)
    return (stdout or stderr).splitlines()[-1], stdout + stderr


def put(tensors, model, model_dir):
    path = weights_path(model, model_dir)
    path.parent.mkdir(parents=True)
    save_file(tensors, path)
    return path


@network
def test_missing_weights_are_downloaded_and_nothing_else(hub, tmp_path, weights):
    hub.add(CLIP, weights)
    path = weights_path(CLIP, tmp_path / "models")
    assert ask(hub, tmp_path)[0] == str(path)
    assert path.read_bytes() == weights
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["model.safetensors"]


@network
def test_weights_that_are_there_cost_no_request(hub, tmp_path):
    path = put(tiny_clip(), CLIP, tmp_path / "models")  # the layout that NeMo Curator fills
    assert ask(hub, tmp_path)[0] == str(path)
    assert hub.requests == []


@network
def test_processes_and_threads_that_ask_at_once_share_one_download(hub, tmp_path, large_weights):
    hub.add(CLIP, large_weights)
    clients = [start_client(hub, tmp_path, threads=2) for _ in range(4)]
    assert [client.wait(30) for client in clients] == [0, 0, 0, 0]
    assert len(hub.downloads()) == 1
    assert weights_path(CLIP, tmp_path / "models").read_bytes() == large_weights


@network
def test_a_connection_that_breaks_once_is_resumed_in_the_same_run(hub, tmp_path, large_weights):
    hub.add(CLIP, large_weights)
    hub.faults = [Fault(cut_after=CHUNK + 1000)]
    path = weights_path(CLIP, tmp_path / "models")
    assert ask(hub, tmp_path)[0] == str(path)
    assert [request.byte_range for request in hub.downloads()] == [None, f"bytes={CHUNK}-"]
    assert path.read_bytes() == large_weights


@network
def test_a_download_that_failed_is_resumed_by_the_next_run(hub, tmp_path, large_weights):
    hub.add(CLIP, large_weights)
    hub.faults = [Fault(cut_after=CHUNK + 1000), Fault(status=503)]
    path = weights_path(CLIP, tmp_path / "models")
    error, _ = ask(hub, tmp_path)
    assert "503" in error
    assert "goes on where it stopped" in error
    assert not path.exists()
    assert ask(hub, tmp_path)[0] == str(path)
    assert hub.downloads()[-1].byte_range == f"bytes={CHUNK}-"
    assert path.read_bytes() == large_weights


@network
def test_a_killed_download_is_resumed_by_the_next_run(hub, tmp_path, large_weights):
    hub.add(CLIP, large_weights)
    hub.faults = [Fault(stall_after=CHUNK + 1000)]
    path = weights_path(CLIP, tmp_path / "models")
    client = start_client(hub, tmp_path)
    deadline = time.monotonic() + 20
    while not any(part.stat().st_size >= CHUNK for part in path.parent.glob(".incomplete/*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.kill()
    client.communicate()
    assert not path.exists()
    assert ask(hub, tmp_path)[0] == str(path)
    assert [request.byte_range for request in hub.downloads()] == [None, f"bytes={CHUNK}-"]
    assert path.read_bytes() == large_weights


@network
def test_wrong_bytes_are_refused_and_not_kept(hub, tmp_path, weights):
    hub.add(CLIP, weights, served=weights[:-1] + bytes([weights[-1] ^ 1]))
    error, _ = ask(hub, tmp_path)
    assert "ModelError" in error
    assert f"not {hashlib.sha256(weights).hexdigest()}" in error
    assert not weights_path(CLIP, tmp_path / "models").exists()
    assert [file for file in tmp_path.rglob("*model.safetensors*") if file.stat().st_size] == []


@network
def test_a_file_other_than_the_pinned_one_is_refused(hub, tmp_path, weights):
    hub.add(CLIP, weights)
    error, _ = ask(hub, tmp_path, sha256="0" * 64)
    assert f"not {'0' * 64}" in error
    assert not weights_path(CLIP, tmp_path / "models").exists()


@network
def test_a_file_with_the_right_digest_and_the_wrong_tensors_is_refused(hub, tmp_path):
    hub.add(CLIP, save(tiny_predictor()))
    error, _ = ask(hub, tmp_path)
    assert "the tensor vision_model.embeddings.class_embedding is missing" in error
    assert not weights_path(CLIP, tmp_path / "models").exists()


@network
def test_a_truncated_file_that_is_there_is_replaced(hub, tmp_path, weights):
    hub.add(CLIP, weights)
    path = put(tiny_clip(), CLIP, tmp_path / "models")
    path.write_bytes(weights[:-100])
    assert ask(hub, tmp_path)[0] == str(path)
    assert path.read_bytes() == weights


@network
def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub, tmp_path, weights):
    hub.add(CLIP, weights)
    ask(hub, tmp_path, HF_TOKEN="hf_secret")
    sent = {(request.server, request.authorization) for request in hub.requests if "/api/" not in request.path}
    assert sent == {("hub", "Bearer hf_secret"), ("cdn", None)}


@network
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is enabled"),
        ({"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}, "Connection refused"),
    ],
)
def test_without_a_network_one_short_error_says_what_to_do_within_seconds(hub, tmp_path, environment, reason):
    started = time.monotonic()
    error, everything = ask(hub, tmp_path, **environment)
    assert time.monotonic() - started < 8
    assert error.startswith(
        "tastemaker.errors.WeightsNotFoundError: model.safetensors of openai/clip-vit-large-patch14"
    )
    for part in (reason, "32bd642", str(weights_path(CLIP, tmp_path / "models")), "tastemaker models pull --model-dir"):
        assert part in error
    assert len(everything.splitlines()) < 20
    assert not (tmp_path / "models").exists()


@network
@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_hub_that_refuses_is_named_in_the_error_at_once(hub, tmp_path, status):
    hub.status = status
    started = time.monotonic()
    error, _ = ask(hub, tmp_path)
    assert time.monotonic() - started < 8
    assert "WeightsNotFoundError" in error
    assert str(status) in error


FETCH_HEAD = """
import dataclasses, sys
from tastemaker.models import hub
from tastemaker.models.published import find_scorer
head = dataclasses.replace(find_scorer("laion-v1-b32").head, url=sys.argv[2], sha256=sys.argv[3] or None)
print(hub.ensure_weights(head, sys.argv[1]))
"""


@network
def test_a_head_that_is_not_on_the_hub_is_fetched_from_its_url_without_the_hubs_token(hub, tmp_path):
    pytest.importorskip("torch")
    head = find_scorer("laion-v1-b32").head
    made = weights_path(head, write_random_models(tmp_path / "made", scorer="laion-v1-b32"))
    hub.small["/somewhere/head.pth"] = made.read_bytes()

    def fetch(sha256):
        arguments = [str(tmp_path / "models"), f"{hub.url}/somewhere/head.pth", sha256]
        environment = hub.environment(tmp_path, HF_TOKEN="hf_secret")
        client = subprocess.run(
            [sys.executable, "-c", FETCH_HEAD, *arguments], env=environment, capture_output=True, text=True
        )
        return (client.stdout or client.stderr).splitlines()[-1]

    assert f"not {head.sha256}" in fetch(head.sha256)
    path = weights_path(head, tmp_path / "models")
    assert not path.exists()
    assert fetch("") == str(path)
    assert path.read_bytes() == made.read_bytes()
    assert {request.authorization for request in hub.requests} == {None}
    asked = len(hub.requests)
    assert fetch("") == str(path)
    assert len(hub.requests) == asked


def test_a_small_checkpoint_of_the_same_format_has_no_problems(tmp_path):
    clip = check_weights(CLIP, put(tiny_clip(layers=3, extra=10), CLIP, tmp_path))
    assert (clip.problems, clip.sha256) == ([], None)
    assert check_weights(AESTHETIC_PREDICTOR, put(tiny_predictor(), AESTHETIC_PREDICTOR, tmp_path)).problems == []


def test_integer_tensors_are_refused(tmp_path):
    tensors = {name: tensor.astype(np.int32) for name, tensor in tiny_predictor().items()}
    (problem,) = check_weights(AESTHETIC_PREDICTOR, put(tensors, AESTHETIC_PREDICTOR, tmp_path)).problems
    assert "is I32; it must be F32 or F16 or BF16" in problem


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_truncated_file_is_recognised(tmp_path, weights, size):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights[:size])
    (problem,) = check_weights(CLIP, path).problems
    assert "cannot be read as safetensors" in problem


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


def test_a_cache_of_digests_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "cache").write_bytes(b"a file where the directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert file_sha256(tmp_path / "cache") == hashlib.sha256((tmp_path / "cache").read_bytes()).hexdigest()
