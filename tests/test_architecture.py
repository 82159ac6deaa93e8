"""The house has floors: packages import downwards only, also lazily and for types."""

import ast
import re
from collections import Counter
from pathlib import Path

import tastemaker

ROOT = Path(tastemaker.__file__).parent
TOP = "tastemaker."
FLOORS = (
    *(
        "errors",
        "machine",
        "checks",
        "progress",
        "children",
        "storage",
        "imaging",
        "models",
        "testing",
        "stage_perf",
        "tasks",
        "provenance",
        "taste",
        "scores",
    ),
    *("stages", "executors", "embeddings", "parity", "runs", "pipeline", "selections", "explorer", "demo"),
    *("compat", "cli", "__main__"),
)
"""Modules and packages directly below `tastemaker`, the lowest first."""


def read_imports():
    """Return module -> the modules of this package that it imports anywhere, named without `tastemaker.`."""
    paths = {name_of(path): path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"}
    imports = {}
    for module, path in paths.items():
        imported = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} imports by a relative name"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= {name if name.removeprefix(TOP) in paths else node.module for name in names}
        imports[module] = {name.removeprefix(TOP) for name in imported} & paths.keys()
    return imports


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def reachable(module, imports):
    found, left = set(), [module]
    while left:
        new = imports[left.pop()] - found
        found |= new
        left += new
    return found


def test_packages_import_downwards_only():
    floor = {name: number for number, name in enumerate(FLOORS)}
    found = {
        f"{module} -> {other}"
        for module, others in read_imports().items()
        for other in others
        if floor[module.partition(".")[0]] < floor[other.partition(".")[0]]
    }
    assert found == set()


def test_no_imports_go_in_a_circle():
    imports = read_imports()
    assert [module for module in imports if module in reachable(module, imports)] == []


def test_no_base_name_of_a_module_stands_three_times():
    names = Counter(path.stem for path in ROOT.rglob("*.py") if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 2] == []


def test_the_words_of_the_house_mean_one_thing_each():
    words = Counter(
        name
        for path in ROOT.rglob("*.py")
        for node in ast.parse(path.read_bytes()).body
        for name in ([node.name] if isinstance(node, ast.ClassDef) else map(ast.unparse, getattr(node, "targets", [])))
    )
    assert {words[word] for word in ("Slice", "Place", "Source", "Sample", "Partition")} == {1}


def test_stages_do_not_talk_through_string_keys():
    """`Task.partition` is typed. `Task._metadata` is for programs: it is handed on, and no key of it is read."""
    reads = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Subscript | ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "_metadata"
        and getattr(node, "attr", "") != "items"
    ]
    assert reads == []


def test_parquet_is_read_without_pyarrows_threads():
    """By `ParquetFile` of `tastemaker.storage.parquet`, which says why."""
    reads = re.compile(r"pq\.(ParquetFile|read_table|ParquetDataset)\(")
    assert [name_of(path) for path in ROOT.rglob("*.py") if reads.search(path.read_text())] == []
