"""MeshNet's volumes against manual labels: the ground truth of a regression whose relevant voxels are known.

``python -m benchmarks.meshnet_volumes [--scans 12] [--channels 30]``: scans of 2 mm are brought to the network's 1 mm,
the network labels every voxel, and its volumes (sums of probabilities) and labels are compared with those by hand.
"""

import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer

from benchmarks.localisation.maps import people
from benchmarks.peers import shared_folder
from jaxsal import converters
from jaxsal.data import Volume
from jaxsal.data.prepare import prepare
from jaxsal.engine.lower import lower
from jaxsal.model import as_pytree
from jaxsal.zoo.records import BRAINCHOP_CLASSES

# manual labels of both sides, as labels.csv of the scans numbers them
STRUCTURES = {"Hippocampus": (47, 48), "Lateral-Ventricle": (51, 52), "Putamen": (57, 58), "Thalamus": (59, 60)}
# voxels of 1 mm that hold a brain in MNI152, from left, from below, from the front
SHAPE, MIDDLE = (152, 160, 192), (0.0, -18.0, 8.0)
FILES = {21: "model18cls", 30: "model30chan18cls"}


class Compared(NamedTuple):
    """One structure of one person.

    Attributes:
        volume: by the network, in mm^3.
        manual: by hand, in mm^3.
        dice: of the voxels.
    """

    volume: float
    manual: float
    dice: float


def grid() -> np.ndarray:
    """The affine of the grid, orientation LIA."""
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    affine[:3, 3] = np.asarray(MIDDLE) - affine[:3, :3] @ ((np.asarray(SHAPE) - 1) / 2)
    return affine


def labelled(model: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The most probable class of every voxel, and the volume of every class in mm^3."""
    logits = lower(lambda model, x: model(x))(model, x)[0]
    return logits.argmax(-1), jax.nn.softmax(logits, axis=-1).sum((0, 1, 2))


def person(network: Any, scan: Path, by_hand: Path) -> dict[str, Compared]:
    """All structures of one person."""
    x = prepare(Volume.load(scan), SHAPE, grid(), 1, "maximum", (0.0, 1.0))
    labels, volumes = map(np.asarray, network(x))
    manual = Volume.load(by_hand)
    truth = manual.resample(SHAPE, grid(), "nearest").array
    voxel = abs(np.linalg.det(manual.affine[:3, :3]))
    found = {}
    for name, numbers in STRUCTURES.items():
        index = BRAINCHOP_CLASSES.index(name)
        ours, theirs = labels == index, np.isin(truth, numbers)
        dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        found[name] = Compared(float(volumes[index]), float(np.isin(manual.array, numbers).sum() * voxel), float(dice))
    return found


def main(
    scans: Annotated[int, typer.Option(help="How many people.")] = 12,
    channels: Annotated[int, typer.Option(help="Of the network: 21 or 30.")] = 30,
) -> None:
    """Print the table."""
    shared = shared_folder()
    chosen = people(shared / "data" / "oasis_2mm")[:scans]
    found = converters.convert(shared / "weights" / "meshnet" / FILES[channels] / "model.json", "meshnet")
    typer.echo(repr(found))
    compiled = jax.jit(labelled)
    model = as_pytree(found.model)
    rows = []
    for scan in chosen:
        began = time.perf_counter()
        rows.append(person(lambda x: compiled(model, x), scan.image, scan.labels))
        typer.echo(f"{scan.name}: {time.perf_counter() - began:.0f} s", err=True)
    typer.echo(f"{len(chosen)} people, {channels} channels, {' x '.join(map(str, SHAPE))} voxels of 1 mm")
    typer.echo("| structure | Dice, mean | correlation of volumes | mean volume, mm^3: network, by hand |")
    typer.echo("|---|---:|---:|---:|")
    for name in STRUCTURES:
        volume, manual, dice = np.array([row[name] for row in rows]).T
        correlation = np.corrcoef(volume, manual)[0, 1] if len(rows) > 1 else np.nan
        typer.echo(f"| {name} | {dice.mean():.2f} | {correlation:.2f} | {volume.mean():.0f}, {manual.mean():.0f} |")


if __name__ == "__main__":
    typer.run(main)
