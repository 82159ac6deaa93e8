"""The public list: complete, documented, and loaded lazily."""

import inspect
import subprocess
import sys

import tastemaker


def test_every_public_name_can_be_imported_and_has_a_docstring():
    for name in tastemaker.__all__:
        value = getattr(tastemaker, name)
        if name != "__version__":
            assert inspect.getdoc(value), name


def test_importing_tastemaker_loads_no_heavy_library():
    code = "import sys, tastemaker; print(*sorted(m for m in sys.modules if '.' not in m))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "ray", "duckdb", "openvino", "pyarrow", "numpy", "PIL", "typer"} & set(modules)


def test_the_stages_of_a_plain_run_load_no_torch():
    code = "import sys, tastemaker.runs.run; from tastemaker import OpenVinoClip; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_all_names_at_once_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; from tastemaker import *; print(Pipeline.__name__)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "Pipeline\n"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(tastemaker, "ImageNSFWFilterStage")
