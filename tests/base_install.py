"""Smoke test of an environment with the run-time dependencies only: python tests/base_install.py PYTHON.

Checks its size, what `import tastemaker` pulls in, and that the command line scores and filters real pictures there.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tastemaker.demo import make_pictures
from tastemaker.testing import write_random_models

MAX_MEGABYTES, MAX_PACKAGES = 700, 60
UNWANTED = ("torch", "transformers", "ray", "duckdb", "openvino", "pyarrow", "rich", "starlette", "uvicorn")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(python):
    modules = run(python, "-c", "import sys, tastemaker; print('\\n'.join(sys.modules))").split()
    assert not set(UNWANTED) & set(modules), sorted(set(UNWANTED) & set(modules))

    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    megabytes = sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 1e6
    own = {"pip", "setuptools", "wheel", "tastemaker"}
    packages = {p["name"] for p in json.loads(run(python, "-m", "pip", "list", "--format=json"))} - own
    print(f"base install: {megabytes:.0f} MB, {len(packages)} packages")
    assert megabytes < MAX_MEGABYTES
    assert len(packages) < MAX_PACKAGES
    assert not {"torch", "transformers", "torchvision", "ray"} & packages

    with tempfile.TemporaryDirectory() as folder:
        pictures, models = Path(folder, "pictures"), write_random_models(Path(folder, "models"))
        write_random_models(models, scorer="laion-v1-b32")
        pictures.mkdir()
        for name, data in make_pictures():
            (pictures / name).write_bytes(data)
        tastemaker = (str(Path(python).parent / "tastemaker"),)
        assert "score" in run(*tastemaker, "--help")
        pth = ["score", "--scorer", "laion-v1-b32"]  # its head is a .pth
        for number, options in enumerate((pth, ["score"], ["filter", "--top", "20%"], ["filter", "--min-score", "1"])):
            output = str(Path(folder, f"output{number}"))
            command = (*tastemaker, *options, str(pictures), "--output", output, "--model-dir", str(models), "--json")
            summary = json.loads(run(*command))
            assert summary["images"] == 35, summary
            assert summary["failed"] == 0, summary
        assert summary["kept"] == 35, summary
        look_at_the_page(*tastemaker, "explore", str(pictures), "--output", output, "--model-dir", str(models))
    print("base install: the command line scores, filters and shows a page")


def look_at_the_page(*command):
    """Ask the explorer for its page, and for all that the page loads."""
    with subprocess.Popen((*command, "--no-browser"), stdout=subprocess.PIPE, text=True) as process:
        base, _, token = process.stdout.readline().strip().partition("/?token=")
        wanted = ["/", "/api/table", *(f"/static/{name}" for name in ("app.js", "look.css"))]
        for path in wanted:
            with urllib.request.urlopen(f"{base}{path}?token={token}", timeout=30) as answer:
                assert answer.read(), path
        process.terminate()


if __name__ == "__main__":
    main(sys.argv[1])
