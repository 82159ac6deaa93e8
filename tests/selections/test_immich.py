"""The hand-over to Immich: against a server that answers as its API is documented (version 2)."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tastemaker import RunOptions, ScoreTable, run_scoring
from tastemaker.scores.marks import Marks

pytestmark = pytest.mark.network
SCRIPT = Path(__file__).parents[2] / "examples" / "rate_in_immich.py"


class Immich(BaseHTTPRequestHandler):
    """`POST /api/assets/bulk-upload-check` and `PUT /api/assets`, with their checks of what is asked."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.body()
        results = [{"id": asset["id"], **self.look_up(asset["checksum"])} for asset in body["assets"]]
        self.answer(200 if self.path == "/api/assets/bulk-upload-check" else 404, {"results": results})

    def do_PUT(self):
        body, rated = self.body(), self.server.rated
        is_sound = body["ids"] and all(uuid.UUID(one) for one in body["ids"]) and body["rating"] in (1, 2, 3, 4, 5)
        rated.update(dict.fromkeys(body["ids"], body["rating"]))
        self.answer(204 if self.path == "/api/assets" and is_sound else 400)

    def look_up(self, checksum):
        wanted = bytes.fromhex(checksum) if len(checksum) == 40 else base64.b64decode(checksum)
        asset = self.server.uploads.get(wanted)
        if asset is None:
            return {"action": "accept"}
        return {"action": "reject", "reason": "duplicate", "assetId": asset, "isTrashed": asset in self.server.trash}

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status, body=None):
        if self.headers["x-api-key"] != "secret":
            status, body = 401, {"message": "Invalid API key"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode() if body else b"")


@pytest.fixture
def immich():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Immich)
    server.uploads, server.trash, server.rated = {}, set(), {}
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_pictures_in_immich_get_the_stars_of_the_explorer_and_of_their_scores(
    tmp_path, photo_folder, model_dir, immich
):
    run_scoring([str(photo_folder)], tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    table = ScoreTable(tmp_path / "scores")
    rows = {
        Path(row["image_path"]): row["row_id"]
        for row in table.take(range(len(table)), ["row_id", "image_path"]).to_pylist()
    }
    by_hand, rejected, elsewhere, in_trash, by_score = list(rows)[:5]
    marks = Marks(table)
    marks.change({rows[by_hand]: {"stars": 2}})
    marks.change({rows[rejected]: {"rejected": True}})
    for path in rows.keys() - {elsewhere}:
        immich.uploads[hashlib.sha1(path.read_bytes()).digest()] = str(uuid.uuid4())
    ids = {path: immich.uploads.get(hashlib.sha1(path.read_bytes()).digest()) for path in rows}
    immich.trash.add(ids[in_trash])

    def run(*options, key="secret"):
        command = [sys.executable, SCRIPT, tmp_path / "scores", f"http://127.0.0.1:{immich.server_port}/", *options]
        environment = {**os.environ, "IMMICH_API_KEY": key}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    planned = run("--dry-run")
    assert (planned.returncode, immich.rated) == (0, {})
    done = run()
    assert done.stdout.splitlines()[0] == planned.stdout.splitlines()[0] + "and have their stars", done.stderr
    assert f"not there: {elsewhere}" in done.stdout
    assert immich.rated.keys() == {ids[path] for path in rows.keys() - {rejected, elsewhere, in_trash}}
    assert immich.rated[ids[by_hand]] == 2
    assert immich.rated[ids[by_score]] in range(1, 6)
    assert "401" in run(key="wrong").stderr
