"""Time and memory against the number of lanes, the grid of the mask, and the number of scans.

``python -m benchmarks.scaling``: three tables on standard output. Every row is a process of its own, so that its
largest memory is its own; seconds are those of a second run, after one that compiles.
"""

import resource
import subprocess
import sys
import time
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from flax import nnx

import jaxsal
from jaxsal import optim, zoo
from jaxsal.masks import smocam_restarts

LANES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAYERS = ("relu1", "pool1", "relu2", "pool2")
SCANS = (1, 2, 4, 8)
STEPS = 8

app = typer.Typer()


@app.command()
def lanes(count: int) -> None:
    """256 jobs of the shipped network, so many side by side."""
    loaded = jaxsal.load_model("morphometry-2mm")
    x = jax.random.uniform(jax.random.key(0), (1, *loaded.record.input.shape, 1))
    split = jaxsal.split(loaded.model, x, at=loaded.record.layer)
    restarts = -(-256 // len(loaded.record.outputs))

    def run() -> int:
        found = smocam_restarts(
            split, x, restarts=restarts, key=jax.random.key(1), lam=0.1, max_steps=STEPS, lanes=count
        )
        return sum(int(result.steps.sum()) for result in found)

    _report(f"{count}", run, "mask and step")


@app.command()
def grid(layer: str) -> None:
    """Four masks of the network of the paper's Table 1, at one of its layers, by the published step."""
    model = zoo.MorphometryVGG(4, rngs=nnx.Rngs(0))
    model.eval()
    x = jax.random.uniform(jax.random.key(0), (1, 164, 172, 202, 1))
    split = jaxsal.split(model, x, at=layer)

    def run() -> int:
        result = jaxsal.smocam(split, x, solver=optim.armijo_once(), max_steps=STEPS, percentile=0)
        sizes.append(" x ".join(map(str, result.mask.shape[2:])))
        return int(result.steps.sum())

    sizes: list[str] = []
    _report(layer, run, "mask and step", sizes)


@app.command()
def scans(count: int) -> None:
    """All masks of so many scans with the shipped network and the recommended solver, to their own end."""
    loaded = jaxsal.load_model("morphometry-2mm")
    x = jax.random.uniform(jax.random.key(0), (count, *loaded.record.input.shape, 1))
    split = jaxsal.split(loaded.model, x, at=loaded.record.layer)
    sigma = np.array([output.sigma for output in loaded.record.outputs])

    def run() -> int:
        result = jaxsal.smocam(split, x, sigma=sigma, lam=0.1)
        jnp.asarray(result.saliency).block_until_ready()
        return count

    _report(f"{count}", run, "scan")


@app.command()
def every(only: Annotated[str, typer.Option(help="lanes, grid or scans; all by default.")] = "") -> None:
    """All tables."""
    tables = {"lanes": LANES, "grid": LAYERS, "scans": SCANS}
    for name, rows in tables.items():
        if only in ("", name):
            typer.echo(f"\n| {name} | s | ms per unit | unit | GiB |\n|---|---:|---:|---|---:|")
            for row in rows:
                subprocess.run([sys.executable, "-m", "benchmarks.scaling", name, str(row)], check=True)


def _report(label: str, run, unit: str, notes: list[str] | None = None) -> None:
    run()
    start = time.perf_counter()
    units = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    label = f"{label}, {notes[-1]}" if notes else label
    typer.echo(f"| {label} | {seconds:.2f} | {1e3 * seconds / units:.1f} | {unit} | {peak:.2f} |")


if __name__ == "__main__":
    app() if len(sys.argv) > 1 else every("")
