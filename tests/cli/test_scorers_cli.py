import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tastemaker.cli.scorers import app
from tastemaker.models import hub
from tastemaker.models.published import find_scorer, published_scorers
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


def test_the_list_says_what_each_scorer_is_and_whether_its_weights_are_here(model_dir):
    text = run("--model-dir", model_dir)
    rows = {row["name"]: row for row in json.loads(run("--model-dir", model_dir, "--json").stdout)}
    assert text.exit_code == 0
    first = re.split("  +", text.stdout.splitlines()[1])
    assert first[:6] == ["laion-v2", "aesthetic_score", "1 to 10", "4.5, 5, 6, 6.5", "Apache-2.0", "here"]
    assert rows.keys() == published_scorers().keys()
    assert (rows["nsfw"]["column"], rows["nsfw"]["missing"]) == ("nsfw_score", ["head"])
    assert (rows["siglip-v2.5"]["licence"], rows["siglip-v2.5"]["column"]) == ("AGPL-3.0", "siglip_v2_5")
    assert rows["laion-v1-b32"]["missing"] == ["backbone", "head"]
    assert rows["clip-score-b32"]["missing"] == ["backbone", "tokenizer"]
    assert "no backbone and no tokenizer" in text.stdout
    assert all(row["licence"] and row["backbone_licence"] for row in rows.values())


def test_verify_says_what_is_not_there(model_dir):
    path = hub.weights_path(AESTHETIC_PREDICTOR, model_dir)
    path.unlink()
    result = run("verify", "--model-dir", model_dir)
    assert result.exit_code == 1
    assert f"  {path}\n  there is no such file\n" in result.stdout


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
    heavy = "{'huggingface_hub', 'numpy', 'torch', 'rich.table'}"
    code = f"import sys, tastemaker.cli.scorers; print({heavy} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
