"""Fixtures that many tests share: tiny models, real photographs, shards."""

import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

# Tests run beside each other: threads of one that wait for those of another burn the processor. Set before NumPy loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the real hub
os.environ.setdefault("TASTEMAKER_EXECUTOR", "local")  # tests of the engines name them
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's name for: on the loopback address only

import pyarrow.parquet as pq

REAL_HEAD = Path(__file__).resolve().parents[2] / "shared" / "models" / "sac-logos-ava1-l14-linearMSE.safetensors"


@pytest.hookimpl(trylast=True)  # after the marks of the folders, and the choice by marks
def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker is left with one at the end."""
    long = {item.path for item in items for mark in ("slow", "ray", "browser") if item.get_closest_marker(mark)}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Commands that a test runs in this process set up logging as for a process of their own."""
    logger = logging.getLogger("tastemaker")
    level, handlers = logger.level, [*logger.handlers]
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A directory with tiny random models in the real file format."""
    from tastemaker.testing import write_random_models

    return write_random_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def real_head():
    """The published predictor's weights, where this machine has them."""
    if not REAL_HEAD.is_file():
        pytest.skip("the published predictor's weights are not on this machine")
    return REAL_HEAD


@pytest.fixture(scope="session")
def start_ray():
    """A function that starts a cluster on the loopback address by ``ray start``, and returns where it is."""
    pytest.importorskip("ray")
    started = []
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short

    def start(cores=1, **environment):
        port = free_port()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
        command += [f"--num-cpus={cores}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        command += [f"--temp-dir={tempfile.mkdtemp(dir=folder)}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        settings = {"RAY_AUTH_MODE": "disabled", **environment}
        started.append(subprocess.Popen(command, env=os.environ | settings, **quiet))
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


@pytest.fixture(scope="session")
def cluster(start_ray):
    """The address of a cluster with two cores that all tests share; each of them joins and leaves it."""
    return start_ray(cores=2)


@pytest.fixture(scope="session")
def full_photographs():
    """Name -> bytes of real photographs, JPEG and PNG, that scikit-image brings."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="session")
def photographs(full_photographs):
    """The same, small: for tests that are about what happens to a picture, and not about what is in it."""
    from PIL import Image

    small = {}
    for name, data in full_photographs.items():
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture.thumbnail((240, 240))
        small[name] = encode(picture, "JPEG" if name.endswith(".jpg") else "PNG")
    return small


@pytest.fixture
def photo_folder(tmp_path, photographs):
    """A folder of real photographs, one with a caption and JSON, one in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name, data in photographs.items():
        (folder / name).write_bytes(data)
    (folder / "below" / "again.png").write_bytes(photographs["coffee.png"])
    (folder / "coffee.txt").write_text("a cup of coffee")
    (folder / "coffee.json").write_text('{"width": 600}')
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep the user's directories out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))


def write_predictor(model_dir, path, steepness):
    """Write the predictor of a directory of models, its last layer multiplied by a factor; return the path."""
    from safetensors.numpy import load_file, save_file

    from tastemaker.models.hub import weights_path
    from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR

    tensors = load_file(weights_path(AESTHETIC_PREDICTOR, model_dir))
    tensors["layers.7.weight"] *= steepness
    save_file(tensors, path)
    return path


def make_tar(path, members, **options):
    """Write a tar of (name, bytes) pairs, in order, and return its path."""
    with tarfile.open(path, options.pop("mode", "w"), **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_shards(folder, shards):
    """Write a tar of each list of (name, bytes) pairs, ``0.tar`` and following, and return their folder."""
    folder.mkdir()
    for number, members in enumerate(shards):
        make_tar(folder / f"{number}.tar", members)
    return folder


def read_rows(folder):
    """Return the rows of all Parquet files in a folder."""
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def finished_files(output):
    """The files of rows that are whole: a process that is killed leaves unfinished ones, with names of their own."""
    return list(output.glob("rows/[!.]*.parquet"))


def rows_by_file(folder):
    return {path.name: pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))}


def read_tars(folder):
    """Return name -> bytes of every member of all tars in a folder."""
    members = {}
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
    return members


def contents(folder):
    """Return name -> bytes of everything in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def encode(pixels, file_format, **options):
    """Return pixels as an encoded file."""
    from PIL import Image

    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, file_format, **options)
    return file.getvalue()
