"""Who is let in, and what is ever served."""

import base64
import json
import re
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from explorer.table import SCORES
from tastemaker.explorer.live import Live
from tastemaker.explorer.server import create_app

TOKEN, PORT = "a-token", 8765
BASE = f"http://127.0.0.1:{PORT}"
EVERY_PLACE = ",".join(map(str, range(len(SCORES))))
EVERY_ADDRESS = [
    "/",
    "/static/app.js",
    "/static/look.css",
    "/favicon.ico",
    "/picture/0/200",
    "/api/table",
    "/api/view",
    "/api/rows?places=3,1",
    "/api/order?order=name",
    "/api/facets",
    "/api/cutoff?cut=3",
    "/api/picture/0",
    "/api/neighbours/0",
    "/api/slices?dimension=shape",
    "/api/failures",
    "/api/failures/rows?kind=x",
    "/api/export",
]


@pytest.fixture
def stranger(explorer):
    return TestClient(create_app(Live(lambda: explorer), TOKEN, PORT), base_url=BASE)


@pytest.fixture
def page(stranger):
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    stranger.headers["origin"] = BASE
    return stranger


def test_nothing_is_served_without_the_token(stranger):
    wrong = [
        {},
        {"cookie": f"tastemaker_{PORT}=wrong"},
        {"cookie": "tastemaker_1=a-token"},
    ]
    for address in EVERY_ADDRESS:
        for headers in wrong:
            answer = stranger.get(address, headers=headers)
            assert (answer.status_code, len(answer.content) < 200) == (403, True), (address, headers)
        assert stranger.get(address.partition("?")[0], params={"token": "wrong"}).status_code == 403, address


def test_the_first_visit_leaves_a_cookie_that_scripts_and_other_sites_do_not_get(stranger):
    answer = stranger.get(f"/?token={TOKEN}")
    assert answer.headers["set-cookie"] == f"tastemaker_{PORT}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert stranger.get("/api/table").status_code == 200


def test_a_foreign_host_is_refused_with_the_token_too_and_the_names_of_this_machine_are_taken(page):
    for host in ("127.0.0.1:8765", "localhost:8765", "LOCALHOST:9999", "[::1]:8765", "localhost"):
        assert page.get("/api/table", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example:8765", "", "10.0.0.7:8765"):
        assert page.get("/api/table", headers={"host": host}).status_code == 403, host
        assert page.get(f"/?token={TOKEN}", headers={"host": host}).status_code == 403, host


def test_another_page_can_change_nothing(page, explorer):
    del page.headers["origin"]
    for origin in (None, "http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765"):
        headers = {} if origin is None else {"origin": origin}
        for address in ("/api/ratings", "/api/export", "/api/export/stop"):
            body = {"row": 0, "stars": 5, "rejected": False, "to": "/tmp/x", "as": "folder", "number": 0}
            assert page.post(address, json=body, headers=headers).status_code == 403, (origin, address)
    assert not explorer.marks.current()


def test_another_page_cannot_even_embed(page):
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert page.get("/picture/0/200", headers=headers).status_code == 403


def test_every_answer_has_the_headers_of_a_guarded_page(page, stranger):
    for answer in (page.get("/"), page.get("/picture/0/200"), page.get("/nowhere"), page.get("/api/rows?places=x")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


PATHS_OUT = [
    "/static/../server.py",
    "/static/..%2fserver.py",
    "/static/%2e%2e/server.py",
    "/../../etc/passwd",
    "/static//etc/passwd",
    "/picture/..%2f..%2fetc%2fpasswd/200",
    "/picture/-1/200",
    "/picture/0/../../../etc/passwd",
    "/picture/1e3/400",
    "/static/index.html%00.js",
    "/static/",
    "/static/nothing.js",
    "/picture/99999/200",
    "/picture/999999999999999999999/200",
]


def test_no_address_reaches_the_file_system(page):
    for path in PATHS_OUT:
        answer = page.get(path)
        assert answer.status_code in (400, 404), path
        assert b"root:" not in answer.content
        assert b"import" not in answer.content


def test_the_page_has_no_inline_script_or_style_and_loads_nothing_from_elsewhere():
    folder = files("tastemaker.explorer") / "static"
    for file in folder.iterdir():
        text = file.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org)", text), file.name
        assert "innerHTML" not in text, file.name
        if file.name.endswith(".html"):
            assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", text), file.name


def test_pictures_are_jpegs_made_here_whatever_the_original_is(page):
    for address in ("/picture/0/200", "/picture/1/800"):
        answer = page.get(address)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content[:3] == b"\xff\xd8\xff"
    broken = page.get(f"/picture/{len(SCORES)}/200")
    assert broken.status_code == 404
    assert broken.headers["content-type"].startswith("text/plain")
    assert b"alert" not in broken.content


def test_the_page_gets_rows_details_slices_and_failures(page):
    rows = page.get("/api/rows?places=0,1,2").json()
    assert [round(row["score"], 3) for row in rows] == sorted(SCORES, reverse=True)[:3]
    picture = page.get(f"/api/picture/{rows[0]['row']}").json()
    assert (picture["rank"], picture["of"], picture["caption"]) == (1, len(SCORES), "a picture 5")
    assert picture["percentile"] == pytest.approx(100 * 11 / 12)
    assert json.loads(dict(picture["sidecars"])["json"]) == {"licence": "CC0", "number": 5}
    assert page.get("/api/failures").json() == [
        {"kind": "not_an_image", "reason": "not an image", "status": "failed", "images": 2}
    ]
    failed = page.get("/api/failures/rows", params={"kind": "not_an_image"}).json()
    assert [row["image_id"] for row in failed] == ["broken0", "broken1"]
    assert page.get("/api/view").json()["unscored"] == 2
    assert len(base64.b64decode(page.get("/api/view").json()["shapes"])) == 2 * len(SCORES)
    assert len(page.get("/api/neighbours/0").json()) == len(SCORES) - 1
    assert "json: licence" in page.get("/api/slices").json()["dimensions"]


def test_ratings_are_saved_from_the_page(page, explorer):
    def rate(*changes):
        return page.post("/api/ratings", json={"changes": changes}).json()

    saved = rate({"row": 3, "stars": 4}, {"row": 5, "label": "red"})
    place = sorted(range(len(SCORES)), key=lambda row: (-SCORES[row], row)).index(3)
    rated = {"row": 3, "stars": 4, "rejected": False, "label": "", "said_by": "page", "place": place}
    assert saved == [rated, {"row": 5, "stars": 0, "rejected": False, "label": "red", "said_by": "", "place": 0}]
    assert page.get("/api/view").json()["rated"] == [place]
    assert rate({"row": 3, "rejected": True})[0]["stars"] == 4
    shown = {row["row"]: (row["stars"], row["rejected"]) for row in page.get(f"/api/rows?places={EVERY_PLACE}").json()}
    assert shown[3] == (4, True)
    rate({"row": 3, "stars": 0, "rejected": False}, {"row": 5, "label": ""})
    assert not explorer.marks.current()


def test_what_is_no_rating_is_refused(page, explorer):
    sound = b'{"row": 1, "stars": 1}'
    wrong = [
        b'{"row": "x", "stars": 1}',
        b'{"row": 99, "stars": 1, "rejected": false}',
        b'{"row": 2, "label": "plaid"}',
        b'{"row": 2, "stars": 6}',
    ]
    for body in [b"", b"[]", b"{", b"[" * 60_000, *(b'{"changes": [%s, %s]}' % (sound, one) for one in wrong)]:
        assert page.post("/api/ratings", content=body).status_code == 400, body[:50]
    assert page.post("/api/taste/save", json={"to": "~no-such-user/mine.safetensors"}).status_code == 400
    assert not explorer.marks.current()


def test_wrong_filters_and_numbers_are_answered_with_a_sentence(page):
    for address in (
        "/api/view?where=width+%3E",
        "/api/view?by=caption",
        "/api/view?rated=7",
        "/api/view?camera=Canon",
        "/api/facets?searches=[",
        "/api/order?order=caption",
        "/api/cutoff?cut=nan",
        "/api/slices?dimension=nothing",
        "/api/picture/14",
        "/api/neighbours/999999999999",
        f"/api/rows?places={'9' * 5000}",
    ):
        answer = page.get(address)
        assert answer.status_code == 400, address
        assert len(answer.json()["error"]) > 10


def test_a_filter_writes_nothing_and_reads_no_file(page, tmp_path):
    out = tmp_path / "out.csv"
    for where in (
        "formt = 'JPEG'",
        "1=1) OR (1=1",
        f"1=1; COPY rows TO '{out}'",
        f"EXISTS (FROM query($$COPY rows TO '{out}'$$))",
        "row_id IN (SELECT 1 FROM read_csv('/etc/passwd'))",
        "(SELECT count(*) FROM glob('/etc/*')) > 0",
        "EXISTS (SELECT * FROM sniff_csv('/etc/passwd'))",
        "(SELECT getenv('HOME')) IS NOT NULL",
        "true) UNION SELECT (1",
        "(SELECT count(*) FROM range(100000000000) t(i) WHERE i % 3 = 1) > 0",
    ):
        assert page.get("/api/view", params={"where": where}).status_code == 400, where
        assert not out.exists()


def test_rows_that_are_gone_are_told_and_are_no_error_of_the_server(page, scores):
    for file in scores.glob("*.parquet"):
        file.unlink()
    answer = page.get("/api/picture/0")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("the rows cannot be read: ")
