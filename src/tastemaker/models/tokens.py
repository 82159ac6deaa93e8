"""Text to tokens, by the library ``tokenizers``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tastemaker.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a ``tokenizer.json``.

    Raises:
        ModelError: The file cannot be read, or holds something else.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
