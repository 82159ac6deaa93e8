"""Stars: which score gets how many, and sidecars that harm nobody's work."""

import hashlib
import os
import sys
from itertools import count, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from camera_files import make_dng
from conftest import encode

from tastemaker.errors import ConfigurationError
from tastemaker.imaging.embedded import file_rating
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.imaging.xmp import make_xmp, read_label, read_rating
from tastemaker.scores.named import NamedPlaces
from tastemaker.selections.edits import Edits
from tastemaker.selections.stars import Rating, parse_star_bounds, stars_by_percentile, write_xmp_sidecars
from tastemaker.storage.unfinished import DRAFT_PREFIX

JPEG = encode(np.linspace(0, 255, 80 * 60 * 3).reshape(60, 80, 3).astype(np.uint8), "JPEG")
DEVELOPED = make_xmp(2).replace(
    b"<rdf:Description", b"<rdf:Description\n   xmlns:d='urn:d' d:history='gz11 &lt;edits>'"
)
ANYWHERE = NamedPlaces(["/"])


def rows(*paths, shard=None):
    return pa.table({"image_path": pa.array(map(str, paths)), "shard": pa.array([shard] * len(paths), pa.string())})


def record_of(folder):
    return folder.with_name(f"{folder.name}.jsonl")


def edits_of(folder):
    return Edits(record_of(folder))


def write(paths, stars, by_hand=False, labels=(), **options):
    edits = edits_of(Path(paths[0]).parent)
    ratings = [Rating(number, by_hand, label) for number, label in zip_longest(stars, labels, fillvalue="")]
    return write_xmp_sidecars(rows(*paths), ratings, ANYWHERE, edits, **options)


def stars_in(sidecar):
    return read_rating(sidecar.read_bytes(), by_score=True)


def snapshot(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def photos(tmp_path):
    """A JPEG, and a pair of raw and JPEG of one stem."""
    for name in ("IMG_1.jpg", "IMG_2.JPG"):
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "IMG_2.DNG").write_bytes(make_dng((64, 48)))
    return tmp_path


def test_stars_follow_the_share_of_better_scores():
    scores = np.random.default_rng(0).permutation(np.linspace(3, 8, 1000)).astype(np.float32)
    stars = stars_by_percentile(scores)
    assert stars.dtype == np.int8
    assert np.bincount(stars, minlength=6).tolist() == [0, 200, 300, 300, 150, 50]
    assert np.all(np.diff(stars[np.argsort(scores)]) >= 0)


def test_equal_scores_get_equal_stars_and_no_score_gets_none():
    assert stars_by_percentile(np.full(10, 5.0)).tolist() == [3] * 10
    assert stars_by_percentile(np.array([np.nan, 5.0])).tolist() == [0, 3]
    assert stars_by_percentile(np.empty(0)).tolist() == []
    assert stars_by_percentile(np.array([1.0, 2.0, 3.0, 4.0]), (0.25, 0.5)).tolist() == [0, 0, 4, 5]


@pytest.mark.parametrize("bounds", [(), (0.5, 0.4), (0.0,), (1.1,), (float("nan"),), (0.1,) * 6])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ConfigurationError, match="shares"):
        stars_by_percentile(np.array([5.0]), bounds)


@pytest.mark.parametrize("text", ["", "5", "5%,,6%", "20%,5%", "0%", "101%", "many"])
def test_bounds_in_words_that_are_none_are_refused(text):
    with pytest.raises(ConfigurationError, match="shares"):
        parse_star_bounds(text)


def test_sidecars_have_the_names_that_darktable_digikam_and_lightroom_read(photos):
    before = snapshot(photos)
    paths = [photos / name for name in ("IMG_1.jpg", "IMG_2.JPG", "IMG_2.DNG")]
    report = write(paths, [5, 4, -1])
    assert (report.starred, report.created, report.updated, report.failed) == (3, 4, 0, {})
    after = snapshot(photos)
    assert after.keys() - before.keys() == {"IMG_1.jpg.xmp", "IMG_2.JPG.xmp", "IMG_2.DNG.xmp", "IMG_2.xmp"}
    assert {name: after[name] for name in before} == before, "an original was touched"
    assert [stars_in(path.with_name(f"{path.name}.xmp")) for path in paths] == [5, 4, -1]
    assert [path.name for path in sorted(photos.glob("*.xmp")) if b'digiKam:PickLabel="1"' in path.read_bytes()] == [
        "IMG_2.DNG.xmp",
        "IMG_2.xmp",
    ]
    assert [file_rating(path) for path in paths] == [None] * 3, "nobody gave them"
    assert write(paths, [3, 3, 3]).starred == 3, "they are renewed"
    assert write(paths[:1], [2], by_hand=True).starred == 1
    assert file_rating(paths[0]) == 2
    others = Edits(photos.with_name("of-another-table.jsonl"))
    assert write_xmp_sidecars(rows(paths[0]), [Rating(1)], ANYWHERE, others).already_rated == 1


def test_colours_go_beside_the_stars_and_change_nothing_else(photos):
    first, second = photos / "IMG_1.jpg", photos / "IMG_2.JPG"
    sidecar = photos / "IMG_1.jpg.xmp"
    sidecar.write_bytes(DEVELOPED)
    report = write([first, second], [5, 0], labels=["red", "green"])
    assert (report.labelled, report.starred, report.already_rated, report.without_stars) == (2, 0, 1, 1)
    labelled = sidecar.read_bytes()
    assert labelled.replace(b' xmp:Label="Red"', b"") == DEVELOPED
    assert read_label((photos / "IMG_2.JPG.xmp").read_bytes()) == "green"
    write([first, second], [4, 3], labels=["blue"], by_hand=True)
    assert sidecar.read_bytes() == labelled.replace(b"Red", b"Blue").replace(b'Rating="2"', b'Rating="4"')
    write([second], [3], labels=["purple"])
    assert read_label((photos / "IMG_2.JPG.xmp").read_bytes()) == "purple"


def test_a_dry_run_counts_and_writes_nothing(photos):
    (photos / "IMG_1.jpg.xmp").write_bytes(make_xmp(0))
    before = snapshot(photos)
    arguments = [photos / "IMG_1.jpg", photos / "IMG_2.DNG", photos / "IMG_2.JPG"], [5, 2, 0]
    planned = write(*arguments, dry_run=True)
    assert snapshot(photos) == before
    done = write(*arguments)
    assert (
        (planned.starred, planned.created, planned.updated) == (done.starred, done.created, done.updated) == (2, 2, 1)
    )
    assert planned.without_stars == 1
    assert planned.lines()[1:3] == [f"  {arguments[0][0]}: none -> 5 stars", f"  {arguments[0][1]}: none -> 2 stars"]
    assert "would be starred (2 sidecars would be created, 1 would be changed" in planned.lines()[0]
    assert "would" not in "".join(done.lines())


@pytest.mark.parametrize("place", ["sidecar", "sidecar in capitals", "sidecar of the stem", "file"])
def test_a_rating_that_somebody_gave_is_left_alone_unless_told(photos, place):
    image = photos / "IMG_1.jpg"
    if place == "file":
        image.write_bytes(embed_rating(JPEG, 2))
    else:
        name = {"sidecar": "IMG_1.jpg.xmp", "sidecar in capitals": "IMG_1.jpg.XMP"}.get(place, "IMG_1.xmp")
        (photos / name).write_bytes(DEVELOPED)
    before = snapshot(photos)
    report = write([image], [5])
    assert (report.already_rated, report.starred) == (1, 0)
    assert snapshot(photos) == before
    assert write([image], [5], overwrite=True).starred == 1
    assert stars_in(photos / ("IMG_1.jpg.XMP" if "capitals" in place else "IMG_1.jpg.xmp")) == 5
    assert snapshot(photos)["IMG_1.jpg"] == before["IMG_1.jpg"]


def test_edits_in_a_sidecar_stay_byte_for_byte(photos):
    sidecar = photos / "IMG_1.jpg.xmp"
    sidecar.write_bytes(DEVELOPED)
    sidecar.chmod(0o640)
    report = write([photos / "IMG_1.jpg"], [5], overwrite=True)
    assert (report.created, report.updated) == (0, 1)
    assert sidecar.read_bytes() == DEVELOPED.replace(b'xmp:Rating="2"', b'xmp:Rating="5"')
    assert sidecar.stat().st_mode & 0o777 == 0o640 or sys.platform == "win32"
    again = write([photos / "IMG_1.jpg"], [5], overwrite=True)
    assert (again.starred, again.updated) == (1, 0)


def test_a_writing_is_taken_back_and_what_somebody_changed_since_is_left(photos):
    paths = [photos / name for name in ("IMG_1.jpg", "IMG_2.JPG", "IMG_2.DNG")]
    (photos / "IMG_1.jpg.xmp").write_bytes(DEVELOPED)
    before = snapshot(photos)
    write(paths, [5, 4, 3], overwrite=True)
    with record_of(photos).open("ab") as record:
        record.write(b'["half a line of a process that was killed')
    write(paths, [4, 4, 2], overwrite=True)
    written = snapshot(photos)
    assert edits_of(photos).take_back(ANYWHERE, dry_run=True).files == 4
    assert edits_of(photos).take_back(NamedPlaces([])).files == 0, "the record came from somebody else"
    assert snapshot(photos) == written
    edited = photos / "IMG_2.xmp"
    edited.write_bytes(edited.read_bytes() + b"<!-- mine -->")
    report = edits_of(photos).take_back(ANYWHERE)
    assert (report.files, report.left) == (3, {str(edited): "somebody changed it since"})
    after = snapshot(photos)
    assert after.pop("IMG_2.xmp") == hashlib.sha256(edited.read_bytes()).hexdigest()
    assert after == before
    assert list(edits_of(photos).take_back(ANYWHERE).left) == [str(edited)]


def test_a_colour_is_no_reason_to_give_other_stars_the_next_time(photos):
    image, raw = photos / "IMG_1.jpg", photos / "IMG_2.DNG"
    image.write_bytes(embed_rating(JPEG, 2))
    (photos / "IMG_2.DNG.xmp").write_bytes(DEVELOPED)
    before = snapshot(photos)
    for rating, other in ((5, "Red"), (4, "Purple")):
        assert write([image, raw], [rating] * 2, labels=["red", other.lower()]).labelled == 2
        assert [file_rating(image), file_rating(raw)] == [2, 2]
        labelled = DEVELOPED.replace(b"<rdf:Description", b'<rdf:Description xmp:Label="%s"' % other.encode())
        assert (photos / "IMG_2.DNG.xmp").read_bytes() == labelled
    assert [read_label((photos / name).read_bytes()) for name in ("IMG_1.jpg.xmp", "IMG_2.xmp")] == ["red", "purple"]
    assert edits_of(photos).take_back(ANYWHERE).files == 3
    assert snapshot(photos) == before


def test_the_raws_sidecar_does_not_rate_the_jpeg_beside_it(photos):
    assert write([photos / "IMG_2.DNG"], [5]).created == 2
    report = write([photos / "IMG_2.JPG"], [1])
    assert (report.starred, report.already_rated) == (1, 0)
    assert stars_in(photos / "IMG_2.DNG.xmp") == stars_in(photos / "IMG_2.xmp") == 5


def test_a_sidecar_of_the_stem_that_is_another_pictures_is_not_the_raws(photos):
    other = photos / "IMG_2.xmp"
    other.write_bytes(make_xmp(1, "JPG"))
    report = write([photos / "IMG_2.DNG"], [4], overwrite=True)
    assert (report.created, report.updated) == (1, 0)
    assert read_rating(other.read_bytes()) == 1


def test_failures_are_reported_and_the_others_go_on(photos):
    (photos / "IMG_1.jpg.xmp").write_text("no XML: Rating")
    (photos / "IMG_2.JPG.xmp").mkdir()
    before = snapshot(photos)
    paths = [photos / name for name in ("IMG_1.jpg", "IMG_2.JPG", "gone.jpg", "IMG_2.DNG")]
    report = write(paths, [5, 5, 5, 5])
    reasons = [report.failed[str(path)] for path in paths[:3]]
    assert "damaged" in reasons[0]
    assert reasons[1:] == ["Is a directory", "the image is not there"]
    assert report.starred == 1
    assert snapshot(photos).items() >= before.items()
    assert not [name for name in os.listdir(photos) if name.startswith(".")]
    assert any("gone.jpg: the image is not there" in line for line in report.lines())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_folder_that_cannot_be_written_to_is_a_failure(photos, dry_run):
    photos.chmod(0o500)
    try:
        report = write([photos / "IMG_1.jpg"], [5], dry_run=dry_run)
    finally:
        photos.chmod(0o700)
    assert list(report.failed) == [str(photos / "IMG_1.jpg")]
    assert report.starred == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_linked_sidecar_stays_a_link(photos):
    real = photos / "elsewhere"
    real.write_bytes(make_xmp(0))
    (photos / "IMG_1.jpg.xmp").symlink_to(real)
    assert write([photos / "IMG_1.jpg"], [3]).updated == 1
    assert (photos / "IMG_1.jpg.xmp").is_symlink()
    assert stars_in(real) == 3
    assert edits_of(photos).take_back(ANYWHERE).files == 1
    assert (photos / "IMG_1.jpg.xmp").is_symlink()
    assert real.read_bytes() == make_xmp(0)


@pytest.mark.parametrize("has_hash", [True, False])
def test_a_picture_that_changed_since_it_was_scored_gets_no_stars(photos, has_hash):
    paths = [photos / "IMG_1.jpg", photos / "IMG_2.JPG"]
    scored = rows(*paths).append_column("size", [[path.stat().st_size for path in paths]])
    hashes = [xxhash.xxh3_64_hexdigest(path.read_bytes()) if has_hash else None for path in paths]
    scored = scored.append_column("xxh3", [pa.array(hashes, pa.string())])
    paths[0].write_bytes(JPEG[:-2] + b"ab" if has_hash else JPEG + b"more")
    report = write_xmp_sidecars(scored, [Rating(5), Rating(4)], ANYWHERE, edits_of(photos))
    assert report.starred == 1
    assert report.failed == {str(paths[0]): "it has changed since it was scored"}
    assert not (photos / "IMG_1.jpg.xmp").exists()
    assert stars_in(photos / "IMG_2.JPG.xmp") == 4


def test_images_in_tars_are_refused_before_anything_is_written(photos):
    table = pa.concat_tables([rows(photos / "IMG_1.jpg"), rows("a.tar/b.jpg", shard="a.tar")])
    with pytest.raises(ConfigurationError, match="1 of the 2 images lie in tars"):
        write_xmp_sidecars(table, [Rating(5)] * 2, ANYWHERE, edits_of(photos))
    assert not (photos / "IMG_1.jpg.xmp").exists()


def test_of_many_failures_some_are_named_and_the_others_are_counted(photos):
    lines = write([photos / f"gone{number}.jpg" for number in range(7)], [5] * 7).lines()
    assert lines[-1] == "  and 2 more; --json has them all"
    assert len(lines) == 8


def test_names_that_are_no_utf8_are_found(photos):
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    from tastemaker.scores.schema import printable

    path = os.path.join(photos, "caf\udce9.jpg")
    with open(path, "wb") as file:
        file.write(JPEG)
    assert write([printable(path)], [4]).starred == 1
    assert os.path.exists(f"{path}.xmp")


def test_a_raw_gets_both_of_its_sidecars_or_none_and_leftovers_of_a_kill_are_gone(photos, monkeypatch):
    raw, calls = photos / "IMG_2.DNG", count()

    def stop(_path):
        if next(calls) == 1:  # in the second of the two
            raise KeyboardInterrupt

    before = snapshot(photos)
    with monkeypatch.context() as inner:
        inner.setattr("tastemaker.selections.edits.make_durable", stop)
        with pytest.raises(KeyboardInterrupt):
            write([raw], [4])
    assert snapshot(photos) == before
    (photos / f"{DRAFT_PREFIX}0-IMG_2.DNG.xmp").write_bytes(b"killed")
    write([raw], [4])
    assert sorted(snapshot(photos).keys() - before.keys()) == ["IMG_2.DNG.xmp", "IMG_2.xmp"]
