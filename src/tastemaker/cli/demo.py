"""``tastemaker demo``: the whole program on a few photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.options import ModelDirOption

EXAMPLE = "Example: tastemaker demo --output demo-output"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the results to this folder.")] = Path(
        "demo-output"
    ),
    model_dir: ModelDirOption = None,
) -> None:
    """Rank seven photographs and their damaged versions, and write a report about them."""
    from rich.console import Console
    from rich.table import Table

    from tastemaker.demo import run_demo

    result = run_demo(output, model_dir)
    console = Console(highlight=False)
    if result.why:
        console.print(result.why, style="yellow", markup=False, soft_wrap=True)
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column(result.ranked_by, justify="right")
    table.add_column("picture")
    table.add_column("")
    for rank, (name, score) in enumerate(result.ranking, 1):
        is_kept = rank <= result.kept
        table.add_row(str(rank), f"{score:.3f}", name, "kept" if is_kept else "", style="bold" if is_kept else "")
    console.print(table)
    console.print(
        f"\nPage     {result.page}\nResults  {result.summary.output_dir} (rows of all, originals of the kept)",
        soft_wrap=True,
    )
