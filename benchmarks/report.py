"""The report of a million rows: time, peak memory, and the size of the page.

    python benchmarks/report.py [--rows 1000000] [--pictures 300] [--side 1400] [--samples 8] [--runs 3]

The rows point at a few hundred loose JPEGs that are made here, several rows at each. Every run is its own process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import photographs, print_machine

from tastemaker.scores.files import RowsFile
from tastemaker.scores.schema import rows_schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--side", type=int, default=1400)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.samples)))
        return
    print_machine("duckdb", "pyarrow", "pillow", "jinja2")
    with tempfile.TemporaryDirectory() as temporary:
        make_rows(Path(temporary), arguments)
        command = [sys.executable, __file__, "--measure", temporary, "--samples", str(arguments.samples)]
        outputs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(arguments.runs)]
    runs = [json.loads(output.stdout) for output in outputs]
    print(f"\n{arguments.rows:,} rows, median (range) of {arguments.runs} processes")
    for name in runs[0]:
        values = [run[name] for run in runs]
        print(f"  {name:18} {statistics.median(values):8.1f}  ({min(values):.1f} to {max(values):.1f})")


def measure(folder: Path, samples: int) -> dict[str, float]:
    from tastemaker import write_report

    started = time.perf_counter()
    summary = write_report(folder, folder / "report.html", samples=samples)
    return {
        "seconds": time.perf_counter() - started,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "page, MB": summary.bytes / 1e6,
        "pictures": summary.pictures,
        "placeholders": summary.missing,
    }


def make_rows(folder: Path, arguments: argparse.Namespace) -> None:
    sizes = []
    for number, data in enumerate(photographs(arguments.side, arguments.pictures)):
        (folder / f"{number:04d}.jpg").write_bytes(data)
        sizes.append(len(data))
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(sizes), arguments.rows)
    texts = {"image_id": "{:04d}", "image_path": f"{folder}/{{:04d}}.jpg"}
    columns = {name: [text.format(number) for number in chosen] for name, text in texts.items()}
    columns |= {"offset": [0] * arguments.rows, "size": np.array(sizes)[chosen]}
    columns |= {"aesthetic_score": rng.normal(5.1, 0.7, arguments.rows)}
    columns |= {"format": ["JPEG"] * arguments.rows, "status": ["kept"] * arguments.rows}
    schema = rows_schema(with_embeddings=False, with_signals=False, provenance={"tastemaker": "benchmark"})
    file = RowsFile(folder / "rows.parquet", schema)
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(arguments.rows, field.type)
        for field in schema
    ]
    file.add_rows(pa.table(arrays, schema=schema))
    file.commit()


if __name__ == "__main__":
    main()
