"""Fixtures of the explorer's tests."""

import pytest

from explorer.table import write_table
from tastemaker.explorer.service import Explorer


@pytest.fixture
def scores(tmp_path):
    """The folder of the rows of twelve pictures and two failures."""
    return write_table(tmp_path)


@pytest.fixture
def explorer(scores, tmp_path):
    """The explorer of these rows."""
    explorer = Explorer([str(scores)], originals=[str(tmp_path)])
    yield explorer
    explorer.close()
