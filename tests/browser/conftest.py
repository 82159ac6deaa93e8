"""A real browser, and the explorer as a user starts it. Without a browser these tests are skipped."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from explorer.table import set_column, write_large_table, write_table

from tastemaker.explorer.live import Live
from tastemaker.explorer.server import create_app
from tastemaker.explorer.service import Explorer

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser" in str(item.path).replace(os.sep, "/"):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no chromium on this machine: no browser tests")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def served(folder, **options):
    """Yield the address of an explorer that a thread of this process serves."""
    with (
        contextlib.closing(Live(lambda: Explorer([str(folder)], originals=["/"], **options), [str(folder)])) as live,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(live, "secret", port), log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/?token=secret"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


@contextlib.contextmanager
def started(folder):
    """Yield (process, address) of an explorer, as the command line starts it."""
    command = [sys.executable, "-m", "tastemaker", "explore", str(folder), "--no-browser", "--originals", "/"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        yield process, address
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def opened(browser, address, **options):
    """Yield a page that shows the explorer; anything that the page's own code throws fails the test."""
    introduced = [{"name": "tastemaker", "value": '{"isIntroduced": true}'}]
    state = {"cookies": [], "origins": [{"origin": address.partition("/?")[0], "localStorage": introduced}]}
    context = browser.new_context(viewport={"width": 1440, "height": 900}, storage_state=state, **options)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: message.type == "error" and "status of 4" not in message.text and errors.append(message.text),
    )
    try:
        page.goto(address)
        page.wait_for_selector("body.ready", timeout=30_000)
        yield page
        assert errors == []
    finally:
        context.close()


def wait_until(page, condition, timeout_s=15.0):
    """Wait until an expression is true in the page. Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        time.sleep(0.03)


def text_of(page, selector):
    return page.locator(selector).inner_text()


class Table(NamedTuple):
    """Rows, the scores in them, and the address of an explorer of them that many tests look at."""

    folder: Path
    scores: np.ndarray
    address: str


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Rows of 250,000 pictures that are nowhere: higher than a browser scrolls."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("many")
    path = write_large_table(folder, [5.0])
    row = pq.read_table(path)
    number = 250_000
    rng = np.random.default_rng(4)
    scores = rng.normal(5.2, 0.6, number).astype(np.float32)
    table = row.take(pa.array(np.zeros(number, np.int64)))
    columns = {
        "aesthetic_score": pa.array(scores),
        "image_id": pa.array(np.char.add("picture-", np.arange(number).astype(str))),
        "width": pa.array(rng.integers(300, 1600, number).astype(np.int32)),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path, row_group_size=65_536)
    with served(folder) as address:
        yield Table(folder, scores, address)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The rows of sixty pictures, with captions that are hostile, and of two failures."""
    scores = np.round(np.random.default_rng(1).normal(5.3, 0.6, 60), 3).astype(np.float32)
    folder = write_table(tmp_path_factory.mktemp("small"), [float(score) for score in scores], HOSTILE)
    days = [datetime(2024, 5, 1) + timedelta(hours=7 * number % 61) for number in range(60)]
    set_column(folder, "captured_at", pa.array([*days, None, None], pa.timestamp("us")))
    set_column(folder, "camera", pa.array(["Canon EOS R5", "NIKON Z 8", None] * 20 + [None, None]))
    with served(folder) as address:
        yield Table(folder, scores, address)
