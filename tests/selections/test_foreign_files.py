"""Files of others are sacred: only what our own records list, and as they list it, is replaced or deleted."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from command import tastemaker
from conftest import make_tar
from tiny import copies, make_pictures, make_tiny_shards, picture, rows_of, snapshot

from tastemaker import (
    ConfigurationError,
    FilePartitioningStage,
    ImageReaderStage,
    ImageWriterStage,
    Pipeline,
    ScoreTable,
    Selection,
    StarOptions,
    select_images,
    write_report,
    write_stars,
)
from tastemaker.cli.run import run_script
from tastemaker.compat.nemo_curator import uninstall
from tastemaker.demo import run_demo
from tastemaker.errors import StageError
from tastemaker.explorer.index import Filter
from tastemaker.explorer.service import Explorer
from tastemaker.runs.options import RunMode, RunOptions
from tastemaker.runs.run import run_scoring
from tastemaker.selections.filter import filter_images
from tastemaker.selections.learn import learn_taste
from tastemaker.selections.select import take_back_selection
from tastemaker.storage.unfinished import DRAFT_PREFIX

EVERYTHING, FIRST = Selection(where="status = 'kept'"), Selection(where="image_id = 'a'")
FOREIGN = "Tastemaker did not write it|no selection wrote it"


@pytest.fixture
def options(model_dir):
    return RunOptions(model_dir=str(model_dir))


@pytest.fixture
def photos(tmp_path):
    return make_pictures(tmp_path / "photos")


@pytest.fixture
def table(tmp_path, photos, options):
    run_scoring(photos, tmp_path / "scores", options)
    return ScoreTable(tmp_path / "scores")


def write_pipeline(inputs, output):
    stages = [FilePartitioningStage(str(inputs)), ImageReaderStage(), ImageWriterStage(str(output))]
    return Pipeline("tars", stages=stages).run()


# -- a file of somebody else is in the way


def test_a_foreign_file_in_the_way_of_kept_is_an_error_and_stays(photos, tmp_path, options):
    mine = tmp_path / "mine"
    for name in ("kept/holiday.jpg", "kept/a.jpg", "deleted/photos/x.jpg", "notes.txt"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_bytes(b"mine")
    before = snapshot(mine)
    for kind in ("auto", "webdataset", "links"):
        for mode in (RunMode(), RunMode(overwrite=True)):
            with pytest.raises(ConfigurationError, match=FOREIGN):
                filter_images(photos, mine, EVERYTHING, options, mode, kind=kind)
    run_scoring(photos, mine, options)
    assert {name: state for name, state in snapshot(mine).items() if name in before} == before


@pytest.mark.parametrize("kind", ["folder", "webdataset", "links"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_file_in_the_way_of_a_selection_is_named_before_any_work(tmp_path, table, kind, overwrite):
    own, name = tmp_path / "own", "images-000000.tar" if kind == "webdataset" else "below/c.jpg"
    select_images(table, own, FIRST, kind=kind)
    if kind == "webdataset":
        (own / name).unlink()
        (own / "_tastemaker" / "files" / "files.jsonl").unlink()
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_bytes(b"mine")
    (own / "mine.txt").write_bytes(b"not in the way")
    before, seen = snapshot(own), []
    with pytest.raises(
        ConfigurationError, match=f"{name} is there, and Tastemaker did" if overwrite else "--overwrite"
    ):
        select_images(table, own, EVERYTHING, kind=kind, overwrite=overwrite, on_progress=seen.append)
    assert (snapshot(own), seen) == (before, [])
    (own / name).unlink()
    select_images(table, own, EVERYTHING, kind=kind, overwrite=True)
    assert (own / "mine.txt").read_bytes() == b"not in the way"


@pytest.mark.parametrize(
    ("kind", "name"), [("manifest", "m.parquet"), ("manifest", "m.csv"), ("manifest", "m.jsonl"), ("uids", "u.txt")]
)
def test_a_foreign_list_is_never_replaced_and_our_own_is_when_told(tmp_path, table, kind, name):
    (tmp_path / name).write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigurationError, match="Tastemaker did not write it"):
            select_images(table, tmp_path / name, EVERYTHING, kind=kind, overwrite=overwrite)
    assert (tmp_path / name).read_bytes() == b"mine"
    (tmp_path / name).unlink()
    select_images(table, tmp_path / name, EVERYTHING, kind=kind)
    with pytest.raises(ConfigurationError, match="other content"):
        select_images(table, tmp_path / name, FIRST, kind=kind)
    select_images(table, tmp_path / name, FIRST, kind=kind, overwrite=True)
    edited = (tmp_path / name).read_bytes() + b"# a note of mine"
    (tmp_path / name).write_bytes(edited)
    select_images(table, tmp_path / name, EVERYTHING, kind=kind, overwrite=True)
    assert [path.read_bytes() for path in (tmp_path / "_tastemaker" / "aside").rglob(name)] == [edited]


def test_a_shard_that_is_called_as_a_result_would_be_stays_byte_for_byte(tmp_path, options):
    odd = tmp_path / "odd"
    odd.mkdir()
    make_tar(odd / "a.tar", [("a.jpg", picture(0))])
    make_tar(odd / "a-000000.tar", [("b.jpg", picture(1))])
    make_tar(odd / "images-000000.tar", [("c.jpg", picture(2))])
    before = snapshot(odd)
    for _ in range(2):
        assert filter_images(odd, odd, EVERYTHING, options).selection.written == 3
    for spelling in (odd, f"{odd}/../odd", os.path.relpath(odd)):
        with pytest.raises((ConfigurationError, StageError), match=r"a-000000\.tar is there, and Tastemaker did not"):
            write_pipeline(odd, spelling)
        assert {name: state for name, state in snapshot(odd).items() if name in before} == before


@pytest.mark.parametrize("content", ["parquet", "half", "empty"])
def test_somebody_elses_parquet_is_called_foreign(tmp_path, options, content):
    """img2dataset writes 00000.parquet beside 00000.tar."""
    shards, name = tmp_path / "in", "00000.parquet"
    shards.mkdir()
    make_tar(shards / "00000.tar", [("a.jpg", picture(0))])
    (shards / "rows").mkdir()
    for path in (shards / name, shards / "rows" / name):
        pq.write_table(pa.table({"url": ["http://somewhere"], "status": ["success"]}), path)
        path.write_bytes(path.read_bytes()[: {"parquet": None, "half": 40, "empty": 0}[content]])
    before = snapshot(shards)
    for mode in (RunMode(), RunMode(overwrite=True)):
        with pytest.raises(ConfigurationError, match=rf"rows/{name} is there, and Tastemaker did not write it"):
            run_scoring(shards / "00000.tar", shards, options, mode)
    with pytest.raises((ConfigurationError, StageError), match=f"{name} is there, and Tastemaker did not write it"):
        write_pipeline(shards / "00000.tar", shards)
    assert {path: state for path, state in snapshot(shards).items() if path in before} == before
    assert not list(shards.rglob("*-000000.tar"))


# -- dangerous positions of output and input


def score(inputs, output, options, _table):
    run_scoring(inputs, output, options)


def score_and_cut(inputs, output, options, _table):
    filter_images(inputs, output, FIRST, options, RunMode(overwrite=True))


def select_all(_inputs, output, _options, table):
    select_images(table, output, EVERYTHING, kind="folder", overwrite=True)


def write_tars(inputs, output, _options, _table):
    write_pipeline(inputs, output)


def select_tars(_inputs, output, _options, table):
    select_images(table, output, FIRST, kind="webdataset", overwrite=True)


def select_links(_inputs, output, _options, table):
    select_images(table, output, EVERYTHING, kind="links", overwrite=True)


def select_list(_inputs, output, _options, table):
    select_images(table, output / "a.csv" if output.is_dir() else output, FIRST, kind="manifest", overwrite=True)


def select_sheet(_inputs, output, _options, table):
    select_images(table, output / "a.pdf" if output.is_dir() else output, EVERYTHING, kind="pdf", overwrite=True)


def select_and_undo(_inputs, output, _options, table):
    with contextlib.suppress(ConfigurationError):
        select_images(table, output, EVERYTHING, kind="folder")
    take_back_selection(output)


def write_page(_inputs, output, _options, table):
    write_report(table, output / "a.txt" if output.is_dir() else output)


def add_stars(_inputs, _output, _options, table):
    write_stars(table, EVERYTHING, StarOptions(overwrite=True))


def learn(inputs, output, options, _table):
    """Learn from ratings into a file that is there, or that is not, as the position says."""
    if not (examples := inputs.parent / "ratings.csv").exists():
        names = [f"{number}.jpg" for number in range(24)]
        run_scoring(make_pictures(inputs.parent / "rated", names), inputs.parent / "learned", options)
        examples.write_text("image,rating\n" + "".join(f"{name},{n % 5}\n" for n, name in enumerate(names)))
    output = output / "a.safetensors" if output.is_dir() else output.with_suffix(".safetensors")
    table = ScoreTable(inputs.parent / "learned")
    learn_taste(table, output, examples, model_dir=options.model_dir)


def export_from_page(_inputs, output, _options, table):
    folder = Path(table.sources[0].path).parents[1]
    explorer = Explorer([str(folder)])
    explorer.export(Filter(), str(output), "folder", "100%")
    while explorer.exports.state()["state"] == "running":
        time.sleep(0.01)
    explorer.close()
    if explorer.exports.state()["state"] == "failed":
        raise ConfigurationError(explorer.exports.state()["message"])


def run_for_nemo(inputs, output, _options, _table):
    """Run a script as ``tastemaker run`` does."""
    script = inputs.parent / "script.py"
    script.write_text(
        "import sys\nfrom nemo_curator.pipeline import Pipeline\n"
        "from nemo_curator.stages.file_partitioning import FilePartitioningStage\n"
        "from nemo_curator.stages.image.io.image_reader import ImageReaderStage\n"
        "from nemo_curator.stages.image.io.image_writer import ImageWriterStage\n"
        "stages = [FilePartitioningStage(sys.argv[1]), ImageReaderStage(), ImageWriterStage(sys.argv[2])]\n"
        "Pipeline(name='tars', stages=stages).run()\n"
    )
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [])
            patch.setattr(sys, "path", [*sys.path])
            run_script(script, [str(inputs), str(output)])
    except SystemExit:
        raise StageError(error.getvalue()) from None
    finally:
        uninstall()


def make_demo(_inputs, output, options, _table):
    run_demo(output, options.model_dir)


COMMANDS = [score, score_and_cut, select_all, select_tars, select_links, select_list, write_page, add_stars, write_tars]
COMMANDS += [select_sheet, select_and_undo, learn, export_from_page, run_for_nemo, make_demo]


@pytest.fixture(scope="module", params=[".", "below", "mine", "mine/a.jpg", "../photos", "../link"])
def scene(tmp_path_factory, model_dir, request):
    """A folder of a user's files, an output in a dangerous position, options, and the rows of some of the pictures."""
    folder, options = tmp_path_factory.mktemp("scene"), RunOptions(model_dir=str(model_dir))
    photos = make_pictures(folder / "photos")
    run_scoring(photos, folder / "scores", options)
    make_pictures(photos / "mine", ["a.jpg", "kept.jpg", "kept/a.jpg", "rows/a.jpg"])
    for name in ("a.txt", "a.csv", "a.pdf", "a.safetensors", "input/a.jpg", "mine/input/a.jpg", "below/input/a.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"mine")
    (folder / "link").symlink_to(photos)
    return photos, photos / request.param, options, ScoreTable(folder / "scores")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_touches_a_file_of_the_user_whatever_the_output_is(scene, command):
    before, refusals = snapshot(scene[0]), []
    for _ in range(2):
        try:
            command(*scene)
        except (ConfigurationError, StageError, OSError) as error:
            refusals.append(str(error))
        after = snapshot(scene[0])
        assert {name: after.get(name) for name in before} == before
    words = ("did not write it", "no selection wrote it", "lies in the output", "is a file", "Not a directory")
    words += ("file ends with", "File exists", "a file has that name", "files of others")
    assert all(any(word in refusal for word in words) for refusal in refusals), refusals
    for name in after.keys() - before.keys():  # what it wrote is not in the way of the next command
        (scene[0] / name).unlink()


@pytest.mark.parametrize("position", [".", "below"])
@pytest.mark.parametrize("shards", [False, True])
def test_a_pipeline_does_not_read_the_tars_that_it_wrote_into_its_input(tmp_path, photos, position, shards):
    inputs = make_tiny_shards(tmp_path / "in") if shards else photos
    first = [sorted(task.data) for task in write_pipeline(inputs, inputs / position)]
    before = snapshot(inputs)
    assert [sorted(task.data) for task in write_pipeline(inputs, inputs / position)] == first
    assert snapshot(inputs).keys() == before.keys()


def test_tars_of_a_pipeline_are_input_where_they_are_named(tmp_path, photos):
    write_pipeline(photos, tmp_path / "tars")
    (tmp_path / "tars" / "README.txt").write_text("mine")
    tasks = FilePartitioningStage(str(tmp_path / "tars")).process()
    assert [Path(path).suffix for task in tasks for path in task.data] == [".tar"]


def test_results_of_another_input_stay_where_they_are(tmp_path, photos, options):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    filter_images(shards, out, EVERYTHING, options)
    rows = snapshot(out / "rows")
    found = filter_images(photos, out, EVERYTHING, options)
    assert (found.run.images, found.run.other_rows_files) == (4, 3)
    assert rows.items() <= snapshot(out / "rows").items()
    assert copies(out / "kept") == copies(photos)  # what the last command kept


# -- what a person changed, and what has no original any more


@pytest.mark.parametrize("cut", [FIRST, EVERYTHING], ids=["not kept any more", "still kept"])
def test_a_copy_that_a_person_edited_is_moved_aside_and_said(tmp_path, photos, model_dir, options, cut):
    out = tmp_path / "out"
    filter_images(photos, out, EVERYTHING, options)
    edited, caption = out / "kept" / "below" / "c.jpg", out / "kept" / "b.txt"
    edited.write_bytes(b"edited by hand")
    size = caption.stat().st_size
    caption.write_text("x" * size)  # of the same size
    top = ["--top", "1"] if cut is FIRST else ["--min-score", "-100"]
    said = tastemaker("filter", photos, "-o", out, *top, "--model-dir", model_dir).stderr
    assert "moved 2 earlier files" in said
    aside = out / "kept" / "_tastemaker" / "aside" / "1"
    assert copies(aside) == {"below/c.jpg": b"edited by hand", "b.txt": b"x" * size}
    if cut is EVERYTHING:
        assert copies(out / "kept") == copies(photos)
    edited.parent.mkdir(exist_ok=True)
    filter_images(photos, out, EVERYTHING, options)
    edited.write_bytes(b"edited again")
    assert filter_images(photos, out, FIRST, options).selection.moved_aside == {str(out / "kept/_tastemaker/aside"): 1}
    assert len(list((out / "kept" / "_tastemaker" / "aside").rglob("c.jpg"))) == 2  # neither replaces the other


def test_a_file_that_a_person_put_beside_the_copies_stays(tmp_path, photos, options):
    out = tmp_path / "out"
    filter_images(photos, out, EVERYTHING, options)
    (out / "kept" / "below" / "mine.txt").write_text("mine")
    filter_images(photos, out, FIRST, options)
    assert set(copies(out / "kept")) == {"a.jpg", "below/mine.txt"}
    (out / "kept" / "b.jpg").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"b\.jpg is there, and Tastemaker did not write it"):
        filter_images(photos, out, EVERYTHING, options)
    assert (out / "kept" / "b.jpg").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_the_last_copy_of_an_original_that_is_gone_is_never_deleted(tmp_path, photos, options, kind):
    out, lost = tmp_path / "out", copies(photos)
    filter_images(photos, out, EVERYTHING, options, kind=kind)
    for path in list(photos.rglob("*.*")):
        path.unlink()
    make_pictures(photos, ["new.jpg", "other.jpg"])
    filter_images(photos, out, EVERYTHING, options, kind=kind)
    assert copies(out / "kept" / "_tastemaker" / "aside" / "1") == lost
    assert copies(out / "kept") == copies(photos)


def test_a_shard_that_another_of_its_name_replaced_leaves_no_copies_behind(tmp_path, options):
    shards, out = make_tiny_shards(tmp_path / "in"), tmp_path / "out"
    for pass_number in range(2):
        filter_images(shards, out, EVERYTHING, options)
        write_pipeline(shards, tmp_path / "tars")
        if not pass_number:
            make_tar(shards / "1.tar", [("other.jpg", picture(99))])
    for folder in (out / "kept", tmp_path / "tars"):
        found = {name for name in copies(folder) if name.endswith("jpg")}
        assert found == {"other.jpg", *(f"{shard}{n}.jpg" for shard in (0, 2) for n in range(3))}


def test_links_are_ours_only_where_they_lead_where_we_made_them_lead(tmp_path, table, photos):
    select_images(table, tmp_path / "links", EVERYTHING, kind="links")
    link = tmp_path / "links" / "b.jpg"
    link.unlink()
    link.symlink_to(photos / "a.jpg")
    summary = select_images(table, tmp_path / "links", FIRST, kind="links", overwrite=True)
    assert summary.moved_aside == {str(tmp_path / "links" / "_tastemaker" / "aside"): 1}
    assert (tmp_path / "links" / "a.jpg").readlink() == photos / "a.jpg"
    assert not link.is_symlink()
    assert copies(photos).keys() == {"a.jpg", "b.jpg", "b.txt", "below/c.jpg", "below/d.png"}


@pytest.mark.parametrize("name", ["../mine.txt", "link/mine.txt", "{}/mine.txt", "a/../../mine.txt"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_record_from_somebody_else_makes_nothing_outside_its_folder_ours(tmp_path, table, name, is_known):
    (tmp_path / "mine.txt").write_bytes(b"mine")
    theirs = tmp_path / "theirs"
    select_images(table, theirs, EVERYTHING, kind="folder")
    (theirs / "link").symlink_to("..")
    record = theirs / "_tastemaker" / "files" / "files.jsonl"
    digest = xxhash.xxh3_64_hexdigest(b"mine" if is_known else b"other")
    lines = [json.dumps([name.format(tmp_path), 4, digest, ""]), "no JSON", '["too", "short"]', "[" * 100_000]
    record.write_text(record.read_text() + "\n".join([*lines, ""]))
    select_images(table, theirs, FIRST, kind="folder", overwrite=True)
    assert (tmp_path / "mine.txt").read_bytes() == b"mine"
    assert set(copies(theirs)) == {"a.jpg"}


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", "null", "no JSON", '{"state": "finished", "request": [], "started": 1, "summary": []}'],
)
def test_notes_that_somebody_else_wrote_end_no_command(tmp_path, photos, options, text):
    out = tmp_path / "out"
    filter_images(photos, out, EVERYTHING, options)
    for note in (out / "_tastemaker" / "run.json", out / "kept" / "_tastemaker" / "selection.json"):
        note.write_text(text)
    write_report(out, tmp_path / "page.html")
    assert filter_images(photos, out, FIRST, options).run.images_scored_now == 0
    assert set(copies(out / "kept")) == {"a.jpg"}


@pytest.mark.parametrize("content", ["damaged", "foreign"])
def test_a_list_of_copies_that_is_none_is_named_and_no_copy_is_deleted(tmp_path, photos, options, content):
    out = tmp_path / "out"
    filter_images(photos, out, EVERYTHING, options)
    listing = out / "kept" / "_tastemaker" / "selected.parquet"
    listing.write_bytes(b"damaged")
    if content == "foreign":
        pq.write_table(pa.table({"x": [1]}), listing)
    with pytest.raises(ConfigurationError, match=r"selected\.parquet is no list of copies; move it away"):
        filter_images(photos, out, FIRST, options)
    assert copies(out / "kept") == copies(photos)


# -- names that meet on the target


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "A.jpg", "a.JPG"],
        ["caf\u00e9.jpg", "cafe\u0301.jpg"],
        ["stra\u00dfe.jpg", "STRASSE.jpg"],
        ["a.b.jpg", "a.c.jpg", "a.jpg"],
        ["a.jpg", "a.png"],
        ["a.jpg", "a.jpg/b.jpg"],
    ],
    ids=["case", "accents", "folded", "dotted stems", "two extensions", "file and folder"],
)
def test_names_that_meet_are_all_there_for_a_reader(tmp_path, options, kind, names):
    pictures = {name: picture(n, "PNG" if name.endswith("png") else "JPEG") for n, name in enumerate(names)}
    for number, (name, data) in enumerate(pictures.items()):  # a shard each: one shard may have a key once
        make_tar(tmp_path / f"{number}.tar", [(name, data)])
    out = tmp_path / "out"
    found = filter_images([str(tmp_path / f"{n}.tar") for n in range(len(names))], out, EVERYTHING, options, kind=kind)
    assert found.selection.written == len(names)
    assert count_samples(out / "kept") == len(names)
    if kind == "folder":
        written = copies(out / "kept")
        assert sorted(written.values()) == sorted(pictures.values())
        assert len({name.casefold() for name in written}) == len(names)


def count_samples(folder):
    """Count what a reader finds: a sample for each key of each tar, or each picture of a folder."""
    reader, groups = ImageReaderStage(), FilePartitioningStage(str(folder)).process()
    return sum(batch.num_items for task in groups for batch in reader.process(task))


def test_rows_and_copies_agree_where_a_key_is_there_twice(tmp_path, photos, options):
    (photos / "a.png").write_bytes(picture(7, "PNG"))  # a.jpg and a.png: two pictures of one key
    for kind in ("folder", "webdataset"):
        found = filter_images(photos, tmp_path / kind, EVERYTHING, options, kind=kind)
        listed = pq.read_table(tmp_path / kind / "kept" / "_tastemaker" / "selected.parquet")
        assert len(rows_of(tmp_path / kind)) == found.selection.written == len(listed) == 5
        assert count_samples(tmp_path / kind / "kept") == 5
    write_pipeline(photos, tmp_path / "tars")
    assert count_samples(tmp_path / "tars") == 5


@pytest.mark.parametrize(
    "command", [("report", "--output", "page.html"), ("select", "--where", "true", "--as", "manifest", "--to", "m.csv")]
)
def test_a_killed_command_leaves_no_draft_beside_its_file_and_none_once_it_is_given_again(tmp_path, table, command):
    program = "import os, pathlib, sys; pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9); "
    program += "from tastemaker.__main__ import main; main()"
    (tmp_path / "out").mkdir()
    given = [command[0], str(tmp_path / "scores"), *command[1:]]
    ended = subprocess.run([sys.executable, "-c", program, *given], cwd=tmp_path / "out", check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_tastemaker"]
    assert tastemaker(*given, cwd=tmp_path / "out").returncode == 0
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(DRAFT_PREFIX)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["_tastemaker", command[-1]])
