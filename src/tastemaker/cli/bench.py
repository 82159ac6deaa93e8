"""``tastemaker bench``: what this machine can do, and what holds it up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tastemaker.cli import options as o

EXAMPLE = "Example: tastemaker bench --output bench.json"


def bench(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the figures as JSON, too.")] = None,
    model_dir: o.ModelDirOption = None,
    device: o.DeviceOption = o.Device.AUTO,
    as_json: o.JsonOption = False,
) -> None:
    """Measure this machine, in about a minute: decoding, resizing, shards, the model, a whole run."""
    from rich.console import Console

    from tastemaker.bench import measure_machine

    talk = Console(stderr=True)
    with talk.status("measuring") as status:
        report = measure_machine(model_dir, device.value, lambda what: status.update(f"measuring: {what}"))
    text = json.dumps(report, indent=2)
    if output is not None:
        output.write_text(text + "\n")
    if as_json:
        typer.echo(text)
    else:
        print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """Print the figures, on stdout."""
    from rich.console import Console
    from rich.table import Table

    machine = report["machine"]
    console = Console(highlight=False)
    console.print(f"\n{machine['processor']}, {machine['cores']} cores, {' '.join(machine['instructions'])}")
    weights = "" if report["weights"] == "found" else " (random weights: none were found)"
    console.print(f"[dim]{', '.join(f'{name} {version}' for name, version in machine['versions'].items())}[/]\n")
    images = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    images.add_column("images/s, one core")
    for side in report["decode"]:
        images.add_column(f"{side} pixels", justify="right")
    for name in ("decode", "resize"):
        images.add_row(name, *(f"{rate:,.0f}" for rate in report[name].values()))
    console.print(images)
    console.print(f"shards  {report['shards']:,.0f} images/s\n")
    model = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    model.add_column(f"model on {report['device']}, images/s")
    batches = next(rates for rates in report["model"].values() if rates)
    for batch in batches:
        model.add_column(f"batch {batch}", justify="right")
    for precision, rates in report["model"].items():
        cells = [f"{rate:,.2f}" for rate in rates.values()] if rates else ["none"] * len(batches)
        model.add_row(precision, *cells)
    console.print(model)
    run = report["run"]
    console.print(f"\nwhole run  {run['images_per_s']:,.2f} images/s in {run['precision']}{weights}")
    console.print(f"\n{report['bottleneck']}", soft_wrap=True)
