"""Makes the pictures of pages that the documentation shows: python docs/screenshots.py [--output docs/images].

Scores photographs of scikit-image that are free for any use, makes each page of `PAGES` from the scores, and takes it
in light and dark. Needs playwright, and a chromium: the one on the path, or CHROMIUM=/path/to/it. For another page,
write a function that takes the scores and a scratch folder and returns its address, and add it to `PAGES`.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tastemaker import write_report
from tastemaker.demo import make_pictures
from tastemaker.scores.run import RunOptions, run_scoring

LEFT_OUT = ("motorcycle_left",)
"""Photographs without a word about their licence; the others are CC0 or in the public domain by their docstrings."""

WIDTH, HEIGHT, MAX_BYTES = 1440, 900, 300_000


def report_page(scores: Path, scratch: Path) -> str:
    """Return the address of a report."""
    return write_report(scores, scratch / "report.html", top="30%", title="Thirty photographs").path.as_uri()


PAGES: dict[str, Callable[[Path, Path], str]] = {"report": report_page}
"""Name of a picture -> what makes its page."""


def score_photographs(scratch: Path) -> Path:
    """Return a directory of scores, by technical quality, of photographs and their damaged versions."""
    photographs = scratch / "photographs"
    photographs.mkdir()
    for name, data in make_pictures():
        if not name.startswith(LEFT_OUT):
            (photographs / name).write_bytes(data)
    run_scoring([str(photographs)], scratch / "scores", RunOptions(rank_by="technical_quality"))
    return scratch / "scores"


def encode(screenshot: bytes) -> bytes:
    """Return a screenshot as a JPEG below `MAX_BYTES`."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    for quality in range(90, 30, -5):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() <= MAX_BYTES:
            return file.getvalue()
    raise ValueError(f"a screenshot does not fit into {MAX_BYTES:,} bytes")


def main() -> None:
    """Take the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        scratch = Path(temporary)
        scores = score_photographs(scratch)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, make in PAGES.items():
            address = make(scores, scratch)
            for theme in ("light", "dark"):
                size = {"width": WIDTH, "height": HEIGHT}
                page = browser.new_page(viewport=size, color_scheme=theme)
                page.goto(address)
                page.wait_for_load_state("networkidle")
                path = output / f"{name}-{theme}.jpg"
                path.write_bytes(encode(page.screenshot()))
                print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
