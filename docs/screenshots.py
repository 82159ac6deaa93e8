"""Pictures of the explorer and the report for the documentation: python docs/screenshots.py.

Ranks the demo's photographs and their damaged versions by technical quality, serves and reports them, and photographs
the pages with Playwright and chromium, light and dark, into docs/images.
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

from tastemaker import RunOptions, run_scoring
from tastemaker.demo import make_pictures

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Make the table, serve it, take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # relative paths are what the pictures show
        rank_pictures()
        program = [sys.executable, "-m", "tastemaker"]
        options = {"cwd": folder, "stderr": subprocess.DEVNULL}
        subprocess.run([*program, "report", "photographs", "--output", "report.html"], check=True, **options)
        command = [*program, "explore", "photographs", "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as server:
            try:
                assert server.stdout
                take_pictures(server.stdout.readline().strip(), Path(folder, "report.html").as_uri())
            finally:
                server.kill()


def rank_pictures() -> None:
    """Write the demo's pictures and their rows, but for those whose licence scikit-image does not state."""
    pictures = Path("pictures")
    pictures.mkdir()
    for name, data in make_pictures():
        if not name.startswith("motorcycle"):
            (pictures / name).write_bytes(data)
    options = RunOptions(signals=True, rank_by="technical_quality")
    run_scoring([str(pictures)], Path("photographs"), options)


def take_pictures(address: str, report: str) -> None:
    """Write the grid with the cut-off in it, one picture, two, and the top of the report, light and dark."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=theme)
            page.goto(f"{address}#cut=20%25")
            page.wait_for_selector("body.ready")
            page.get_by_role("button", name="Understood").click()
            save(page, f"explorer-{theme}")
            page.keyboard.press("ArrowRight")
            page.keyboard.press("Enter")
            page.wait_for_selector("#picture .large.here")
            save(page, f"explorer-picture-{theme}")
            page.keyboard.press("v")
            save(page, f"explorer-beside-{theme}")
            page.goto(report)
            save(page, f"report-{theme}")
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
