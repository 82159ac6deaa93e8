"""Selections: exactly the chosen originals, byte for byte, and nothing where something is wrong."""

import gzip
import hashlib
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tastemaker
from conftest import make_tar
from PIL import PdfParser
from rows import mark_as_gone, write_scores

from tastemaker import ConfigurationError, ScoreTable, Selection, select_images
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.embedded import read_embedded
from tastemaker.imaging.jpeg_metadata import embed_rating
from tastemaker.imaging.keys import MAX_SIDECAR_BYTES
from tastemaker.imaging.xmp import make_xmp, read_rating
from tastemaker.runs.run import RunOptions, run_scoring
from tastemaker.scores.cutoff import Top
from tastemaker.selections.contact import Grid
from tastemaker.selections.rating import StarOptions, write_stars
from tastemaker.selections.selection import choose_rows

ALL = Selection(where="status = 'kept'")


@pytest.fixture
def scored(tmp_path, photo_folder, photographs, model_dir):
    """Rows of a folder, a tar and a gzipped tar whose images have captions, some of them far away."""
    captions = [(f"{name.partition('.')[0]}.txt", name.encode()) for name in photographs]
    members = [*photographs.items(), ("naïve/東.jpg", photographs["rocket.jpg"]), *captions, ("bad.jpg", b"no image")]
    make_tar(tmp_path / "plain.tar", members)
    make_tar(tmp_path / "packed.tar.gz", members, mode="w:gz")
    (photo_folder / "caf\udce9.jpg").write_bytes(photographs["rocket.jpg"])
    inputs = [str(tmp_path / "plain.tar"), str(tmp_path / "packed.tar.gz"), str(photo_folder)]
    run_scoring(inputs, tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    return ScoreTable(tmp_path / "scores")


def embedded_stars(data):
    found = read_embedded(data)
    return read_rating(found.xmp, by_score=True) or found.rating


def contents(folder):
    """sha256 of all that is in a folder, members of tars for the tars."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    name = f"{path.name}/{member.name}"  # a key stays as it is, and a second of it begins a tar
                    assert name not in found
                    found[name] = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
        elif path.is_file() and "_tastemaker" not in path.parts:
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def digests(photographs):
    return sorted(hashlib.sha256(data).hexdigest() for data in photographs)


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_originals_and_sidecars_come_out_byte_for_byte(tmp_path, scored, photographs, kind):
    summary = select_images(scored, tmp_path / "out", ALL, kind=kind)
    captions = [name.encode() for name in photographs] * 2 + [b"a cup of coffee", b'{"width": 600}']
    images = [*photographs.values()] * 3 + [photographs["rocket.jpg"]] * 3 + [photographs["coffee.png"]]
    found = contents(tmp_path / "out")
    assert sorted(found.values()) == digests([*images, *captions])
    wanted = {"rocket.jpg", "2/rocket.jpg", "3/rocket.jpg", "naïve/東.jpg", "caf\udce9.jpg"}
    if kind == "webdataset":
        wanted = {*(f"images-00000{n}.tar/rocket.jpg" for n in range(3)), "images-000000.tar/naïve/東.jpg"}
    assert wanted <= set(found)
    assert (summary.written, summary.skipped, summary.checked_by_size_only) == (len(images), {}, 0)
    rows = pq.read_table(tmp_path / "out" / "_tastemaker" / "selected.parquet").to_pylist()
    assert len(rows) == len(images)


def test_the_top_is_what_the_cut_keeps_and_a_second_run_gives_the_same_bytes(tmp_path, scored):
    selection, out = Selection(top=Top(count=4)), tmp_path / "out"
    for images_per_tar, kind in ((3, "webdataset"), (3, "folder")):
        target = out / kind
        assert select_images(scored, target, selection, kind=kind, images_per_tar=images_per_tar).written == 4
        before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
        select_images(scored, target, selection, kind=kind, images_per_tar=images_per_tar)
        assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert not list(out.glob(".*"))


def test_what_changed_or_is_gone_is_skipped_and_listed(tmp_path, scored, photo_folder):
    data = (photo_folder / "rocket.jpg").read_bytes()
    (photo_folder / "rocket.jpg").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # the same size
    (photo_folder / "coffee.txt").write_text("another, longer caption")
    (photo_folder / "chelsea.png").unlink()
    shard = (tmp_path / "plain.tar").read_bytes()
    (tmp_path / "plain.tar").write_bytes(shard[512:])  # everything moved
    summary = select_images(scored, tmp_path / "out", ALL, kind="folder")
    assert summary.skipped == {"changed": 9, "missing": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "_tastemaker" / "skipped.jsonl").read_text().splitlines()]
    loose = {line["image_id"]: line["problem"] for line in lines if ".tar" not in line["image_path"]}
    assert loose == {"rocket": "changed", "coffee": "changed", "chelsea": "missing"}


def test_originals_of_a_folder_that_was_named_by_a_relative_path_are_found_from_another_folder(
    tmp_path, photo_folder, model_dir, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run_scoring(photo_folder.name, tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    summary = select_images(ScoreTable(tmp_path / "scores"), tmp_path / "out", ALL, kind="folder")
    assert (summary.written, summary.skipped) == (summary.chosen, {})


def test_links_lead_to_loose_files_and_shards_have_none(tmp_path, scored, photo_folder):
    loose = Selection(where="shard IS NULL AND image_id = 'coffee'")
    select_images(scored, tmp_path / "links", loose, kind="links")
    names = ("coffee.json", "coffee.png", "coffee.txt")
    assert [(tmp_path / "links" / name).readlink() for name in names] == [photo_folder / name for name in names]
    with pytest.raises(ConfigurationError, match="no file of an image to link to"):
        select_images(scored, tmp_path / "none", ALL, kind="links")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl"])
def test_a_manifest_has_paths_scores_and_no_embeddings(tmp_path, scored, name):
    import pandas

    path = tmp_path / name
    select_images(scored, path, Selection(top=Top(count=5)), kind="manifest")
    first = path.read_bytes()
    select_images(scored, path, Selection(top=Top(count=5)), kind="manifest")
    assert path.read_bytes() == first
    readers = {"parquet": pandas.read_parquet, "csv": pandas.read_csv}
    frame = readers[path.suffix[1:]](path) if path.suffix[1:] in readers else pandas.read_json(path, lines=True)
    assert len(frame) == 5
    assert "embedding" not in frame.columns
    assert frame.aesthetic_score.min() == pytest.approx(scored.cutoff(keep=5).score, abs=1e-5)
    with pytest.raises(ConfigurationError, match="other content"):
        select_images(scored, path, Selection(top=Top(count=1)), kind="manifest")


def test_a_contact_sheet_has_so_many_pictures_on_a_page_and_tells_which_it_cannot_show(tmp_path, scored):
    sheets = [tmp_path / name / "sheet.pdf" for name in ("one", "two")]
    gone = tmp_path / "photos" / "rocket.jpg"
    for sheet in sheets:
        summary = select_images(scored, sheet, ALL, kind="pdf", grid=Grid.parse("3x2"))
        assert summary.written == summary.chosen - len(summary.skipped)
        with PdfParser.PdfParser(str(sheet)) as pdf:
            assert len(pdf.pages) == -(-summary.chosen // 6)
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    gone.rename(tmp_path / "elsewhere")
    summary = select_images(scored, sheets[0], ALL, kind="pdf", overwrite=True)
    assert summary.skipped == {"not_shown": 1}
    assert summary.skipped_first == f"{gone}: the file is gone"
    (tmp_path / "mine.pdf").write_bytes(b"mine")
    for name, problem in (("mine.pdf", "did not write it"), ("sheet.txt", "ends with .pdf")):
        with pytest.raises(ConfigurationError, match=problem):
            select_images(scored, tmp_path / name, ALL, kind="pdf", overwrite=True)
    for wrong in ("4", "0x3", "4x99"):
        with pytest.raises(ConfigurationError):
            Grid.parse(wrong)


@pytest.mark.parametrize("kind", ["webdataset", "folder", "links"])
def test_a_folder_that_is_named_as_a_manifest_is_taken_for_a_slip(tmp_path, scored, kind):
    with pytest.raises(ConfigurationError, match=r"best\.csv is the name of a manifest, .* say --as manifest"):
        select_images(scored, tmp_path / "best.csv", ALL, kind=kind)
    assert not (tmp_path / "best.csv").exists()


def test_keys_are_lines_and_datacomp_uids_are_an_array(tmp_path, scored):
    select_images(scored, tmp_path / "keys.txt", Selection(row_ids=[0, 2]), kind="uids")
    assert (tmp_path / "keys.txt").read_text().splitlines() == scored.take([0, 2], ["image_id"])["image_id"].to_pylist()
    with pytest.raises(ConfigurationError, match="no DataComp uid"):
        select_images(scored, tmp_path / "keys.npy", ALL, kind="uids")
    rows = pq.read_table(write_scores(tmp_path / "dc" / "a.parquet", [5.0, 6.0]))
    uids = ["f" * 32, "0" * 31 + "1"]
    place = rows.schema.get_field_index("json")
    rows = rows.set_column(place, "json", [[json.dumps({"uid": uid}) for uid in uids]])
    pq.write_table(rows, tmp_path / "dc" / "a.parquet")
    select_images(ScoreTable(tmp_path / "dc"), tmp_path / "u.npy", Selection(min_score=5), kind="uids")
    assert np.load(tmp_path / "u.npy").tolist() == [(0, 1), (2**64 - 1, 2**64 - 1)]


def test_a_selection_without_a_condition_and_one_of_nothing(tmp_path, scored):
    with pytest.raises(ConfigurationError, match="say what to select"):
        Selection()
    assert select_images(scored, tmp_path / "none", Selection(min_score=99)).written == 0


def with_columns(path, **columns):
    """Replace columns of a rows file."""
    rows = pq.read_table(path)
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, name, pa.array(values, rows.schema.field(name).type))
    pq.write_table(rows, path)
    return ScoreTable(path)


def test_of_each_group_the_best_is_kept_before_the_cut(tmp_path):
    path = write_scores(tmp_path / "a.parquet", [5.0, 9.0, 6.0, 4.0, None, 7.0], embeddings=True)
    first, second, third = np.eye(3, 768, dtype=np.float16)
    table = with_columns(path, embedding=[first, first, second, second, None, third])
    select_images(table, tmp_path / "m.parquet", Selection(best_of_group=True), kind="manifest")
    rows = pq.read_table(tmp_path / "m.parquet")
    assert rows["aesthetic_score"].to_pylist() == [9.0, 6.0, 7.0]
    assert rows["group"].to_pylist() == [0, 2, 5]
    assert "embedding" not in rows.column_names
    two = Selection(best_of_group=True, top=Top(count=2), where="aesthetic_score < 9")
    select_images(table, tmp_path / "n.jsonl", two, kind="manifest")
    lines = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert [(line["aesthetic_score"], line["group"]) for line in lines] == [(6.0, 2), (7.0, 5)]
    near = with_columns(path, embedding=[first, first + second / 4, third, None, None, None])
    assert len(choose_rows(near, Selection(best_of_group=True, min_similarity=0.99)).rows) == 5
    assert choose_rows(near, Selection(best_of_group=True)).rows.tolist() == [1, 2, 3, 5]


def test_a_similarity_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="not in"):
        Selection(best_of_group=True, min_similarity=1.5)


def test_columns_called_group_and_given_group_are_kept_beside_ours(tmp_path):
    path = write_scores(tmp_path / "a.parquet", [5.0, 9.0], embeddings=True)
    rows = pq.read_table(path).append_column("given_group", [["p", "q"]]).append_column("group", [["x", "y"]])
    pq.write_table(rows, path)
    select_images(ScoreTable(path), tmp_path / "m.parquet", Selection(best_of_group=True), kind="manifest")
    found = pq.read_table(tmp_path / "m.parquet").select(["group", "given_group", "given_group_2"]).to_pylist()
    assert found == [{"group": 0, "given_group": "q", "given_group_2": "y"}]


def test_stars_go_into_the_copies_and_never_into_originals(tmp_path, scored, photo_folder, photographs):
    before = contents(photo_folder)
    loose = Selection(where="shard IS NULL")
    summary = select_images(scored, tmp_path / "out", loose, kind="folder", stars=StarOptions(bounds=(1.0,)))
    assert contents(photo_folder) == before
    assert summary.ratings == {"embedded": 3, "no_jpeg": 5}
    copy = (tmp_path / "out" / "rocket.jpg").read_bytes()
    assert embedded_stars(copy) == 5
    assert decode_image(copy).pixels.tolist() == decode_image(photographs["rocket.jpg"]).pixels.tolist()
    with pytest.raises(ConfigurationError, match="makes none"):
        select_images(scored, tmp_path / "l", loose, kind="links", stars=StarOptions())
    with pytest.raises(ConfigurationError, match="another selection"):
        select_images(scored, tmp_path / "out", loose, kind="folder")


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_a_copy_that_has_a_rating_keeps_it_unless_told(tmp_path, photographs, model_dir, kind):
    photos = tmp_path / "photos"
    photos.mkdir()
    rated = embed_rating(photographs["rocket.jpg"], 2)
    for name in ("in.jpg", "beside.jpg", "none.jpg"):
        (photos / name).write_bytes(rated if name == "in.jpg" else photographs["rocket.jpg"])
    (photos / "beside.jpg.xmp").write_bytes(make_xmp(4))
    run_scoring([str(photos)], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    table, stars = ScoreTable(tmp_path / "s"), StarOptions(bounds=(1.0,))
    summary = select_images(table, tmp_path / "a", ALL, kind=kind, stars=stars)
    assert summary.ratings == {"already_rated": 2, "embedded": 1}
    unchanged = set(contents(tmp_path / "a").values()) & set(contents(photos).values())
    assert unchanged == {contents(photos)[name] for name in ("in.jpg", "beside.jpg", "beside.jpg.xmp")}
    told = StarOptions(bounds=(1.0,), overwrite=True)
    assert select_images(table, tmp_path / "b", ALL, kind=kind, stars=told).ratings == {"embedded": 3}


def test_stars_beside_originals_follow_all_scores_and_not_the_selection(tmp_path, scored, photo_folder):
    with pytest.raises(ConfigurationError, match="lie in tars"):
        write_stars(scored, ALL)
    loose = Selection(where="shard IS NULL AND image_id IN ('coffee', 'rocket')")
    report = write_stars(scored, loose, StarOptions(bounds=(0.001, 1.0)))
    assert (report.images, report.created, report.failed) == (2, 2, {})
    assert read_rating((photo_folder / "rocket.jpg.xmp").read_bytes(), by_score=True) == 4
    assert write_stars(scored, loose).starred == 2, "nobody else has rated them"


def test_a_selection_that_would_replace_its_own_originals_is_refused(tmp_path, photographs, model_dir):
    """An output of `select` is scored and selected from again, into itself, also through a link."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(photographs["rocket.jpg"])
    run_scoring([str(tmp_path / "p")], tmp_path / "s1", RunOptions(model_dir=str(model_dir)))
    select_images(ScoreTable(tmp_path / "s1"), tmp_path / "best", ALL, kind="folder")
    run_scoring([str(tmp_path / "best")], tmp_path / "s2", RunOptions(model_dir=str(model_dir)))
    (tmp_path / "link").symlink_to(tmp_path / "best")
    for output in (tmp_path / "best", tmp_path / "link"):
        with pytest.raises(ConfigurationError, match="lies in the output"):
            select_images(ScoreTable(tmp_path / "s2"), output, ALL, kind="folder", overwrite=True)
    assert (tmp_path / "best" / "a.jpg").read_bytes() == photographs["rocket.jpg"]


@pytest.mark.parametrize("member", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "C:\\out.jpg"])
def test_rows_whose_names_lead_out_are_refused(tmp_path, scored, member):
    path = tmp_path / "scores" / "rows" / "plain.parquet"
    rows = pq.read_table(path)
    shard = rows["shard"][0].as_py()
    table = with_columns(path, image_path=[f"{shard}/{member}", *rows["image_path"].to_pylist()[1:]])
    for kind in ("folder", "webdataset"):
        summary = select_images(table, tmp_path / kind, Selection(row_ids=[0, 1]), kind=kind)
        assert (summary.written, summary.skipped) == (1, {"refused": 1})
    assert not list(tmp_path.rglob("out.jpg"))


def test_names_that_are_no_files_beside_each_other_stop_no_folder_of_originals(tmp_path, photographs, model_dir):
    """In a tar, a picture may be called as the folder of another is, and names may have any length."""
    names = ("a.jpg", "a.jpg/b.jpg", "c.jpg/d.jpg", "c.jpg", f"{'e' * 252}.jpg", f"{'f/' * 520}g.jpg")
    shard = make_tar(tmp_path / "a.tar", [(name, photographs["rocket.jpg"]) for name in names])
    run_scoring(shard, tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    table, out = ScoreTable(tmp_path / "s"), tmp_path / "out"
    assert select_images(table, out, ALL, kind="folder").skipped == {"refused": 2}
    assert sum(name.endswith(".jpg") for name in contents(out)) == 4
    assert select_images(table, tmp_path / "tars", ALL).written == 6


def test_places_that_another_program_wrote_are_read_or_refused(tmp_path, scored):
    """pandas makes a column with nulls one of floats."""
    path = tmp_path / "scores" / "rows" / "plain.parquet"
    rows = pq.read_table(path)
    at = rows.schema.get_field_index("size")
    for number, (size, skipped) in enumerate(((None, {}), (0.5, {"refused": 1}))):
        sizes = [float(rows["size"][0].as_py() if size is None else size), *rows["size"].to_pylist()[1:]]
        pq.write_table(rows.set_column(at, "size", pa.array(sizes, pa.float64())), path)
        chosen = Selection(row_ids=[0])
        assert select_images(ScoreTable(path), tmp_path / f"{number}", chosen, kind="folder").skipped == skipped


def test_rows_that_pandas_wrote_again_select_the_same(tmp_path, scored):
    (tmp_path / "again").mkdir()
    for number, source in enumerate(scored.sources):
        pq.read_table(source.path).to_pandas().to_parquet(tmp_path / "again" / f"{number}.parquet")
    select_images(scored, tmp_path / "one", ALL)
    select_images(ScoreTable(tmp_path / "again", originals=tmp_path), tmp_path / "two", ALL)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_members_whose_size_only_pax_records_tell_are_copied(tmp_path, photographs, model_dir):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in photographs.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(data), {"size": str(len(data))}
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        starts = [member.offset_data - 512 for member in tar]
    raw = bytearray(path.read_bytes())
    for at in starts:
        raw[at + 124 : at + 136] = b"00000000000\0"
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    path.write_bytes(raw)
    run_scoring([str(path)], tmp_path / "scores", RunOptions(model_dir=str(model_dir)))
    summary = select_images(ScoreTable(tmp_path / "scores"), tmp_path / "best", ALL)
    assert (summary.written, summary.skipped) == (len(photographs), {})
    assert sorted(contents(tmp_path / "best").values()) == digests(photographs.values())


def test_rows_without_hashes_are_checked_by_size_and_header(tmp_path, scored):
    path = tmp_path / "scores" / "rows" / "plain.parquet"
    table = with_columns(path, xxh3=[None] * len(pq.read_table(path)))
    summary = select_images(table, tmp_path / "out", ALL, kind="folder")
    assert summary.written == summary.checked_by_size_only > 0
    shard = bytearray((tmp_path / "plain.tar").read_bytes())
    (tmp_path / "plain.tar").write_bytes(shard[512:] + bytes(512))
    assert select_images(table, tmp_path / "moved", ALL, kind="folder").written == 0


def test_one_file_under_two_paths_is_two_rows_and_nothing_is_lost(tmp_path, photographs, model_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(photographs["rocket.jpg"])
    for number, source in enumerate(("a.jpg", "./a.jpg", str(tmp_path / "a.jpg"))):
        run_scoring([source], tmp_path / f"s{number}", RunOptions(model_dir=str(model_dir)))
    table = ScoreTable([tmp_path / "s0", tmp_path / "s1", tmp_path / "s2"])
    for kind in ("folder", "webdataset", "links"):
        assert select_images(table, tmp_path / kind, ALL, kind=kind).written == 3
        assert set(contents(tmp_path / kind).values()) == {digests([photographs["rocket.jpg"]])[0]}


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize("source", ["photos", "photos.tar", "photos.tar.gz"])
def test_a_sidecar_that_is_too_large_to_be_read_is_copied(tmp_path, photo_folder, model_dir, kind, source):
    video = b"frame" * (MAX_SIDECAR_BYTES // 5 + 1)
    for name in ("coffee.mp4", "rocket.mp4"):
        (photo_folder / name).write_bytes(video)
    if source != "photos":
        members = [(path.name, path.read_bytes()) for path in sorted(photo_folder.glob("*.*"))]
        make_tar(tmp_path / source, members, mode="w:gz" if source.endswith("gz") else "w")
    run_scoring([str(tmp_path / source)], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    report = select_images(ScoreTable(tmp_path / "s"), tmp_path / "out", ALL, kind=kind)
    assert list(contents(tmp_path / "out").values()).count(hashlib.sha256(video).hexdigest()) == 2
    assert (report.skipped, report.bytes_written > 2 * len(video)) == ({}, True)


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize("size", [10, MAX_SIDECAR_BYTES + 1])
def test_a_sidecar_that_is_gone_is_said_and_its_picture_is_copied(tmp_path, photo_folder, model_dir, kind, size):
    sidecar = photo_folder / "coffee.npy"
    sidecar.write_bytes(bytes(size))
    run_scoring([str(photo_folder)], tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    sidecar.unlink()
    report = select_images(ScoreTable(tmp_path / "s"), tmp_path / "out", ALL, kind=kind)
    names = {name.rpartition("/")[2] for name in contents(tmp_path / "out")}
    assert {"coffee.png", "coffee.txt"} < names
    assert "coffee.npy" not in names
    (line,) = (tmp_path / "out" / "_tastemaker" / "skipped.jsonl").read_text().splitlines()
    skipped = json.loads(line)
    assert (report.skipped, skipped["image_id"], skipped["problem"]) == ({"sidecar": 1}, "coffee", "sidecar")
    assert skipped["detail"] == f"{sidecar} cannot be read: No such file or directory"


def test_a_packed_sidecar_comes_out_packed(tmp_path, photo_folder, model_dir):
    packed = gzip.compress(b"{}")
    (photo_folder / "rocket.jpg.gz").write_bytes(packed)
    run_scoring(photo_folder, tmp_path / "s", RunOptions(model_dir=str(model_dir)))
    select_images(ScoreTable(tmp_path / "s"), tmp_path / "out", ALL, kind="folder")
    assert (tmp_path / "out" / "rocket.jpg.gz").read_bytes() == packed


def test_folders_whose_names_are_no_utf8_are_written(tmp_path, photo_folder, model_dir):
    folder = tmp_path / "caf\udce9"
    run_scoring([str(photo_folder)], folder / "scores", RunOptions(model_dir=str(model_dir)))
    table = ScoreTable(folder / "scores")
    for kind, name in (("folder", "f"), ("webdataset", "w"), ("manifest", "m.parquet"), ("manifest", "m.csv")):
        assert select_images(table, folder / name, Selection(top=Top(count=2)), kind=kind).written == 2


@pytest.mark.parametrize(
    "selection",
    [
        Selection(where="true"),
        Selection(min_score=0),
        Selection(top=Top(count=5)),
        Selection(row_ids=[0, 1, 2]),
    ],
)
def test_pictures_that_are_gone_are_not_selected(tmp_path, selection):
    path = write_scores(tmp_path / "rows.parquet", [6.0, 7.0, 5.0])
    mark_as_gone(path, [1])
    summary = select_images(ScoreTable(path), tmp_path / "list.csv", selection, kind="manifest")
    assert (summary.chosen, summary.lowest) == (2, 5.0)


@pytest.mark.parametrize("kind", ["folder", "webdataset", "links", "manifest"])
def test_a_selection_is_taken_back_and_what_somebody_changed_or_added_stays(tmp_path, photo_folder, kind):
    scored = tastemaker("score", photo_folder, "-o", tmp_path / "scores", "--rank-by", "technical_quality")
    assert scored.returncode == 0, scored.stderr
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "mine").mkdir()
    to = tmp_path / ("mine/list.parquet" if kind == "manifest" else "best")
    command = ["select", tmp_path / "scores", "--top", "3", "--to", to, "--as", kind]
    assert tastemaker(*command).returncode == 0
    assert "would be taken back" in tastemaker(*command, "--undo", "--dry-run").stdout
    assert to.exists()
    # What a killed process leaves of a list, or of a copy.
    draft = (tmp_path / "mine/_tastemaker/written" if kind == "manifest" else to) / ".tastemaker-tmp-0123456789ab-a"
    (next(draft.parent.iterdir()) / draft.name if kind == "manifest" else draft).write_bytes(b"half")
    if kind == "folder":
        changed, added = next(path for path in to.rglob("*.*g") if path.is_file()), to / "mine.txt"
        changed.write_bytes(b"mine")
        added.write_bytes(b"mine, too")
        found = tastemaker(*command, "--undo")
        assert (found.returncode, "1 left as it is" in found.stdout) == (1, True)
        assert {path for path in to.rglob("*") if path.is_file()} == {changed, added}
    else:
        assert tastemaker(*command, "--undo").returncode == 0
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
        assert [path.name for path in tmp_path.iterdir() if path.is_dir() and not any(path.iterdir())] == ["mine"]
        assert not (tmp_path / "best").exists()
    again = tastemaker(*command, "--undo")
    assert (again.returncode, again.stdout) == (0, "There is nothing to take back.\n")
