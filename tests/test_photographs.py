"""A photographer's folder, from scoring to kept copies: pairs, sidecars, ratings, files that need an extra."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from camera_files import make_dng
from conftest import encode, make_tar
from PIL import Image, ImageCms
from tiny import copies

from tastemaker import ScoreTable, Selection, select_images
from tastemaker.imaging.xmp import make_xmp
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.selections.filter import filter_images

rawpy = pytest.importorskip("rawpy")
pillow_heif = pytest.importorskip("pillow_heif")
ALL = Selection(where="status = 'kept'")
PIXELS = np.linspace(0, 255, 320 * 240 * 3).reshape(240, 320, 3).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """IMG_1 as raw and JPEG with every kind of sidecar, IMG_2 as HEIC and JPEG."""
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(heic)
    files = {
        "IMG_1.DNG": make_dng((640, 480), encode(PIXELS, "JPEG")),
        "IMG_1.JPG": encode(PIXELS[::-1].copy(), "JPEG"),
        "IMG_1.xmp": make_xmp(4, "DNG"),
        "IMG_1.JPG.xmp": make_xmp(2),
        "IMG_1.DNG.pp3": b"[Version]\nAppVersion=5.8\n",
        "IMG_2.HEIC": heic.getvalue(),
        "IMG_2.JPG": encode(PIXELS, "JPEG"),
        "IMG_2.AAE": b"<plist/>",
    }
    (tmp_path / "photos").mkdir()
    for name, data in files.items():
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path / "photos"


def score(inputs, output, model_dir):
    run_scoring([str(inputs)], output, RunOptions(model_dir=str(model_dir)))
    columns = ["image_id", "format", "rating", "camera", "has_gps", "status", "metadata"]
    return pq.read_table(output / "rows", columns=columns).to_pylist()


def keep_all(inputs, output, model_dir, kind):
    """Filter such that all pass; return what was kept."""
    found = filter_images([str(inputs)], output, ALL, RunOptions(model_dir=str(model_dir)), kind=kind)
    assert found.selection.skipped == {}
    return copies(output / "kept")


def test_pairs_are_two_rows_with_two_keys_and_their_own_ratings(folder, tmp_path, model_dir):
    rows = {row["image_id"]: row for row in score(folder, tmp_path / "out", model_dir)}
    assert {key: (row["format"], row["rating"]) for key, row in rows.items()} == {
        "IMG_1.DNG": ("DNG", 4),
        "IMG_1": ("JPEG", 2),
        "IMG_2.HEIC": ("HEIC", None),
        "IMG_2": ("JPEG", None),
    }
    assert rows["IMG_1.DNG"]["metadata"] == '{"raw_pixels": "preview"}'
    assert rows["IMG_1"]["metadata"] is None
    assert (rows["IMG_1.DNG"]["camera"], rows["IMG_1.DNG"]["has_gps"]) == ("Handmade Model", False)
    assert (rows["IMG_1"]["camera"], rows["IMG_1"]["has_gps"]) == (None, None)
    made_by = pq.read_schema(tmp_path / "out" / "rows" / "photos-00000.parquet").metadata[b"tastemaker"]
    assert b'"rawpy"' in made_by
    assert b'"pillow-heif"' in made_by


def test_pairs_and_shared_sidecars_come_out_byte_for_byte_in_a_folder(folder, tmp_path, model_dir):
    assert keep_all(folder, tmp_path / "out", model_dir, "folder") == copies(folder)


def edit_sidecars(folder):
    """What happens after scoring: one sidecar is edited, one deleted, two are new."""
    (folder / "IMG_1.JPG.xmp").write_bytes(make_xmp(5) + b"<!-- edits -->")
    (folder / "IMG_1.xmp").unlink()
    (folder / "IMG_2.JPG.xmp").write_bytes(make_xmp(3))
    (folder / "IMG_2.HEIC.XMP").write_bytes(make_xmp(1))


@pytest.mark.parametrize("kind", ["folder", "links"])
def test_selected_copies_have_the_xmp_that_lies_beside_the_picture_now(folder, tmp_path, model_dir, kind):
    score(folder, tmp_path / "scores", model_dir)
    edit_sidecars(folder)
    summary = select_images(ScoreTable(tmp_path / "scores"), tmp_path / "best", ALL, kind=kind)
    assert (summary.written, summary.skipped) == (4, {})
    assert copies(tmp_path / "best") == copies(folder)


def test_an_edited_xmp_is_copied_again_when_the_cut_is_taken_again(folder, tmp_path, model_dir):
    for _ in range(2):
        kept = keep_all(folder, tmp_path / "out", model_dir, "folder")
        assert kept == copies(folder)
        edit_sidecars(folder)
        (folder / "IMG_1.xmp").touch()
        (folder / "new.jpg").write_bytes(encode(PIXELS[:, ::-1].copy(), "JPEG"))


def test_pairs_in_one_tar_stay_two_samples_and_lose_nothing_when_they_are_read_again(folder, tmp_path, model_dir):
    filter_images([str(folder)], tmp_path / "out", ALL, RunOptions(model_dir=str(model_dir)), kind="webdataset")
    kept = keep_all(tmp_path / "out" / "kept", tmp_path / "again", model_dir, "folder")
    assert [path.name for path in (tmp_path / "out" / "kept").glob("*.tar")] == ["images-000000.tar"]
    assert pq.read_table(tmp_path / "again" / "rows").num_rows == 4
    assert {name.rpartition("/")[2]: data for name, data in kept.items()} == copies(folder)


def test_raws_and_heic_in_tars_are_images_whatever_they_are_called(folder, tmp_path, model_dir):
    names = {"a.dng": "IMG_1.DNG", "b.heic": "IMG_2.HEIC", "c.bin": "IMG_1.DNG", "d.data": "IMG_2.HEIC"}
    members = [(name, (folder / source).read_bytes()) for name, source in names.items()]
    members.append(("a.xmp", make_xmp(-1)))
    rows = score(make_tar(tmp_path / "s.tar", members), tmp_path / "out", model_dir)
    assert [(row["image_id"], row["format"], row["rating"]) for row in rows] == [
        ("a", "DNG", -1),
        ("b", "HEIC", None),
        ("c", "DNG", None),
        ("d", "HEIC", None),
    ]


WITHOUT_EXTRAS = """
import sys
for name in ("rawpy", "pillow_heif", "pillow_heif.as_plugin"):
    sys.modules[name] = None
from tastemaker.cli import main
main()
"""


def test_without_the_extras_every_file_is_a_row_that_names_them_and_the_summary_says_how(folder, tmp_path, model_dir):
    arguments = ["score", str(folder), "--output", str(tmp_path / "out"), "--model-dir", str(model_dir)]
    run = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *arguments], capture_output=True, text=True, check=True)
    table = pq.read_table(tmp_path / "out" / "rows", columns=["image_id", "status", "reason", "rating"]).to_pylist()
    failed = {row["image_id"]: (row["reason"], row["rating"]) for row in table if row["status"] == "failed"}
    assert failed == {
        "IMG_1.DNG": ("unreadable: DNG needs tastemaker[raw]", 4),
        "IMG_2.HEIC": ("unreadable: HEIC needs tastemaker[heif]", None),
    }
    assert len(table) == 4
    assert run.stdout.count("pip install 'tastemaker[heif]' 'tastemaker[raw]'") == 1


def test_profiles_are_converted_where_asked_for_and_the_rows_say_so(tmp_path, model_dir):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"swap"), (b"gXYZ", b"rXYZ"), (b"swap", b"gXYZ")):  # red and green change places
        profile = profile.replace(old, new)
    (tmp_path / "a.png").write_bytes(encode(PIXELS * np.uint8([1, 0, 0]), "PNG", icc_profile=profile))
    scores = {}
    for convert in (False, True):
        output = tmp_path / str(convert)
        run_scoring([str(tmp_path / "a.png")], output, RunOptions(model_dir=str(model_dir), convert_profiles=convert))
        table = ScoreTable(output)
        scores[convert] = table.values("aesthetic_score")[0]
        (rows,) = (output / "rows").iterdir()
        made_by = json.loads(pq.read_schema(rows).metadata[b"tastemaker"])
        assert made_by["colour_profile"] == ("converted" if convert else "ignored")
    assert scores[True] != scores[False]
