"""Culling by keys: how long the page takes for each of 2,000 pictures, and how soon ratings are on disk.

    python benchmarks/culling.py [--pictures 2000] [--megapixels 24] [--pause 0.3]

Makes JPEGs (gradients with some noise), links each of them many times so that all pictures are files of their own,
opens the first in the explorer with Playwright and Debian's chromium, and rates each by a key that goes on to the next.
A picture's time is that from the key to the next picture, as large as it is shown, on screen. Then it rates thirty.
"""

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import print_machine
from PIL import Image
from playwright.sync_api import sync_playwright

from tastemaker.imaging.tars import Member
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import make_table, rows_schema
from tastemaker.tasks import ImageObject

DISTINCT = 20
GOAL_MS = 100

CULL = """async ([pictures, pause]) => {
  const { model } = window.tastemaker, times = [];
  const keys = [["4", "Digit4"], ["x", "KeyX"], ["2", "Digit2"], ["x", "KeyX"], ["7", "Digit7"]];
  for (let n = 0; n < pictures - 1; n++) {
    const [key, code] = keys[n % keys.length], before = model.picture, start = performance.now();
    const isShown = () => {
      const large = document.querySelector(".pane.active .large.here");
      return model.picture !== before && large?.src.includes(`/picture/${model.picture}/`);
    };
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, code, shiftKey: true, bubbles: true }));
    while (!isShown()) {
      await new Promise(requestAnimationFrame);
      const waited = performance.now() - start;
      if (waited > 20_000) throw new Error(`picture ${n + 2} did not come`);
    }
    times.push(performance.now() - start);
    await new Promise((done) => setTimeout(done, pause));
  }
  return times;
}"""

RATE = """async () => {
  const times = [], { fetch } = window;
  window.fetch = async (...what) => {
    const start = performance.now(), answer = await fetch(...what);
    if (what[0].startsWith("/api/ratings")) times.push(performance.now() - start);
    return answer;
  };
  const key = { key: "3", code: "Digit3", shiftKey: true, bubbles: true };
  for (let n = 0; n < 30; n++) document.body.dispatchEvent(new KeyboardEvent("keydown", key));
  while (times.length < 30) await new Promise(requestAnimationFrame);
  return times;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds that one looks at each picture")
    arguments = parser.parse_args()
    print_machine("starlette", "uvicorn", "simplejpeg")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        scores = write_pictures(Path(folder), arguments.pictures, arguments.megapixels)
        command = [sys.executable, "-m", "tastemaker", "explore", str(scores), "--no-browser", "--originals", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout
                measure(server.stdout.readline().strip(), arguments.pictures, arguments.pause)
            finally:
                server.kill()


def write_pictures(folder: Path, number: int, megapixels: float) -> Path:
    """Write pictures and their rows, and return the folder of the rows."""
    rng = np.random.default_rng(0)
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))[..., None]
    sizes = []
    for n in range(min(DISTINCT, number)):
        file = io.BytesIO()
        noise = rng.integers(0, 12, (height, width, 3), np.uint8)
        Image.fromarray((ramp + noise + n).astype(np.uint8)).save(file, "JPEG", quality=90)
        (folder / f"{n}.jpg").write_bytes(file.getvalue())
        sizes.append(len(file.getvalue()))
    print(f"JPEGs of {width}x{height}, {np.mean(sizes) / 1e6:.1f} MB")
    images = []
    for n, score in enumerate(rng.normal(5.2, 0.6, number)):
        path = folder / f"IMG_{n:05d}.jpg"
        os.link(folder / f"{n % DISTINCT}.jpg", path)
        image = ImageObject(str(path), path.stem, member=Member(str(path), 0, sizes[n % DISTINCT]))
        image.width, image.height, image.format, image.aesthetic_score = width, height, "JPEG", float(score)
        images.append(image)
    schema = rows_schema(with_embeddings=False, with_signals=False)
    file = RowsFile(folder / "scores" / "rows.parquet", schema)
    file.add_rows(make_table(images, schema))
    file.commit()
    return folder / "scores"


def measure(address: str, pictures: int, pause: float) -> None:
    """Print the times."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector("body.ready")
        page.keyboard.press("Enter")
        page.wait_for_selector(".pane.active .large.here")
        times = page.evaluate(CULL, [pictures, 1000 * pause])
        tell(f"key to the next picture, {pause:g} s apart", times)
        page.keyboard.press("Home")
        tell("thirty ratings at once, each on disk", page.evaluate(RATE))
        browser.close()


def tell(what: str, times: list[float]) -> None:
    late = sum(time > GOAL_MS for time in times)
    ranked = sorted(times)
    print(
        f"{what}: median {statistics.median(times):.0f} ms, 95% in {ranked[int(0.95 * len(ranked))]:.0f}, "
        f"slowest {ranked[-1]:.0f}; {late} of {len(times)} above {GOAL_MS} ms"
    )


if __name__ == "__main__":
    main()
