"""A virtual environment for each peer, made by plain pip and kept."""

import json
import subprocess
import sys
import venv
from pathlib import Path

TORCH = [["torch==2.13.0"], ["torchvision==0.28.0"]]
"""Each list is one call of pip. First and by itself, so that no package asks for another PyTorch."""
REPOSITORY = Path(__file__).parents[2]


class SkippedError(Exception):
    """A peer cannot be installed or run; the message says why."""


def requirements(package: str, *, on_gpu: bool) -> list[list[str]]:
    """Return the calls of pip that install a peer, as arguments."""
    if package == "tastemaker":
        return [TORCH[0], [f"{REPOSITORY}[torch]"]] if on_gpu else [[str(REPOSITORY)]]
    return [*TORCH, [package]]


def make_environment(folder: Path, calls: list[list[str]]) -> Path:
    """Return the Python of an environment with these installed. One that is there and complete is kept.

    Raises:
        SkippedError: pip failed; the message is the last line that it printed.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "installed.json"
    if done.exists() and json.loads(done.read_text()) == calls:
        return python
    venv.create(folder, clear=True, with_pip=True)
    for call in calls:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *call]
        result = subprocess.run(pip, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            raise SkippedError(f"pip install {' '.join(call)}: {lines[-1] if lines else result.stderr[-200:]}")
    done.write_text(json.dumps(calls))
    return python


def refresh_ours(python: Path) -> None:
    """Install this checkout again over an older copy of it."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", str(REPOSITORY)]
    subprocess.run(pip, check=True)


def installed_megabytes(python: Path) -> float:
    """Return the size of the environment's packages, without pip and the compiled Python files."""
    folder = next(python.parents[1].rglob("site-packages"))
    files = (f for f in folder.rglob("*") if f.is_file() and not f.is_symlink() and f.suffix != ".pyc")
    return sum(f.stat().st_size for f in files if f.relative_to(folder).parts[0] not in ("pip", "setuptools")) / 1e6


def installed_versions(python: Path, names: list[str]) -> str:
    """Return the versions of packages in the environment, in words."""
    code = (
        "import importlib.metadata as m, sys\n"
        "have = {d.metadata['Name']: d.version for d in m.distributions()}\n"
        "print(', '.join(f'{n} {have[n]}' for n in sys.argv[1:] if n in have))"
    )
    return subprocess.run(
        [str(python), "-c", code, *dict.fromkeys(names)], capture_output=True, text=True, check=False
    ).stdout.strip()
