"""Masks and network-made controls of one scan, kept in one file per scan."""

import csv
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.localisation.mass import blob_of_values, masses
from jaxsal.data import Volume, prepare, write_atomic
from jaxsal.engine.geometry import Geometry, geometry
from jaxsal.engine.lower import lower
from jaxsal.explanation.planning import suited
from jaxsal.masks.smocam import smocam
from jaxsal.masks.upsample import upsample
from jaxsal.methods import SOLVERS, SmocamOptions, check_options, find_method
from jaxsal.models import fingerprint, locate
from jaxsal.progress import Meter, silent
from jaxsal.splitting import Split, split
from jaxsal.zoo import LoadedModel, ModelRecord, load
from jaxsal.zoo.registry import ARCHITECTURES


class Region(NamedTuple):
    """An output's structure in the manual labels.

    Attributes:
        output: name in the network's record.
        index: position of the output.
        value: of the structure in the label image.
    """

    output: str
    index: int
    value: int


class Scan(NamedTuple):
    """A person's scan and its labels."""

    name: str
    age: float
    image: Path
    labels: Path


class Setup(NamedTuple):
    """What is the same for every scan.

    Attributes:
        record: of the network.
        sha256: of its file.
        split: its head and tail.
        tails: tails of the same architecture with fresh weights.
        tail_outputs: the outputs of these tails that are explained.
        geometry: of the mask's grid.
        regions: the outputs to explain with their structures.
        options: of SMOCAM.
    """

    record: ModelRecord
    sha256: str | None
    split: Split
    tails: tuple[Any, ...]
    tail_outputs: tuple[int, ...]
    geometry: Geometry
    regions: tuple[Region, ...]
    options: SmocamOptions


class Maps(NamedTuple):
    """Of one scan, with ``k`` outputs, ``s`` structures and ``l`` outputs of ``r`` re-initialised tails.

    Attributes:
        weights: the brain and the structures within it, ``[1 + s, *t]``.
        mirrored: the same with left and right exchanged.
        centres: of the mask's voxels in mm along the grid's axes, ``[*t, 3]``.
        mask: ``[k, *t]``.
        saliency_mass: of the thresholded map at full size, in the brain and each structure, ``[k, 1 + s]``.
        saliency_blob_mass: of the same values, the largest at the brain's centre and falling with the distance.
        feature_norm: ``sqrt(sum_c F^2)``, ``[*t]``.
        gradient: ``|sum_c dy_k/dF F|``, ``[k, *t]``.
        tail_mask: under the re-initialised tails, ``[r, l, *t]``.
        prediction: ``[k]``, like all that follow.
        recovered: by the mask, of the prediction.
        negative_energy: share of the mask's energy on negative values.
        steps: of the optimisation.
        status: see :class:`jaxsal.optim.Status`.
        tail_recovered: ``[r, l]``.
    """

    weights: np.ndarray
    mirrored: np.ndarray
    centres: np.ndarray
    mask: np.ndarray
    saliency_mass: np.ndarray
    saliency_blob_mass: np.ndarray
    feature_norm: np.ndarray
    gradient: np.ndarray
    tail_mask: np.ndarray
    prediction: np.ndarray
    recovered: np.ndarray
    negative_energy: np.ndarray
    steps: np.ndarray
    status: np.ndarray
    tail_recovered: np.ndarray


def people(folder: Path) -> list[Scan]:
    """One scan per person, retests left out; any beginning of the list spans the ages."""
    with (folder / "participants.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["retest_of"] in ("", "n/a")]
    rows.sort(key=lambda row: (float(row["age"]), row["participant_id"]))
    bits = max(len(rows) - 1, 1).bit_length()
    order = sorted(range(len(rows)), key=lambda rank: f"{rank:0{bits}b}"[::-1])
    return [
        Scan(
            (name := rows[rank]["participant_id"]),
            float(rows[rank]["age"]),
            folder / f"{name}_T1.nii.gz",
            folder / f"{name}_labels.nii.gz",
        )
        for rank in order
    ]


def regions_of(names: Sequence[str], label_names: Path) -> tuple[Region, ...]:
    """The manual label of every output, matched by name: ``left_thalamus`` is ``Left Thalamus Proper``.

    Raises:
        ValueError: if an output has no label.
    """
    with label_names.open() as file:
        known = {
            row["name"].lower(): int(float(row["index"])) for row in csv.DictReader(file) if row["ignore"] == "False"
        }
    found = []
    for index, name in enumerate(names):
        plain = name.lower().replace("-", " ").replace("_", " ")
        fitting = sorted((label for label in known if label.startswith(plain)), key=len)
        if not fitting:
            raise ValueError(f"No label in {label_names} begins with {plain!r}: the output {name} has no structure.")
        found.append(Region(name, index, known[fitting[0]]))
    return tuple(found)


def prepare_setup(
    model: str | Path,
    label_names: Path,
    *,
    tails: int = 1,
    tail_outputs: int = 4,
    outputs: Sequence[str] = (),
    **options: Any,
) -> Setup:
    """Load the network, split it at its layer, and draw the weights of the control tails.

    Args:
        model: name or file of a network.
        label_names: ``labels.csv`` of the manual labels.
        tails: number of draws of fresh weights, seeds 1, 2, ...
        tail_outputs: how many outputs of each fresh tail are explained; they are interchangeable.
        outputs: names of those to explain; all when empty.
        **options: of SMOCAM; those not given are the network's own, or the method's.
    """
    path = locate(model)
    loaded = load(path)
    spec = loaded.record.input
    example = jax.ShapeDtypeStruct((1, *spec.shape, spec.channels), np.float32)
    cut = split(loaded.model, example, loaded.record.layer)
    fresh = tuple(split(_fresh(loaded, seed), example, loaded.record.layer).tail for seed in range(1, tails + 1))
    regions = regions_of(loaded.record.output_names, label_names)
    wanted = tuple(region for region in regions if not outputs or region.output in outputs)
    lattice = geometry(cut.head, example)
    spaced = np.linspace(0, len(wanted) - 1, min(tail_outputs, len(wanted))).round().astype(int)
    explained = tuple(wanted[i].index for i in spaced)
    chosen: Any = check_options(
        find_method("smocam"), {**suited(loaded.record, loaded.record.layer, "smocam"), **options}
    )
    return Setup(loaded.record, fingerprint(path).sha256, cut, fresh, explained, lattice, wanted, chosen)


def _fresh(loaded: LoadedModel, seed: int) -> nnx.Module:
    record = loaded.record
    build = ARCHITECTURES[record.architecture]
    shape, channels = record.input.shape, record.input.channels
    model = build(len(record.outputs), shape=shape, channels=channels, **record.config, rngs=nnx.Rngs(seed))
    model.eval()
    return model


def maps_of(setup: Setup, scan: Scan, folder: Path, progress: Meter = silent) -> Maps:
    """The maps of a scan, from ``folder`` when they were made there with the same network and options."""
    path = folder / f"{scan.name}.npz"
    key = _key(setup)
    if path.exists():
        with np.load(path) as stored:
            if str(stored["key"]) == key:
                return Maps(*(stored[name] for name in Maps._fields))
    maps = make_maps(setup, scan, progress)

    def write(temporary: Any) -> None:
        with Path(temporary).open("wb") as file:  # a file object, or numpy would append its own suffix
            np.savez(file, key=key, **maps._asdict())

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, write)
    return maps


def _key(setup: Setup) -> str:
    parts = [
        setup.sha256,
        setup.record.layer,
        setup.options.model_dump(),
        len(setup.tails),
        setup.tail_outputs,
        setup.regions,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def make_maps(setup: Setup, scan: Scan, progress: Meter = silent) -> Maps:
    """Masks, feature norm, gradients and masks under re-initialised tails of one scan."""
    x, weights, mirrored, inside = _regions(setup, scan)
    sigma = np.array([output.sigma for output in setup.record.outputs])
    outputs = tuple(region.index for region in setup.regions)
    options: Any = setup.options.model_dump() | {"solver": SOLVERS[setup.options.solver](), "geometry": setup.geometry}
    with warnings.catch_warnings():
        # negative energy is reported
        warnings.filterwarnings("ignore", message=".*flipped features")
        result = smocam(setup.split, x, outputs, sigma=sigma, **options, progress=progress)
        features = _apply(setup.split.head, x)
        trained = _reach(setup.split.tail, features) / sigma
        fresh = []
        for tail in setup.tails:
            # the distance term of the empty mask is made the same as under the trained tail
            matched = np.maximum(_reach(tail, features) / np.maximum(trained, 1e-3), 1e-6)
            cut = Split(setup.split.head, tail)
            fresh.append(smocam(cut, x, setup.tail_outputs, sigma=matched, **options, progress=progress))
    saliency = np.abs(np.asarray(result.saliency)[:, 0])
    where = np.stack(np.meshgrid(*map(np.arange, inside.shape[1:]), indexing="ij"), -1)
    t = result.mask.shape[2:]
    zooms = np.sqrt((np.asarray(setup.record.input.affine)[:3, :3] ** 2).sum(0))
    axes = [
        zoom * (start + step * np.arange(n)) for n, start, step, zoom in zip(t, *setup.geometry, zooms, strict=True)
    ]
    return Maps(
        weights=weights,
        mirrored=mirrored,
        centres=np.stack(np.meshgrid(*axes, indexing="ij"), -1),
        mask=np.asarray(result.mask)[:, 0],
        saliency_mass=masses(saliency, inside),
        saliency_blob_mass=np.stack([masses(blob_of_values(one, inside[0], where), inside) for one in saliency]),
        feature_norm=np.asarray(jnp.sqrt((features**2).sum(-1))[0]),
        gradient=np.asarray(_gradients(setup.split.tail, features, jnp.asarray(outputs))),
        tail_mask=np.stack([np.asarray(r.mask)[:, 0] for r in fresh]) if fresh else np.zeros((0, 0, *t)),
        prediction=np.asarray(result.prediction)[:, 0],
        recovered=np.asarray(result.recovered)[:, 0],
        negative_energy=np.asarray(result.negative_energy)[:, 0],
        steps=np.asarray(result.steps)[:, 0],
        status=np.asarray(result.status)[:, 0],
        tail_recovered=np.array([np.asarray(r.recovered)[:, 0] for r in fresh]).reshape(
            len(fresh), len(setup.tail_outputs)
        ),
    )


def _regions(setup: Setup, scan: Scan) -> tuple[jax.Array, np.ndarray, np.ndarray, np.ndarray]:
    """The network's input, and the regions on the mask's grid and on its own."""
    spec = setup.record.input
    scaling = spec.scaling
    volume = Volume.load(scan.image)
    x = prepare(volume, spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip)
    labels = Volume.load(scan.labels).resample(spec.shape, np.asarray(spec.affine), "nearest").array
    brain = x[0, ..., 0] > 0
    inside = np.stack([brain, *(brain & (labels == region.value) for region in setup.regions)])
    empty = [region.output for region, mask in zip(setup.regions, inside[1:], strict=True) if not mask.any()]
    if empty:
        raise ValueError(f"{os.fspath(scan.labels)} has no voxel of {', '.join(empty)} inside the brain.")
    grid = jax.eval_shape(setup.split.head, jax.ShapeDtypeStruct(x.shape, x.dtype)).shape[1:-1]
    weights, mirrored = (onto_mask(regions, setup.geometry, grid) for regions in (inside, inside[:, ::-1]))
    return jnp.asarray(x), weights, mirrored, inside


def onto_mask(regions: np.ndarray, lattice: Geometry, grid: Sequence[int]) -> np.ndarray:
    """The transpose of upsampling: what each mask voxel adds to the mass of an upsampled map in each region.

    Args:
        regions: indicators, ``[n, *space]``.
        lattice: of the mask's grid.
        grid: its shape.

    Returns:
        ``[n, *t]``; the sum over ``t`` is the number of voxels of the region.
    """
    one = jax.ShapeDtypeStruct(tuple(grid), np.float32)
    transpose = jax.jit(jax.linear_transpose(lambda mask: upsample(mask, lattice, regions.shape[1:]), one))
    return np.stack([np.asarray(transpose(jnp.asarray(region, jnp.float32))[0]) for region in regions])


def _reach(tail: Any, features: jax.Array) -> np.ndarray:
    """How far the features move each output from that of the empty mask, ``[k]``."""
    return np.abs(np.asarray(_apply(tail, features) - _apply(tail, jnp.zeros_like(features)))[0])


@jax.jit
def _apply(model: Any, x: jax.Array) -> jax.Array:
    return lower(model)(x)


@jax.jit
def _gradients(tail: Any, features: jax.Array, outputs: jax.Array) -> jax.Array:
    def one(output: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda f: lower(tail)(f)[0, output])(features)
        return jnp.abs((gradient * features).sum(-1))[0]

    return jax.lax.map(one, outputs)
