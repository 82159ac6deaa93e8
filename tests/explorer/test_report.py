"""The report: one page that loads nothing, whose numbers are the table's, and whose pictures are there or excused."""

import base64
import hashlib
import html
import io
import json
import re
from datetime import date
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from command import tastemaker
from conftest import encode
from PIL import Image
from rows import make_image, mark_as_gone, write_rows

from explorer.table import encode_picture, write_table
from tastemaker import ConfigurationError, ScoreTable, Selection, write_report
from tastemaker.errors import ReasonKind
from tastemaker.explorer import report
from tastemaker.explorer.report_data import gather
from tastemaker.imaging.signals import SIGNAL_NAMES
from tastemaker.imaging.tars import Member
from tastemaker.runs.options import RunOptions
from tastemaker.scores.cutoff import Top
from tastemaker.scores.marks import Marks
from tastemaker.selections.filter import filter_images
from tastemaker.selections.selection import choose_rows

HOSTILE = "</script><script>alert('1')</script><img src=x onerror=alert(2)> & \"quoted\""
MADE_BY = {"tastemaker": "0.1.0", "precision": "bf16", "predictor_sha256": "b0d5", "options": {"signals": False}}


class Page(HTMLParser):
    """What a browser would find in a page."""

    VOID = frozenset({"meta", "img", "link", "br", "input", "path", "use", "wbr"})

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag, **attributes):
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in attributes.items())]

    def pictures(self):
        return [a for a in self.all("img") if a["src"].startswith("data:image/jpeg;base64,")]

    def section(self, name):
        """Return the source of the section with this heading's id."""
        start = self.source.index(f'<section aria-labelledby="{name}">')
        return self.source[start : self.source.index("</section>", start)]


def rows_of(table):
    """Return the cells of each row of every table in some HTML, as text."""
    lines = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", line, re.DOTALL) for line in lines]
    return [[" ".join(html.unescape(re.sub(r"<[^>]*>", "", cell)).split()) for cell in row] for row in cells]


def photo(number, folder, score, size=(64, 48), data=None, **more):
    """Return a loose picture as a row, and write it."""
    data = data or encode_picture(number, *size)
    path = folder / f"{number:03d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    image = make_image(number, score, width=size[0])
    named = {"image_id": path.stem, "image_path": str(path), "member": Member(str(path), 0, len(data))}
    vars(image).update({"height": size[1], **named, **more})
    return image


def failed_row(number, kind, reason="unreadable"):
    image = make_image(number, None, failed=True, reason=reason, reason_kind=kind)
    image.image_path = f"photos/bad-{number}.jpg"
    return image


@pytest.fixture
def scores(tmp_path):
    """Scores of 60 small pictures, 2 to 7.9, and of 5 that could not be read."""
    rows = [photo(n, tmp_path / "photos", 2 + n / 10) for n in range(60)]
    rows += [failed_row(n, ReasonKind.DAMAGED) for n in range(3)]
    rows += [failed_row(n, ReasonKind.NOT_AN_IMAGE) for n in (3, 4)]
    write_rows(tmp_path / "scores" / "a.parquet", rows, provenance=MADE_BY)
    return tmp_path / "scores"


def make(scores, tmp_path, name="report.html", **options):
    summary = write_report(scores, tmp_path / name, originals=tmp_path, **options)
    return summary, Page(tmp_path / name)


def test_the_page_loads_nothing_from_outside_and_runs_only_its_own_script(scores, tmp_path):
    _, page = make(scores, tmp_path)
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "data", "srcset", "action", "poster") if k in a]
    assert len(addresses) > 60
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in addresses)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*", "", page.source)
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert [a for a in page.all("button") if "hidden" not in a and a.get("id") != "back"] == []  # without it, nothing
    assert [a for a in page.all("div") if a.get("class") == "moved" and "hidden" in a]
    assert not page.all("input")


def test_its_numbers_are_those_of_the_table(scores, tmp_path):
    summary, page = make(scores, tmp_path, min_score=5.5)
    table = ScoreTable(scores)
    kept, scored = (
        table.query(f"SELECT count(*) FROM rows WHERE aesthetic_score >= {least}").column(0)[0].as_py()
        for least in ("5.5::FLOAT", "-1")
    )
    assert (summary.kept, summary.scored, summary.pictures, summary.missing) == (kept, scored, 60, 0)
    assert f"At 5.50 you keep 41.7% of {scored} images." in page.text
    assert "65 images, 5 of them without a score" in page.text

    keep, customary, percentiles = page.section("cutoffs").split("</table>")[:3]
    for label, images, cutoff in rows_of(keep)[1:]:
        wanted = {"keep": int(label)} if label.isdecimal() else {"top": int(label[:-1]) / 100}
        assert int(images) == table.cutoff(**wanted).kept == table.cutoff(min_score=float(cutoff)).kept
    for least, images, share in rows_of(customary)[1:]:
        found = table.cutoff(min_score=float(least))
        assert (int(images), share) == (found.kept, f"{100 * found.share:.1f}%")
    for percentile, value in rows_of(percentiles)[1:]:
        exact = table.query(f"SELECT quantile_cont(aesthetic_score, {int(percentile) / 100}) FROM rows").column(0)[0]
        assert float(value) == pytest.approx(exact.as_py(), abs=0.0051)


def test_equal_scores_at_the_cut_are_told_and_the_first_are_kept(tmp_path):
    write_rows(tmp_path / "a.parquet", [photo(n, tmp_path / "p", 5.0) for n in range(30)])
    summary, page = make(tmp_path / "a.parquet", tmp_path, top="20%")
    assert summary.kept == 6
    assert "24 more images have just the score at the cut" in page.text
    above = page.source[
        page.source.index("just above") : page.source.index("</section>", page.source.index("just above"))
    ]
    assert sorted(re.findall(r'title="(\d+)\.jpg"', above)) == [f"{n:03d}" for n in range(6)]


def test_what_strangers_wrote_is_text(tmp_path):
    rows = [photo(n, tmp_path / "p", 5 + n / 10) for n in range(4)]
    for row in rows:
        row.image_id = HOSTILE
    rows[0].sidecars = {"txt": HOSTILE.encode()}
    rows.append(failed_row(0, ReasonKind.DAMAGED, f"unreadable: {HOSTILE}"))
    made_by = {"precision": HOSTILE, "options": {HOSTILE: HOSTILE}}
    write_rows(tmp_path / "a.parquet", rows, provenance=made_by)
    _, page = make(tmp_path / "a.parquet", tmp_path, title=HOSTILE)
    assert page.source.count("<script") == 1
    assert not [a for a in page.all("img") if a["src"] == "x"]
    assert HOSTILE in {a["alt"] for a in page.pictures()}
    assert HOSTILE in page.text


def test_a_page_of_many_large_pictures_stays_below_its_size(tmp_path, monkeypatch):
    assert report.MAX_BYTES == 20_000_000
    monkeypatch.setattr(report, "MAX_BYTES", 4_000_000)
    rng = np.random.default_rng(0)
    data = encode(rng.integers(0, 256, (400, 600, 3), np.uint8), "JPEG", quality=95)  # noise: hardly compressed
    rows = [photo(n, tmp_path / "noise", 3 + n / 25, (600, 400), data) for n in range(100)]
    write_rows(tmp_path / "a.parquet", rows)
    summary, page = make(tmp_path / "a.parquet", tmp_path, samples=10)
    assert summary.bytes == (tmp_path / "report.html").stat().st_size
    assert summary.bytes <= 4_000_000
    assert summary.missing == 0
    assert len(page.pictures()) > 100


def test_no_picture_is_cropped_or_enlarged_whatever_its_shape(tmp_path):
    sizes = [(1600, 80), (80, 1600), (64, 48), (1200, 900)]
    write_rows(tmp_path / "a.parquet", [photo(n, tmp_path / "p", 5.0 + n, size) for n, size in enumerate(sizes)])
    _, page = make(tmp_path / "a.parquet", tmp_path)
    sizes_shown = {}
    for shown in page.pictures():
        small = Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2])))
        assert small.size == (int(shown["width"]), int(shown["height"]))
        sizes_shown[shown["alt"].partition(",")[0]] = (small.size, "class" in shown)
    assert sizes_shown == {
        "000.jpg": ((1440, 72), True),
        "001.jpg": ((16, 320), True),
        "002.jpg": ((64, 48), False),
        "003.jpg": ((427, 320), False),
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_samples(scores, tmp_path):
    first, again, other = (
        Path(make(scores, tmp_path, f"{number}.html", seed=seed, samples=2)[0].path).read_bytes()
        for number, seed in enumerate((0, 0, 1))
    )
    assert first == again
    samples = [
        re.sub(rb"seed \d", b"", page[page.index(b'id="samples"') : page.index(b'id="best"')])
        for page in (first, other)
    ]
    assert samples[0] != samples[1]


def test_the_date_is_that_of_the_run_or_the_one_that_is_said(scores, tmp_path):
    run_file = scores / "_tastemaker" / "run.json"
    run_file.parent.mkdir()
    run_file.write_text(json.dumps({"started": "2026-03-09T23:30:00+00:00"}))
    assert "9 March 2026" in make(scores, tmp_path)[1].text
    assert "1 May 2025" in make(scores, tmp_path, made_on=date(2025, 5, 1))[1].text
    run_file.write_text("{")
    assert re.search(r"· \d+ \w+ 20\d\d ·", make(scores, tmp_path)[1].text)


def test_sources_that_are_gone_changed_or_broken_keep_their_place(tmp_path):
    folder = tmp_path / "p"
    rows = [photo(n, folder, 5.0 + n / 10) for n in range(6)]
    rows[5].width, rows[5].height = 480, 640  # another picture lies there now
    (folder / "000.jpg").unlink()
    (folder / "001.jpg").write_bytes((folder / "001.jpg").read_bytes() + b"more")
    (folder / "002.jpg").write_bytes(bytes(rows[2].member.size))
    rows[3].image_path = f"{tmp_path}/gone.tar/3.jpg"
    rows[3].shard = f"{tmp_path}/gone.tar"
    write_rows(tmp_path / "a.parquet", rows)
    summary, page = make(tmp_path / "a.parquet", tmp_path)
    assert (summary.pictures, summary.missing) == (6, 5)
    labels = {a["aria-label"] for a in page.all("div", role="img")}
    assert {label.partition(",")[0] for label in labels} == {"000.jpg", "001.jpg", "002.jpg", "3.jpg", "005.jpg"}
    assert {label.partition(": ")[2] for label in labels} == {
        "the file is gone",
        "the file has changed since it was scored",
        "not an image in a known format (it starts with b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00')",
    }


def test_slices_tell_what_the_cut_keeps_of_them_the_farthest_first(tmp_path):
    rows = [photo(n, tmp_path / "wide", 4.0 + n / 100, (96, 32)) for n in range(50)]  # none passes
    rows += [photo(n, tmp_path / "square", 6.0 + n / 100, (48, 48)) for n in range(10)]  # all pass
    rows += [photo(n, tmp_path / "mixed", 5.9 if n % 2 else 4.0, (64, 48)) for n in range(40)]
    write_rows(tmp_path / "a.parquet", rows)
    _, page = make(tmp_path / "a.parquet", tmp_path, min_score=5.5)
    section = page.section("slices")
    assert "The cut keeps 30.0% of all." in section
    found = [[[row[0], *row[1::2]] for row in rows] for rows in map(rows_of, section.split("</table>")[:-1])]
    assert [rows[0][0] for rows in found] == ["Shape", "Source"]  # all are of one size and format
    assert found[1][1:] == [
        ["square", "10", "100.0%", "+70.0"],
        ["wide", "50", "0.0%", "\u221230.0"],
        ["mixed", "40", "50.0%", "+20.0"],
    ]


def test_a_cut_in_each_slice_stands_beside_the_cut_of_the_whole(tmp_path):
    rows = [photo(n, tmp_path / "sharp", 6.0 + n / 100, (48, 48), format="PNG") for n in range(10)]
    rows += [photo(n, tmp_path / "soft", 4.0 + n / 100, (48, 48), format="JPEG") for n in range(30)]
    write_rows(tmp_path / "a.parquet", rows)
    summary, page = make(tmp_path / "a.parquet", tmp_path, top="20%", per="format")
    found = [(part.name, part.scored, part.kept, part.kept_per) for part in summary.slices]
    assert found == [("PNG", 10, 8, 2), ("JPEG", 30, 0, 6)]
    chosen = choose_rows(ScoreTable(tmp_path / "a.parquet"), Selection(top=Top(share=0.2), per="format"))
    assert len(chosen) == 8
    section = page.section("per")
    assert "keeps 8 images" in section
    assert "--top 20% --per format --to kept" in section
    assert [[*row[:4], *row[5:]] for row in rows_of(section)[1:]] == [
        ["PNG", "10", "80.0%", "20.0%", "\u221260.0", "6.08"],
        ["JPEG", "30", "0.0%", "20.0%", "+20.0", "4.24"],
    ]
    with pytest.raises(ConfigurationError, match="with top"):
        write_report(tmp_path / "a.parquet", tmp_path / "b.html", min_score=5.0, per="format")
    by_field = ("--top", "20%", "--per", "field('format')", "-o", tmp_path / "b.html")
    result = tastemaker("report", tmp_path / "a.parquet", *by_field)
    assert [line.split() for line in result.stdout.splitlines()[1:4]] == [
        ["slice", "images", "keeps", "with", "--per"],
        ["PNG", "10", "80.0%", "20.0%"],
        ["JPEG", "30", "0.0%", "20.0%"],
    ]


def test_every_section_is_there_and_headings_are_in_order(scores, tmp_path):
    _, page = make(scores, tmp_path)
    for name in ("distribution", "borderline", "cutoffs", "samples", "best", "worst", "failures", "provenance"):
        assert page.all("h2", id=name), name
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert "predictor sha256 b0d5" in page.text
    assert "options: signals False" in page.text
    bands = re.findall(r"<h3>([\d.]+)–([\d.]+)", page.section("samples"))
    assert bands[0] == ("7.5", "8.0")
    assert all(float(high) - float(low) == 0.5 for low, high in bands)
    assert len(bands) == 12
    failures = rows_of(page.section("failures"))[1:]
    assert failures[0] == ["3", "damaged", "photos/bad-0.jpgphotos/bad-1.jpgphotos/bad-2.jpg"]
    assert failures[1] == ["2", "not an image", "photos/bad-3.jpgphotos/bad-4.jpg"]


@pytest.mark.parametrize(
    ("numbers", "finding"),
    [
        ([], "There are no images in these scores."),
        ([None, None], "None of the 2 images could be read."),
        ([float("nan")] * 3, "None of the 3 images has a score."),
        ([5.0], "At 5.00 you keep 100% of 1 image."),
        ([5.0, float("inf"), float("-inf"), 30.0], "At inf you keep 25% of 4 images."),
    ],
    ids=["none", "failed", "nan", "one", "infinite"],
)
def test_odd_tables_have_a_report(tmp_path, numbers, finding):
    rows = [
        failed_row(n, ReasonKind.NOT_AN_IMAGE) if score is None else photo(n, tmp_path / "p", score)
        for n, score in enumerate(numbers)
    ]
    write_rows(tmp_path / "a.parquet", rows)
    summary, page = make(tmp_path / "a.parquet", tmp_path)
    assert summary.finding == finding
    assert finding in page.text


def test_a_run_by_technical_quality_is_reported_as_what_it_is(tmp_path):
    rows = [photo(n, tmp_path / "p", None) for n in range(10)]
    write_rows(tmp_path / "a.parquet", rows, signals=True, provenance={"fingerprint": {"rank_by": "technical_quality"}})
    summary, page = make(tmp_path / "a.parquet", tmp_path)
    assert summary.column == "technical_quality"
    assert "which is no aesthetic score" in page.text
    assert "LAION" not in page.text


def test_a_run_is_reported_by_the_cut_that_filter_made(tmp_path):
    for n in range(8):
        photo(n, tmp_path / "photos", 5.0)
    options = RunOptions(rank_by="technical_quality", signals=True)
    filter_images([str(tmp_path / "photos")], tmp_path / "out", Selection(top=Top(share=0.75)), options)
    summary, page = make(tmp_path / "out", tmp_path)
    assert (summary.column, summary.kept) == ("technical_quality", 6)
    assert "The cut is the one that filter made." in page.text


def test_wrong_options_and_names_are_refused(scores, tmp_path):
    for options in ({"samples": 0}, {"samples": 101}, {"min_score": 5.0, "top": "20%"}, {"top": "many"}):
        with pytest.raises(ConfigurationError):
            write_report(scores, tmp_path / "report.html", **options)
    with pytest.raises(ConfigurationError, match="a cut-off is a score"):
        write_report(scores, tmp_path / "report.html", min_score=float("nan"))
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(OSError, match="name too long") as error:
        write_report(scores, tmp_path / ("x" * 300))
    assert error.value.filename == str(tmp_path / ("x" * 300))


def test_the_command_writes_the_page_and_says_the_finding(scores, tmp_path):
    page = tmp_path / "made" / "report.html"
    command = ("report", scores, "--output", page, "--cut-off", "6.5", "--seed", "3")
    result = tastemaker(*command)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("At 6.50 you keep 25% of 60 images.\n")
    assert "seed 3" in Page(page).text
    result = tastemaker(*command, "--json")
    assert json.loads(result.stdout)["bytes"] == page.stat().st_size


def test_pictures_that_are_gone_are_told_and_count_nowhere(tmp_path):
    folder = write_table(tmp_path)
    (path,) = folder.glob("*.parquet")
    mark_as_gone(path, [5, 12])
    summary, page = make(folder, tmp_path, min_score=5.0)
    assert summary.scored == sum(int(row[1]) for row in rows_of(page.source.split("<details")[1])[1:]) == 11
    assert "12 images, 1 of them without a score · 2 more are gone since" in page.text
    shown = set(re.findall(r'title="(p\d+)\.jpg"', page.source))
    assert shown - {"p00005"} == shown != set()  # it would be the only one of its band
    assert [row[0] for row in rows_of(page.section("failures"))[1:]] == ["1"]


def test_rejected_pictures_are_told_and_are_in_no_number_and_no_row(tmp_path):
    folder = write_table(tmp_path)
    table = ScoreTable(folder)
    marks = Marks(table)
    marks.change({5: {"rejected": True}})  # the best
    marks.close()
    summary, page = make(folder, tmp_path, top="25%")
    assert (summary.scored, summary.kept) == (11, len(choose_rows(table, Selection(top=Top(share=0.25)))))
    assert "1 rejected and not counted below" in page.text
    shown = set(re.findall(r'title="(p\d+)\.jpg"', page.source))
    assert shown - {"p00005"} == shown != set()  # it would be the only one of its band


def test_no_two_frames_of_a_stack_stand_side_by_side(tmp_path):
    images = [make_image(number, 9 - number / 10) for number in range(24)]
    for number, image in enumerate(images):
        image.embedding = np.eye(1, 768, number // 3, dtype=np.float32)[0]  # stacks of three
        image.signals = dict.fromkeys(SIGNAL_NAMES, 0.5) | {"subject_sharpness": 0.2 if number % 3 == 1 else 0.1}
    data = gather(ScoreTable(write_rows(tmp_path / "a.parquet", images, embeddings=True, signals=True)), samples=4)
    assert (data.best, data.worst) == ([1, 4, 7, 10], [22, 19, 16, 13])
    for band in data.bands:
        assert len({row // 3 for row in band.row_ids}) == len(band.row_ids)
