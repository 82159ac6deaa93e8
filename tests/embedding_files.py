"""Files of embeddings as others write them, for tests of what reads them."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

unit_vectors = functools.partial(tiny.unit_vectors, dtype=np.float16)
"""As the files have them that others publish."""


@pytest.fixture
def clip_retrieval(tmp_path):
    """A folder as clip-retrieval writes it, two files of embeddings with their metadata."""
    root = tmp_path / "laion"
    for name in ("img_emb", "text_emb", "metadata"):
        (root / name).mkdir(parents=True)
    for number, count in enumerate((30, 20)):
        np.save(root / "img_emb" / f"img_emb_{number}.npy", unit_vectors(count, number))
        np.save(root / "text_emb" / f"text_emb_{number}.npy", unit_vectors(count, number + 10))
        rows = {
            "image_path": [f"{number:05d}{row:04d}" for row in range(count)],
            "caption": [f"picture {row}" for row in range(count)],
            "URL": [f"https://example.com/{row}.jpg" for row in range(count)],
            "key": [f"{number}-{row}" for row in range(count)],
            "WIDTH": [float(row) if row else float("nan") for row in range(count)],
            "HEIGHT": [480] * count,
            "similarity": np.linspace(0.2, 0.4, count),
            "aesthetic_score": [6.5] * count,
        }
        pq.write_table(pa.table(rows), root / "metadata" / f"metadata_{number}.parquet")
    return root
