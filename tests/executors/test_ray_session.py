"""Clusters with and without a token are joined, and what cannot be reached is said at once."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import free_port

from tastemaker.errors import ConfigurationError
from tastemaker.executors.ray_session import ray_session

pytest.importorskip("ray")
pytestmark = pytest.mark.ray

TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory of its own, none of Ray's variables, and clusters on the loopback address only."""
    from ray._private import ray_constants

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    for name in (*TOKEN_VARIABLES, "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def start_ray(home):
    """A function that starts a cluster as a user does, by ``ray start``, and returns its address."""
    started = []
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short

    def start(**environment):
        port = free_port()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
        command += ["--num-cpus=1", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command += [f"--temp-dir={tempfile.mkdtemp(dir=folder)}"]
        started.append(subprocess.Popen(command, env=os.environ | environment, **quiet))
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        return f"127.0.0.1:{port}"

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def answer():
    import ray

    return ray.get(ray.remote(lambda: 5).options(num_cpus=0).remote())


@pytest.mark.slow
def test_clusters_with_and_without_a_token_and_one_of_its_own_can_follow_each_other(start_ray, home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 64)  # ray start asks for it now, where nothing else is said
    with_token = start_ray()
    without = start_ray(RAY_AUTH_MODE="disabled")
    for address in (without, with_token, None, without, with_token):
        with ray_session(address, sets_gpus=True):
            assert answer() == 5
        assert not {name for name in TOKEN_VARIABLES if name in os.environ}


@pytest.mark.slow
def test_a_ray_of_its_own_leaves_no_token_and_needs_no_home(home):
    with ray_session(None, sets_gpus=True):
        assert answer() == 5
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert not (home / ".ray").exists()


def test_an_address_where_nobody_answers_is_an_error_at_once(home):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        with (
            pytest.raises(ConfigurationError, match=rf"no Ray cluster at {address}: .*refused"),
            ray_session(address, sets_gpus=True),
        ):
            pass
    assert time.monotonic() - started < 20
