"""The recipes in docs/deploy: sound files whose commands this version understands."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from tastemaker.cli import app

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
SLURM, DOCKER, KUBERAY = (DEPLOY / name for name in ("slurm.sh", "Dockerfile", "kuberay.yaml"))
LINTERS = [["bash", "-n", SLURM], ["shellcheck", SLURM], ["hadolint", DOCKER]]


@pytest.mark.parametrize("command", LINTERS, ids=lambda command: command[0])
def test_recipes_are_clean_by_the_linters_that_are_here(command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_command_of_a_recipe_has_the_options_that_it_uses():
    text = "\n".join(path.read_text().replace("\\\n#", "") for path in (SLURM, DOCKER, KUBERAY))
    commands = re.findall(r"\btastemaker ((?:score|filter|select) .*)", text)
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        typer.main.get_command(app).commands[name].make_context(name, arguments)  # an unknown option is an error


def test_a_slurm_job_activates_asks_for_gpus_and_sets_a_token():
    script = SLURM.read_text()
    assert script.startswith("#!/bin/bash\n")
    assert re.search(r"^#SBATCH --gpus-per-node=\d+$", script, re.MULTILINE)
    order = [
        script.index(words) for words in ("activate", "RAY_AUTH_MODE=token", "ray start --head", "tastemaker score")
    ]
    assert order == sorted(order)


def test_the_image_copies_files_that_exist_and_installs_extras_that_exist():
    recipe = DOCKER.read_text()
    sources = [name for line in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE) for name in line.split()]
    assert sources
    assert all((ROOT / name).exists() for name in sources)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for names in re.findall(r"EXTRAS=([\w,]+)", recipe) for name in names.split(",")} <= set(extras)


def test_the_cluster_on_kubernetes_runs_this_ray_with_a_token_and_frees_itself():
    job = yaml.safe_load(KUBERAY.read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["shutdownAfterJobFinishes"]) == ("ray.io/v1", "RayJob", True)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray[default]=={cluster['rayVersion']}" in (ROOT / "pyproject.toml").read_text()
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for (container,) in (pod["containers"] for pod in pods):
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "nvidia.com/gpu" in pods[1]["containers"][0]["resources"]["limits"]
