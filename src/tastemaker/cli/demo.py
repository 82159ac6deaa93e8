"""``tastemaker demo``: the whole program on a few photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.columns import print_columns
from tastemaker.cli.options import ModelDirOption

EXAMPLE = "Example: tastemaker demo --output demo-output"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the results to this folder.")] = Path(
        "demo-output"
    ),
    model_dir: ModelDirOption = None,
) -> None:
    """Rank seven photographs and their damaged versions, and write a report about them."""
    from tastemaker.demo import run_demo

    result = run_demo(output, model_dir)
    if result.why:
        typer.echo(result.why)
    lines = [
        (f"{rank}", f"{score:.3f}", name, "kept" if rank <= result.kept else "")
        for rank, (name, score) in enumerate(result.ranking, 1)
    ]
    print_columns(("rank", result.ranked_by, "picture", ""), lines)
    typer.echo(f"\nPage     {result.page}\nResults  {result.summary.output_dir} (rows of all, originals of the kept)")
