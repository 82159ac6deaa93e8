"""The explorer at a million rows: start, answers, memory of server and page, repaint of the cut-off, thumbnails.

    python benchmarks/explorer.py [--rows 1000000] [--pictures 200]

Makes rows that point at JPEGs of 24 megapixels and of 1 megapixel (noise over gradients) in a tar, serves them
with the command line, and drives the page with Playwright and Debian's chromium. Needs both.
"""

import argparse
import http.client
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pyarrow as pa
from common import print_machine
from PIL import Image

from tastemaker.imaging.shards import read_samples
from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import make_table, rows_schema
from tastemaker.tasks import ImageObject

SIZES = ((6000, 4000), (1200, 900))
ASKED = (
    "/api/view",
    f"/api/rows?places={','.join(map(str, range(400_000, 400_200)))}",
    "/api/cutoff?cut=100k",
    "/api/picture/{row}",
    "/api/view?where=width+%3E+2000",
    "/api/facets",
    "/api/view?rated=unrated",
    "/api/order?order=name",
    "/api/slices?dimension=size&cut=1000",
    "/api/failures",
)

REPAINT = """async () => {
  const handle = document.getElementById("handle"), times = [];
  const painted = (done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  });
  for (let n = 0; n < 200; n++) {
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    handle.value = Number(handle.min) + ((n + 20) / 240) * (handle.max - handle.min);
    handle.dispatchEvent(new Event("input"));
    await new Promise(painted);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  return [times[100], times[190], times[199]];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    print_machine("starlette", "uvicorn", "duckdb", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        scores = write_scores(Path(folder), arguments.rows, arguments.pictures)
        start = time.perf_counter()
        command = [sys.executable, "-m", "tastemaker", "explore", str(scores), "--no-browser", "--originals", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                address = server.stdout.readline().strip()
                print(f"the address is printed after {time.perf_counter() - start:.2f} s")
                measure_page(address, server.pid)
                measure_answers(address, arguments.pictures)
            finally:
                server.kill()


def write_scores(folder: Path, rows: int, pictures: int) -> Path:
    """Write pictures in a shard, and rows that point at them again and again."""
    shard = folder / "pictures.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(shard, "w") as tar:
        for number in range(pictures):
            width, height = SIZES[number % len(SIZES)]
            ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))[..., None]
            pixels = (ramp + rng.integers(0, 30, (height, width, 3), np.uint8)).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=85)
            info = tarfile.TarInfo(f"{number:05d}.jpg")
            info.size = file.tell()
            file.seek(0)
            tar.addfile(info, file)
    images = []
    for number, (sample, _) in enumerate(read_samples(str(shard))):
        image = ImageObject(f"{shard}/{sample.image.name}", sample.key, shard=str(shard), member=sample.image)
        image.width, image.height = SIZES[number % len(SIZES)]
        image.format, image.aesthetic_score = "JPEG", 5.0
        image.sidecars = {"txt": b"a quiet morning over the valley, with first snow and two birds"}
        images.append(image)
    options = {"with_embeddings": False, "with_signals": False}
    table = make_table(images, rows_schema(**options)).take(pa.array(np.arange(rows) % pictures))
    keys = pa.array(np.char.add("picture-", np.arange(rows).astype(str)))
    for name, column in (("aesthetic_score", rng.normal(5.2, 0.6, rows).astype(np.float32)), ("image_id", keys)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    for start in range(0, rows, 50_000):
        file = RowsFile(folder / "scores" / f"{start:08d}.parquet", rows_schema(**options))
        for part in range(start, min(start + 50_000, rows), 4096):
            file.add_rows(table.slice(part, min(4096, start + 50_000 - part)))
        file.commit()
    return folder / "scores"


def measure_page(address: str, server: int) -> None:
    """Print how soon the page is there, its repaint and its memory."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        start = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body.ready")
        print(f"the page is ready {time.perf_counter() - start:.2f} s after it was asked for")
        time.sleep(5)
        median, p95, slowest = page.evaluate(REPAINT)
        print(
            f"move of the cut-off to repaint: median {median:.0f} ms, 95% in {p95:.0f}, slowest {slowest:.0f} (of 200)"
        )
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        print(f"before scrolling: page {heap(session)}; server {memory(server)}")
        for number in range(200):
            page.evaluate(f"document.getElementById('scroller').scrollTop = {number * 37 % 200 * 39_000}")
            time.sleep(0.12)
        time.sleep(2)
        print(f"after 200 jumps through the grid: page {heap(session)}; server {memory(server)}")
        browser.close()


def measure_answers(address: str, pictures: int) -> None:
    """Print the median time of each kind of answer, asked for one by one."""
    url = urlparse(address)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    token = parse_qs(url.query)["token"][0]

    def ask(path: str) -> float:
        start = time.perf_counter()
        connection.request("GET", f"{path}{'&' if '?' in path else '?'}token={token}")
        response = connection.getresponse()
        response.read()
        assert response.status == 200, path
        return 1000 * (time.perf_counter() - start)

    for path in ASKED:
        times = [ask(path.format(row=1000 * n)) for n in range(5)]
        print(f"{path[:60]}: first {times[0]:.0f} ms, then {statistics.median(times[1:]):.0f} ms")
    for kind, (width, height) in enumerate(SIZES):
        rows = range(kind, min(pictures, 40), len(SIZES))
        fresh = statistics.median(ask(f"/picture/{row}/320") for row in rows)
        large = statistics.median(ask(f"/picture/{row}/960") for row in rows)
        print(f"JPEG of {width}x{height}: thumbnail {fresh:.0f} ms; large view {large:.0f} ms")


def heap(session: object) -> str:
    session.send("HeapProfiler.collectGarbage")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return f"{metrics['JSHeapUsedSize'] / 1e6:.1f} MB of objects, {metrics['Nodes']:.0f} nodes"


def memory(process: int) -> str:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line)
    anonymous, mapped, peak = (int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile", "VmHWM"))
    return f"{anonymous:.0f} MiB and {mapped:.0f} MiB of mapped files, {peak:.0f} MiB at most"


if __name__ == "__main__":
    main()
