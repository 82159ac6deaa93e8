"""The documentation's examples run, and what it says of files and options is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from tastemaker.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_a_python_example_runs(code, tmp_path, photo_folder, model_dir, monkeypatch):
    """Each runs in a folder with `photos` and `shards`, and the rows of `photos` in `scores` if it reads them."""
    from conftest import make_tar

    (tmp_path / "shards").mkdir()
    members = [(path.name, path.read_bytes()) for path in sorted(photo_folder.iterdir()) if path.is_file()]
    make_tar(tmp_path / "shards" / "00000.tar", members)
    monkeypatch.setenv("TASTEMAKER_MODEL_DIR", str(model_dir))
    if "scores" in code:
        prepare = [sys.executable, "-m", "tastemaker", "score", "photos", "--output", "scores"]
        subprocess.run(prepare, cwd=tmp_path, check=True, capture_output=True)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_the_modules_that_an_image_travels_through_exist():
    modules = re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs" / "how-an-image-travels.md").read_text())
    assert modules
    for module in modules:
        assert (ROOT / "src" / "tastemaker" / module).is_file(), module


def test_the_options_that_pages_name_exist():
    commands = get_command(app).commands
    known = {name: {option for p in command.params for option in p.opts} for name, command in commands.items()}
    for name in commands["scorers"].commands:
        known[f"scorers {name}"] = {option for p in commands["scorers"].commands[name].params for option in p.opts}
    for page in PAGES:
        for line in page.read_text().splitlines():
            match = re.match(rf"\s*(?:\$ )?tastemaker ({'|'.join(sorted(known, key=len, reverse=True))})\b", line)
            for option in re.findall(r"(?<= )--[a-z][a-z-]+", line) if match and match[1] != "run" else []:
                assert option in known[match[1]], f"{page.name}: {line}"


def test_the_example_script_filters(tmp_path, photo_folder, model_dir):
    script = ROOT / "examples" / "filter_images.py"
    options = ["--model-dir", str(model_dir), "--score-threshold", "1", "--verbose"]
    command = [sys.executable, str(script), str(photo_folder), str(tmp_path / "out"), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "photos-00000: {'kept': 7}" in result.stdout
    assert (tmp_path / "out" / "photos-00000-000000.tar").is_file()
