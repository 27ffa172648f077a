"""Measure where the masks of a trained network lie on labelled scans, beside controls.

``python -m benchmarks.localisation --oasis DIR -o DIR``; an interrupted run goes on where it stopped.
"""

import csv
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from benchmarks.localisation.maps import Setup, maps_of, people, prepare_setup
from benchmarks.localisation.page import write_page
from benchmarks.localisation.summary import measure, rows, summarise
from jaxsal.data import write_text_atomic
from jaxsal.explanation.provenance import versions
from jaxsal.models import default_model
from jaxsal.progress import bar


def main(
    oasis: Annotated[Path, typer.Option(help="Folder of scans, manual labels and participants.tsv.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of maps, results.csv and summary.json.")],
    model: Annotated[str | None, typer.Option(help="Name or file of a network; the shipped one without.")] = None,
    scans: Annotated[int | None, typer.Option(help="Number of people; all without.", min=1)] = None,
    solver: Annotated[
        str | None, typer.Option(help="Of the masks; the network's own without, as what follows.")
    ] = None,
    lam: Annotated[float | None, typer.Option(help="Weight of the mask's budget.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Most steps per mask.")] = None,
    tails: Annotated[int, typer.Option(help="Draws of a re-initialised tail.", min=0)] = 1,
    tail_outputs: Annotated[int, typer.Option(help="Outputs explained under each of them.", min=1)] = 4,
    docs: Annotated[Path | None, typer.Option(help="Where localisation.md goes; the output folder without.")] = None,
) -> None:
    """Measure where the masks of a network lie on labelled scans, beside controls."""
    asked = {"solver": solver, "lam": lam, "max_steps": max_steps}
    given = {name: value for name, value in asked.items() if value is not None}
    labels = oasis / "labels.csv"
    setup = prepare_setup(model or default_model(), labels, tails=tails, tail_outputs=tail_outputs, **given)
    chosen = people(oasis)[:scans]
    names, made = [region.output for region in setup.regions], []
    for number, scan in enumerate(chosen, start=1):
        with bar(f"scan {scan.name} ({number} of {len(chosen)})") as progress:
            made.append(maps_of(setup, scan, out / "maps", progress))
    found = measure(made, names)
    summary = summarise(chosen, made, names, found)
    options = [f"--scans {len(chosen)}", f"--tails {tails}", f"--tail-outputs {len(setup.tail_outputs)}"]
    options += [f"--{name} {getattr(setup.options, name)}".replace("_", "-") for name in asked]
    summary["run"] = facts(setup, made[0].mask.shape[1:], " ".join(options))
    _write_csv(out / "results.csv", rows(chosen, names, found))
    write_text_atomic(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    page = write_page(docs or out, summary)
    for name in summary["verdict"]["outputs"]:
        output = summary["outputs"][name]
        typer.echo(f"{name}: {json.dumps(output['ratio'])} copies p {output['copies_p']:.4f} passes {output['passes']}")
    typer.echo(f"Criterion {'passed' if summary['verdict']['passed'] else 'not passed'}. Written: {page}")


def facts(setup: Setup, mask_shape: tuple[int, ...], options: str) -> dict[str, Any]:
    """What the numbers were made with."""
    zooms = np.sqrt((np.asarray(setup.record.input.affine)[:3, :3] ** 2).sum(0))
    return {
        "command": f"python -m benchmarks.localisation --oasis DIR {options} -o DIR",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model": setup.record.name,
        "sha256": setup.sha256,
        "layer": setup.record.layer,
        "mask_shape": " x ".join(map(str, mask_shape)),
        "mask_voxel_mm": " x ".join(f"{s * z:g}" for s, z in zip(setup.geometry.step, zooms, strict=True)) + " mm",
        "options": setup.options.model_dump(),
        "tails": len(setup.tails),
        "tail_outputs": len(setup.tail_outputs),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "versions": versions(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _write_csv(path: Path, table: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        for row in table:
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )


if __name__ == "__main__":
    typer.run(main)
