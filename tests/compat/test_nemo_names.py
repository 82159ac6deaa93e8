"""The import names: what is found, what is not, and what is said then."""

import importlib
import importlib.util
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from nemo_scripts import run_as_user

from tastemaker.compat.nemo_curator import NAMES, install, uninstall
from tastemaker.errors import ConfigurationError


@pytest.fixture
def names():
    install()
    yield
    uninstall()


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_every_name_of_the_table_is_there(names, module, name):
    home, _, attribute = NAMES[module][name].partition(":")
    assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(home), attribute)


def test_page_lists_exactly_the_names_there_are():
    page = Path(__file__).resolve().parents[2] / "docs" / "nemo-compatibility.md"
    rows = re.findall(r"^\| `(nemo_curator[\w.]*)` \| (.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    assert listed == {module: set(names) for module, names in NAMES.items()}


def test_all_forms_of_import_reach_the_same_module(names):
    import nemo_curator
    import nemo_curator.pipeline as by_name
    from nemo_curator import pipeline as from_package
    from nemo_curator.pipeline import Pipeline
    from nemo_curator.pipeline.pipeline import Pipeline as FromBelow

    assert nemo_curator.pipeline is by_name is from_package
    assert by_name.Pipeline is Pipeline is FromBelow
    assert nemo_curator.stages.image.io.image_writer.ImageWriterStage.__name__ == "ImageWriterStage"
    assert nemo_curator.__version__.startswith("1.4.0+tastemaker.")


def test_star_import_brings_the_public_names(names):
    scope = {}
    exec("from nemo_curator.tasks import *", scope)
    assert {"DocumentBatch", "EmptyTask", "FileGroupTask", "ImageBatch", "ImageObject", "Task"} == set(scope) - {
        "__builtins__"
    }


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("from nemo_curator.tasks import VideoTask", "nemo_curator.tasks.VideoTask"),
        ("from nemo_curator.tasks.image import VideoTask", "nemo_curator.tasks.image.VideoTask"),
        ("from nemo_curator.stages import video", "nemo_curator.stages.video"),
        ("from nemo_curator.stages.base import get_stage_class", "nemo_curator.stages.base.get_stage_class"),
        ("import nemo_curator.stages.video.io", r"nemo_curator\.stages\.video\. .* holds: base, "),
    ],
)
def test_missing_name_is_an_import_error_that_says_so(names, statement, missing):
    with pytest.raises(ImportError, match=f"Tastemaker has no {missing}"):
        exec(statement, {})


def test_missing_attribute_is_an_attribute_error(names):
    import nemo_curator.tasks

    assert not hasattr(nemo_curator.tasks, "VideoTask")
    with pytest.raises(AttributeError, match=r"nemo_curator\.tasks holds: DocumentBatch, EmptyTask"):
        _ = nemo_curator.tasks.VideoTask


def test_classes_travel_between_processes(names):
    from nemo_curator.stages.image.io.image_reader import ImageReaderStage
    from nemo_curator.tasks import ImageObject

    stage = pickle.loads(pickle.dumps(ImageReaderStage(7)))
    assert (type(stage), stage.batch_size) == (ImageReaderStage, 7)
    assert pickle.loads(pickle.dumps(ImageObject(image_id="a"))).image_id == "a"


def test_install_after_the_real_one_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "nemo_curator", types.ModuleType("nemo_curator"))
    with pytest.raises(ConfigurationError, match="imported already"):
        install()


def test_import_of_the_names_loads_no_engine(tmp_path):
    script = tmp_path / "light.py"
    script.write_text(
        "import sys, nemo_curator.pipeline, nemo_curator.models.clip, nemo_curator.stages.image.io\n"
        "print([name for name in ('torch', 'openvino', 'pyarrow', 'ray', 'transformers') if name in sys.modules])"
    )
    assert run_as_user(script).stdout == "[]\n"


def test_import_of_tastemaker_installs_nothing():
    code = "import tastemaker, tastemaker.cli.run, importlib.util as u; print(u.find_spec('nemo_curator'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("None", "")
