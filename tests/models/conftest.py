"""These tests are about what is in a picture."""

import pytest


@pytest.fixture(scope="session")
def photographs(full_photographs):
    return full_photographs
