"""Networks that were trained elsewhere, converted and explained: an AD network, MeshNet's volumes, an X-ray classifier.

``python -m benchmarks.converted -o DIR [--only ad]``: each network is converted from its published file (beside the
repository, with the scan and the radiographs) and explained by SMOCAM, LRP and guided backprop. Maps, tables, pictures
and reports are written for scans, a picture for radiographs. The AD network sees the MNI152 brain that nilearn brings.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer

import jaxsal
from benchmarks.peers import shared_folder
from jaxsal import converters, zoo
from jaxsal.data import Volume
from jaxsal.data.template import default_image

METHODS = ("smocam", "lrp", "guided-backprop")
# voxels of 1 mm around both hippocampi, from left, from below, from the front as MeshNet was trained
HIPPOCAMPI = (112, 72, 96)
STRUCTURES = ("Hippocampus", "Lateral-Ventricle")


def ad_network(out: Path) -> None:
    """Cognition score of one fold, of the MNI152 brain."""
    folder = shared_folder() / "weights" / "ncomms2022" / "CNN_baseline_new_cross0"
    explain_scan(default_image(), converted(folder, "ncomms2022"), out / "ad", max_steps=200)


def meshnet_volumes(out: Path) -> None:
    """Volumes of the hippocampi and the lateral ventricles of one person, as MeshNet sees them."""
    shared = shared_folder()
    scan = sorted((shared / "data" / "oasis_1mm").glob("*_T1.nii.gz"))[0]
    found = converted(
        shared / "weights" / "meshnet" / "model18cls" / "model.json", "meshnet-volumes", structures=STRUCTURES
    )
    explain_scan(scan, around(found, HIPPOCAMPI, middle=(0.0, -20.0, -12.0)), out / "meshnet", max_steps=20)


def xray_classifier(out: Path) -> None:
    """The part of the body that a radiograph shows."""
    folder = shared_folder() / "weights" / "xray_bodypart"
    labels = [line.split(maxsplit=1)[1] for line in (folder / "labels.txt").read_text().splitlines()]
    found = converted(folder / "keras_model.h5", "keras", outputs=labels)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpeg"))
    x = jnp.asarray(np.stack([radiograph(path) for path in files]))
    y = np.asarray(found.model(x))
    best = y.argmax(1)
    typer.echo("; ".join(f"{p.name}: {labels[k]} {row[k]:.2f}" for p, k, row in zip(files, best, y, strict=True)))
    # probabilities saturate: what they are made of does not; the record's layer has the coarsest grid, this one 14 x 14
    split = jaxsal.split(found.model, x, "block_12_add")
    split = jaxsal.Split(split.head, jax.tree_util.Partial(log_odds, split.tail))
    # with the published weights masks stay near a norm of 1: to this network of many constants that is an empty image
    options: dict[str, Any] = {"lam": 0.1, "gamma": 3.0, "max_steps": 200}
    masks = [jaxsal.smocam(split, x[i : i + 1], outputs=[int(k)], **options) for i, k in enumerate(best)]
    maps = {
        "SMOCAM": np.stack([np.asarray(mask.saliency[0, 0]) for mask in masks]),
        "LRP": np.asarray(jaxsal.lrp(found.model, x, best)).sum(-1),
        "guided backprop": np.asarray(jaxsal.guided_backprop(found.model, x, best)).sum(-1),
    }
    said = {"SMOCAM": [f"{m.status_names[0][0].replace('_', ' ')}, recovered {m.recovered[0, 0]:.0%}" for m in masks]}
    draw(out / "xray.png", np.asarray(x).mean(-1), maps, [labels[k] for k in best], said)


def log_odds(tail: Any, features: jax.Array) -> jax.Array:
    """Logarithms of a classifier's probabilities, less their mean over classes."""
    y = jnp.log(tail(features))
    return y - y.mean(1, keepdims=True)


def converted(path: Path, arch: str, **options: Any) -> zoo.LoadedModel:
    """Convert, and say how equal and how fast."""
    began = time.perf_counter()
    found = converters.convert(path, arch, **options)
    typer.echo(f"{found!r}, converted in {time.perf_counter() - began:.1f} s")
    return zoo.LoadedModel(found.model, found.record)


def around(loaded: zoo.LoadedModel, shape: Sequence[int], middle: Sequence[float]) -> zoo.LoadedModel:
    """The same network of convolutions on a part of its grid, about a point in RAS millimetres."""
    spec = loaded.record.input
    affine = np.array(spec.affine)
    affine[:3, 3] = np.asarray(middle) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    part = spec.model_copy(update={"shape": tuple(shape), "affine": tuple(map(tuple, affine.tolist()))})
    record = loaded.record.model_copy(update={"input": part})
    return zoo.LoadedModel(loaded.model, record)


def explain_scan(image: Path | Volume, loaded: zoo.LoadedModel, out: Path, **smocam: Any) -> None:
    """All methods, each in a folder of its own."""
    for method in METHODS:
        began = time.perf_counter()
        options = smocam if method == "smocam" else {}
        explanation = jaxsal.explain(image, loaded, method, **options)
        explanation.save(out / method, overwrite=True)
        typer.echo(f"{loaded.record.name}, {method}: {time.perf_counter() - began:.0f} s")
        typer.echo(explanation.table.to_string(index=False))


def radiograph(path: Path) -> np.ndarray:
    """``[224, 224, 3]`` from -1 to 1, stretched to a square as the network knows it."""
    from PIL import Image

    picture = Image.open(path)
    grey = np.asarray(picture.convert("RGB").resize((224, 224)), np.float32)
    return grey / 127.5 - 1


def draw(
    path: Path,
    pictures: np.ndarray,
    maps: dict[str, np.ndarray],
    titles: Sequence[str],
    said: dict[str, list[str]],
) -> None:
    """A row for each picture, a column for each method, with what it says of its maps below its name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * (len(maps) + 1), 3.2 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), len(maps) + 1)
    for row, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        axes[row, 0].imshow(picture, cmap="gray")
        axes[row, 0].set_title(title)
        for axis, (name, values) in zip(axes[row, 1:], maps.items(), strict=True):
            most = np.percentile(np.abs(values[row]), 99.5)
            axis.imshow(picture, cmap="gray", alpha=0.5)
            axis.imshow(values[row], cmap="bwr", vmin=-most, vmax=most, alpha=0.6)
            axis.set_title("\n".join([name, *said.get(name, [])[row : row + 1]]))
    for axis in axes.ravel():
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    typer.echo(f"written: {path}")


NETWORKS = {"ad": ad_network, "meshnet": meshnet_volumes, "xray": xray_classifier}


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    only: Annotated[list[str] | None, typer.Option(help=f"Which of {', '.join(NETWORKS)}.")] = None,
) -> None:
    """Convert and explain."""
    for name in only or NETWORKS:
        NETWORKS[name](out)


if __name__ == "__main__":
    typer.run(main)
