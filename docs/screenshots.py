"""Pictures of the explorer for the documentation: python docs/screenshots.py.

Ranks the demo's photographs and their damaged versions by technical quality, serves them, and photographs the page with
Playwright and chromium, light and dark, into docs/images. The photographs are scikit-image's, in the public domain
or under CC0; the motorcycle, whose licence is not stated, is left out.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tastemaker.demo import make_pictures
from tastemaker.scores.cutoff import Top
from tastemaker.scores.run import RunOptions, run_scoring

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Make the table, serve it, take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # relative paths are what the pictures show
        pictures = Path("photographs")
        pictures.mkdir()
        for name, data in make_pictures():
            if not name.startswith("motorcycle"):
                (pictures / name).write_bytes(data)
        ranked = RunOptions(rank_by="technical_quality", top=Top(share=0.2))
        run_scoring([str(pictures)], Path("photographs-scores"), ranked)
        command = [sys.executable, "-m", "tastemaker", "explore", "photographs-scores", "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout
                take_pictures(server.stdout.readline().strip())
            finally:
                server.kill()


def take_pictures(address: str) -> None:
    """Write the grid with the cut-off in it, and a picture's page, light and dark."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=theme)
            page.goto(f"{address}#cut=20%25")
            page.wait_for_selector("body.ready")
            save(page, f"explorer-{theme}")
            page.keyboard.press("ArrowRight")
            page.keyboard.press("Enter")
            page.wait_for_selector("#picture .large.here")
            save(page, f"explorer-picture-{theme}")
        browser.close()


def save(page: Page, name: str) -> None:
    """Write what is shown once all its pictures are there."""
    time.sleep(2)
    for _ in range(100):
        if page.evaluate("[...document.images].every((image) => image.complete)"):
            break
        time.sleep(0.1)
    Image.open(io.BytesIO(page.screenshot())).save(IMAGES / f"{name}.webp", quality=82, method=6)


if __name__ == "__main__":
    main()
