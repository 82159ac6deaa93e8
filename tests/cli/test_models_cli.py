import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tastemaker.cli.models import app
from tastemaker.models import hub
from tastemaker.models.published import find_scorer
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.testing import write_random_models

MODELS = (CLIP_VIT_L14, CLIP_VIT_L14.text.tokenizer, AESTHETIC_PREDICTOR)


@pytest.fixture
def model_dir(tmp_path):
    """Tiny models of the test's own, to be damaged."""
    return write_random_models(tmp_path)


@pytest.fixture
def tiny_models(model_dir, monkeypatch):
    """The records of the default scorer with the digests of the tiny files, as ``--scorer own:TINY``."""
    pinned = [replace(m, sha256=hub.file_sha256(hub.weights_path(m, model_dir))) for m in MODELS]
    backbone = replace(pinned[0], text=replace(CLIP_VIT_L14.text, tokenizer=pinned[1]))
    scorer = replace(find_scorer(), backbone=backbone, head=pinned[2])
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(TINY=scorer))
    return pinned


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_pull_prints_the_paths_of_weights_that_are_there(model_dir):
    result = run("pull", "--model-dir", model_dir)
    assert result.stdout.splitlines() == [str(hub.weights_path(model, model_dir)) for model in MODELS]


def test_list_says_what_is_there_and_what_is_not(model_dir):
    path = hub.weights_path(AESTHETIC_PREDICTOR, model_dir)
    path.unlink()
    text = run("list", "--model-dir", model_dir)
    rows = json.loads(run("list", "--model-dir", model_dir, "--json").stdout)
    assert text.exit_code == 0
    assert f"  {path}\n  there is no such file\n" in text.stdout
    assert [(row["id"], row["size_bytes"] is not None) for row in rows] == [
        ("openai/clip-vit-large-patch14", True),
        ("openai/clip-vit-large-patch14", True),
        ("ttj/sac-logos-ava1-l14-linearMSE", False),
    ]


def test_verify_is_content_with_the_pinned_files(model_dir, tiny_models):
    result = run("verify", "--model-dir", model_dir, "--scorer", "own:TINY", "--json")
    assert result.exit_code == 0
    assert [row["sha256"] for row in json.loads(result.stdout)] == [model.sha256 for model in tiny_models]


def test_verify_exits_with_1_when_a_byte_has_changed(model_dir, tiny_models):
    path = hub.weights_path(AESTHETIC_PREDICTOR, model_dir)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run("verify", "--model-dir", model_dir, "--scorer", "own:TINY")
    assert result.exit_code == 1
    assert f"not {tiny_models[2].sha256}" in result.stdout


def test_commands_start_without_the_hub_client_numpy_or_torch():
    code = (
        "import sys, tastemaker.cli.models; print({'huggingface_hub', 'numpy', 'torch', 'rich.table'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
