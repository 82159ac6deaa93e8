"""Which array or column holds the embeddings, where several could."""

from __future__ import annotations

from collections.abc import Mapping

from tastemaker.errors import ConfigurationError, ModelError

EMBEDDING_NAMES = (
    *("embedding", "image_embedding", "img_emb", "embeddings", "image_embeddings", "img_embedding", "img_embeddings"),
    *("image_embeds", "image_embs", "img_embs", "clip_embedding", "clip_image_embedding", "image_features", "features"),
    *("l14_img", "vector", "emb", "arr_0"),
)
"""Names by which embeddings of images are known, the first in this order that is there."""

_TEXT_MARKS = ("txt", "text", "caption")


def choose_name(widths: Mapping[str, int | None], wanted: str | None, size: int, path: str) -> str:
    """Return which of several arrays or columns holds the embeddings of images.

    This is the one that the user names, or else the only one of ``size`` numbers a row whose name does not speak of
    text. If several are left, the first name in `EMBEDDING_NAMES` decides. Rows of no fixed length need such a name.

    Args:
        widths: Name of each array or column of floating-point numbers -> numbers in a row; None where they vary.
        wanted: The name that the user gave.
        size: Numbers in an embedding.
        path: The file, for messages.

    Raises:
        ModelError: No array or column fits.
        ConfigurationError: Several fit, or the one that the user named does not exist.

    Example:
        >>> choose_name({"b32_img": 512, "l14_img": 768, "l14_txt": 768}, None, 768, "0.npz")
        'l14_img'
    """
    there = ", ".join(f"{name} ({'any' if width is None else width} numbers a row)" for name, width in widths.items())
    there = there or "no floating-point arrays"
    if wanted is not None:
        if wanted not in widths:
            raise ConfigurationError(f"{path} has no embeddings called {wanted!r}; it has {there}")
        if widths[wanted] not in (size, None):
            raise ModelError(f"{path}: {wanted} has {widths[wanted]} numbers a row, and this scorer takes {size}")
        return wanted
    fitting = [name for name in widths if widths[name] == size and not any(m in name.lower() for m in _TEXT_MARKS)]
    if not fitting:
        fitting = [name for name in widths if widths[name] is None and name.lower() in EMBEDDING_NAMES]
    if not fitting:
        raise ModelError(
            f"{path} holds no embeddings of {size} numbers a row, as this scorer takes; it has {there}. Choose the "
            "--scorer of their model, or name a column that was not recognised by --column"
        )
    known = sorted((n for n in fitting if n.lower() in EMBEDDING_NAMES), key=lambda n: EMBEDDING_NAMES.index(n.lower()))
    if len(fitting) > 1 and not known:
        raise ConfigurationError(f"{path}: {', '.join(fitting)} could all be the embeddings; say --column NAME")
    return known[0] if known else fitting[0]
