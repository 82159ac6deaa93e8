"""docs/nemo-compatibility.md says what the code does."""

import re
from pathlib import Path

from tastemaker.compat.nemo_curator import NAMES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "nemo-compatibility.md"


def test_page_lists_exactly_the_names_there_are():
    rows = re.findall(r"^\| `(nemo_curator[\w.]*)` \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows} == {
        module: set(names) for module, names in NAMES.items()
    }
