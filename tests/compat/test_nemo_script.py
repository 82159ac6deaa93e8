"""Scripts written for NeMo Curator, run as they are."""

import sys
import types

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import encode, make_tar, read_rows, read_tars
from nemo_scripts import CURATE, OWN_STAGES, run_as_user

from tastemaker.compat.nemo_curator import install, uninstall
from tastemaker.compat.nemo_curator.models import CLIPAestheticScorer
from tastemaker.imaging.decode import decode_image


@pytest.fixture
def write_script(tmp_path):
    def write(text, name="script.py"):
        path = tmp_path / "scripts" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def photographs(full_photographs):
    return full_photographs


@pytest.fixture(scope="module")
def jpegs(photographs):
    """Real photographs as JPEG, so that NeMo Curator would read all of them."""
    return {
        name.split(".")[0]: data if data[:2] == b"\xff\xd8" else encode(decode_image(data).pixels, "JPEG", quality=90)
        for name, data in photographs.items()
    }


@pytest.fixture
def shard_folder(tmp_path, jpegs):
    """Two shards with captions and JSON, a broken image, and the Parquet file that downloaders leave beside them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    names = sorted(jpegs)
    first = [(f"{name}.{ext}", data) for name in names[:4] for ext, data in files_of(name, jpegs)]
    second = [(f"{name}.{ext}", data) for name in names[4:] for ext, data in files_of(name, jpegs)]
    make_tar(folder / "00000.tar", [*first, ("broken.jpg", jpegs["rocket"][:5000]), ("broken.txt", b"half a rocket")])
    make_tar(folder / "00001.tar", second)
    (folder / "00000.parquet").write_bytes(b"of another program")
    return folder


def files_of(name, jpegs):
    return [("jpg", jpegs[name]), ("txt", f"caption of {name}".encode()), ("json", b'{"a": 1}')]


@pytest.fixture
def scores(jpegs, model_dir):
    """Name -> score as NeMo Curator computes it."""
    names = sorted(jpegs)
    values = CLIPAestheticScorer(str(model_dir))([decode_image(jpegs[name]).pixels for name in names])
    return dict(zip(names, map(float, values), strict=True))


def test_documented_script_runs_unchanged(write_script, shard_folder, tmp_path, model_dir, jpegs, scores):
    cutoff = float(np.median(list(scores.values())))
    output = tmp_path / "curated"
    options = ("--images-per-tar", 2, "--batch-size", 3, "--aesthetic-threshold", cutoff, "--verbose")
    folders = ("--input-wds-dataset-dir", shard_folder, "--output-dataset-dir", output, "--model-dir", model_dir)
    done = run_as_user(write_script(CURATE), *folders, *options)
    assert done.returncode == 0, done.stderr
    kept = {name for name, score in scores.items() if score >= cutoff}
    assert 0 < len(kept) < len(scores)
    assert f"{len(kept)} images kept" in done.stdout
    assert "Stage 5: image_writer" in done.stdout

    rows = {row["image_id"]: row for row in read_rows(output)}
    assert set(rows) == {*scores, "broken"}
    assert {key for key, row in rows.items() if row["status"] == "kept"} == kept
    assert rows["broken"]["status"] == "failed"
    assert rows["broken"]["reason"].startswith("unreadable:")
    for name, score in scores.items():
        assert rows[name]["aesthetic_score"] == pytest.approx(score, abs=1e-4)
    expected = {f"{name}.{extension}": data for name in kept for extension, data in files_of(name, jpegs)}
    assert read_tars(output) == expected

    assert "no cluster is started" in done.stderr
    assert "Aesthetic filtering:" in done.stderr
    made_by = pq.read_schema(next(output.glob("*.parquet"))).metadata[b"tastemaker"].decode()
    for entry in ('"preprocess": "transformers"', '"exif_rotation": "applied"', '"precision": "f32"'):
        assert entry in made_by


@pytest.fixture
def run_own_stages(photo_folder, tmp_path, model_dir, monkeypatch):
    """A function that runs `OWN_STAGES` with one of its stages in this process, and returns its output folder."""

    def run(choice):
        module, output = types.ModuleType("own_stages"), tmp_path / "out"
        monkeypatch.setitem(sys.modules, "own_stages", module)
        monkeypatch.setattr(sys, "argv", ["script.py", str(photo_folder), str(output), str(model_dir), choice])
        exec(OWN_STAGES, vars(module))
        return output

    install()
    yield run
    uninstall()


def test_image_that_a_users_filter_leaves_out_is_a_row(run_own_stages, photographs):
    output = run_own_stages("wide")
    rows = {row["image_id"]: row for row in read_rows(output)}
    dropped = {key for key, row in rows.items() if row["status"] != "kept"}
    assert dropped == {"hubble_deep_field", "motorcycle_left", "rocket"}
    assert {rows[key]["reason"] for key in dropped} == {"dropped by stage 'wide_filter'"}
    assert read_tars(output)["chelsea.png"] == photographs["chelsea.png"]


def test_stage_that_returns_none_loses_nothing(run_own_stages):
    rows = read_rows(run_own_stages("none"))
    assert len(rows) == 7
    assert {row["reason"] for row in rows} == {"dropped by stage 'nothing_passes'"}


def test_pixels_that_a_stage_changed_are_written(run_own_stages, photo_folder, tmp_path):
    run_own_stages("gray")
    tars = read_tars(tmp_path / "out")
    pixels = decode_image(tars["coffee.jpg"]).pixels.astype(int)
    assert pixels.shape == (400, 600, 3)
    assert np.abs(pixels[:, :, 0] - pixels[:, :, 1]).max() <= 2
    assert tars["coffee.txt"] == b"a cup of coffee"
    rows = {row["image_id"]: row for row in read_rows(tmp_path / "out")}
    assert rows["coffee"]["member_name"] == "coffee.jpg"
    assert rows["coffee"]["size"] == (photo_folder / "coffee.png").stat().st_size


def test_arguments_and_neighbours_of_the_script_are_found(write_script):
    write_script("WORD = 'neighbour'", "helper.py")
    script = write_script("import sys\nfrom helper import WORD\nprint(__name__, WORD, sys.argv[1:])")
    done = run_as_user(script, "--flag", "two words")
    assert done.stdout == "__main__ neighbour ['--flag', 'two words']\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        ("def fail():\n    return 1 / 0\n\n\nfail()\n", 1, "ZeroDivisionError: division by zero"),
        ("def broken(:\n", 1, "SyntaxError: invalid syntax"),
        ("raise SystemExit(7)", 7, ""),
    ],
)
def test_a_script_ends_as_it_would_alone(write_script, text, code, last):
    script = write_script(text)
    done = run_as_user(script)
    assert done.returncode == code
    assert done.stderr.rstrip().endswith(last)
    if "fail" in text:  # none of Tastemaker's own lines are shown
        assert done.stderr.startswith(f'Traceback (most recent call last):\n  File "{script}", line 5, in <module>')


def test_missing_script_is_one_sentence(tmp_path):
    done = run_as_user(tmp_path / "no.py")
    assert "no.py does not exist" in done.stderr.splitlines()[-1]


def test_import_that_is_not_offered_says_what_is(write_script):
    done = run_as_user(write_script("from nemo_curator.stages.image.captioners import CaptionStage"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "has no nemo_curator.stages.image.captioners" in last
    assert "nemo_curator.stages.image holds: deduplication, embedders, filters, io" in last


def test_installed_nemo_curator_is_not_used(write_script, tmp_path):
    real = tmp_path / "site" / "nemo_curator"
    (real / "pipeline").mkdir(parents=True)
    (real / "__init__.py").write_text("raise RuntimeError('the real one was imported')")
    (real / "pipeline" / "__init__.py").write_text("")
    script = write_script("from nemo_curator.pipeline import Pipeline\nprint(Pipeline.__module__)")
    done = run_as_user(script, path=[tmp_path / "site"])
    assert done.stdout == "tastemaker.compat.nemo_curator.engines\n"
    assert f"NeMo Curator is installed ({real / '__init__.py'}); Tastemaker is used instead" in done.stderr


def test_logging_of_the_script_is_its_own(write_script):
    script = write_script(
        "import logging, sys\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(levelname)s %(message)s')\n"
        "logging.info('mine')\n"
        "from nemo_curator.core.client import RayClient\n"
        "RayClient(num_cpus=4).start()\n"
    )
    done = run_as_user(script)
    assert done.stdout.splitlines()[0] == "INFO mine"
    assert "no cluster" in done.stdout
    assert done.stderr == ""
