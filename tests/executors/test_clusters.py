"""Clusters of several machines, with and without a token, of the run's own, and runs that are told to stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from conftest import finished_files, rows_by_file
from engine_stages import Diary, make_stages, marked_processes, read_diary, wait_until, write_shards

from tastemaker import LocalExecutor, Pipeline, RayDataExecutor, Resources
from tastemaker.errors import ConfigurationError
from tastemaker.executors.ray_session import ray_session
from tastemaker.storage.unfinished import DRAFT_PREFIX

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")

TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory of its own, and none of Ray's variables."""
    for name in (*TOKEN_VARIABLES, "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two machines with a core each, and the second machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, second
    cluster.shutdown()


def small_stages(source, model_dir, output, diary, pause_s=0.0):
    stages = make_stages(source, model_dir, output, Diary(str(diary), pause_s))
    return [*stages[:1], *(stage.with_(resources=Resources(cpus=0.2)) for stage in stages[1:])]


def test_a_machine_that_is_lost_changes_nothing(two_nodes, tmp_path, model_dir):
    cluster, second = two_nodes
    shards, output, diary = write_shards(tmp_path / "shards", shards=8), tmp_path / "out", tmp_path / "diary"
    stages = small_stages(shards, model_dir, output, diary, pause_s=0.3)

    def lose():
        wait_until(lambda: len({pid for pid, *_ in read_diary(diary, "process")}) == 2, 60)
        cluster.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    results = Pipeline("p", stages=stages).run(RayDataExecutor())
    loser.join(5)

    assert not loser.is_alive()
    assert len({node for (node,) in read_diary(diary, "node")}) == 2  # weights were fetched once on each
    written = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    expected = Pipeline("p", stages=stages).run(LocalExecutor())
    assert [task.data for task in results] == [task.data for task in expected]
    assert written == {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def test_no_worker_runs_beside_ray_s_own_services_if_that_is_asked_for(two_nodes, tmp_path, model_dir):
    _, second = two_nodes
    shards = write_shards(tmp_path / "shards", shards=3, images=2)
    stages = small_stages(shards, model_dir, tmp_path / "out", tmp_path / "diary")
    Pipeline("p", stages=stages).run(RayDataExecutor(ignore_head_node=True))
    assert read_diary(tmp_path / "diary", "node") == [[second.node_id]]
    assert len(read_diary(tmp_path / "diary", "process")) == 3


def test_up_to_four_workers_share_a_gpu_and_machines_without_one_get_none(two_nodes, tmp_path, model_dir):
    cluster, _ = two_nodes
    with_gpu = cluster.add_node(num_cpus=4, num_gpus=1)  # Ray takes our word for it
    diary = tmp_path / "diary"
    shards = write_shards(tmp_path / "shards", shards=12, images=2)
    stages = small_stages(shards, model_dir, tmp_path / "out", diary, pause_s=0.5)
    stages[3] = stages[3].with_(resources=Resources(cpus=0.1, gpus=0.25))
    Pipeline("p", stages=stages).run(RayDataExecutor())
    assert {node for (node,) in read_diary(diary, "node")} == {with_gpu.node_id}
    assert 1 < len({pid for pid, *_ in read_diary(diary, "process")}) <= 4
    assert len(read_diary(diary, "process")) == 12


def answer():
    import ray

    return ray.get(ray.remote(lambda: 5).options(num_cpus=0).remote())


def test_clusters_with_and_without_a_token_and_one_of_its_own_can_follow_each_other(start_ray, home, monkeypatch):
    without, with_token = start_ray(), start_ray(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    for address in (without, None, without):
        with ray_session(address):
            assert answer() == 5
            assert os.environ.get("RAY_AUTH_MODE") == ("token" if address is None else None)
        assert not {name for name in TOKEN_VARIABLES if name in os.environ}
    assert not (home / ".ray").exists()
    code = f"""
        from tastemaker.executors.ray_session import ray_session
        import ray
        with ray_session({with_token!r}):
            print(ray.get(ray.remote(lambda: 5).remote()))
    """
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "5\n"


def test_an_address_where_nobody_answers_is_an_error_at_once(home):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with (
            pytest.raises(ConfigurationError, match=rf"no Ray cluster at {address}: .*refused"),
            ray_session(address),
        ):
            pass


SCRIPT = """
    import sys
    from dataclasses import dataclass
    import psutil
    from tastemaker import *
    sys.path.insert(0, sys.argv[4])
    from engine_stages import make_stages
    source, models, output = sys.argv[1:4]

    @dataclass
    class OfTheScript(ProcessingStage):
        name: str = "of_the_script"
        def process(self, task):
            print("of a worker", flush=True)
            return task

    if __name__ == "__main__":
        results = Pipeline("p", stages=make_stages(source, models, output, OfTheScript())).run(XennaExecutor())
        import ray
        print(len(results), ray.is_initialized(), psutil.Process().children(recursive=True))
"""


def test_a_ray_of_its_own_starts_and_ends_with_the_run_and_stdout_stays_clean(tmp_path, model_dir):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    shards, tests = write_shards(tmp_path / "shards"), Path(__file__).parent
    environment = {**os.environ, "TASTEMAKER_MARK": tmp_path.name}
    environment["PYTHONPATH"] = os.pathsep.join([str(tests.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, tmp_path / "script.py", shards, model_dir, tmp_path / "out", tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "4 False []\n", done.stderr
    assert done.stderr.count("of a worker") == 8
    assert wait_until(lambda: not marked_processes(tmp_path.name)), marked_processes(tmp_path.name)


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shards=24, images=20)


def command_line(shards, output, engine):
    where = ["-o", str(output), "--executor", engine, "--batch-size", "4"]
    return [sys.executable, "-m", "tastemaker", "score", str(shards), *where]


@pytest.fixture(scope="module")
def all_rows(many_shards, model_dir, tmp_path_factory):
    """The rows of a run of these shards that nobody stopped."""
    output = tmp_path_factory.mktemp("whole")
    environment = {**os.environ, "TASTEMAKER_MODEL_DIR": str(model_dir)}
    subprocess.run(command_line(many_shards, output, "local"), env=environment, check=True, capture_output=True)
    return rows_by_file(output / "rows")


@pytest.mark.parametrize(
    ("engine", "number", "to_all"), [("xenna", signal.SIGTERM, True), ("ray-data", signal.SIGINT, False)]
)
def test_a_run_that_is_told_to_stop_says_so_and_leaves_nothing(
    engine, number, to_all, many_shards, all_rows, model_dir, tmp_path
):
    output, environment = tmp_path / "out", {**os.environ, "TASTEMAKER_MODEL_DIR": str(model_dir)}
    environment["TASTEMAKER_MARK"] = tmp_path.name
    command = command_line(many_shards, output, engine)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert wait_until(lambda: finished_files(output), 60)
        (os.killpg if to_all else os.kill)(process.pid, number)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1] == "tastemaker: stopped; the same command goes on from here"
    assert (printed, "Traceback" in errors, "SIGTERM received" in errors) == ("", False, False)
    assert wait_until(lambda: not marked_processes(tmp_path.name), 60), marked_processes(tmp_path.name)
    record = json.loads((output / "_tastemaker" / "run.json").read_text())
    assert record["state"] == "stopped"

    done = len(finished_files(output))
    again = [*command_line(many_shards, output, "local"), "--json"]
    summary = json.loads(subprocess.run(again, env=environment, check=True, capture_output=True).stdout)
    assert (summary["images"], summary["images_scored_now"]) == (480, 20 * (24 - done))
    assert not list(output.rglob(f"{DRAFT_PREFIX}*"))
    assert rows_by_file(output / "rows") == all_rows
