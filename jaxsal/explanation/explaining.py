"""Explain a scan: read, check, prepare, optimise."""

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxsal.data import Volume, check_space, prepare
from jaxsal.explanation.planning import Plan, plan
from jaxsal.explanation.result import Explanation, Timing
from jaxsal.progress import Meter, reporting, silent
from jaxsal.zoo import LoadedModel


def explain(
    image: str | os.PathLike | Volume,
    model: str | os.PathLike | LoadedModel,
    method: str = "smocam",
    outputs: str | Sequence[str | int] = "all",
    layer: str | None = None,
    *,
    name: str | None = None,
    progress: Meter | None = None,
    **options: Any,
) -> Explanation:
    """Find out which voxels of a scan a network used for each of its outputs.

    The scan is compared with the space that the network's record states, brought to the network's grid by its
    header, and explained at one layer for all outputs together.

    Args:
        image: a NIfTI or MGH file, or a volume.
        model: name of a network that comes with jaxsal, a path that :func:`jaxsal.zoo.save` wrote, or a network
            with its record.
        method: ``"smocam"``.
        outputs: ``"all"``, one name, or a sequence of names and positions.
        layer: where the mask lies; None is the layer that the record names.
        name: of the scan in reports; None is its file name.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.
        **options: of the method: for SMOCAM ``solver`` (``"recommended"``, ``"paper"`` or ``"nonnegative"``),
            ``max_steps``, ``lam``, ``gamma``, ``percentile``; those not given are the network's own, from its record,
            or the method's.

    Returns:
        Predictions, maps on the scan's own grid, and how far they can be believed;
        :meth:`Explanation.save` writes them.

    Raises:
        FileNotFoundError: if the scan or the network does not exist.
        ValueError: if the scan cannot be read, is not in the network's space, or an argument is wrong.
        KeyError: if an output does not exist.

    Example::

        explanation = explain("scan.nii.gz", "my-network.safetensors")
        explanation.table
        explanation.save("results")
    """
    with reporting(progress, "explaining") as meter:
        return run(plan(model, method, outputs, layer, **options), image, name=name, progress=meter)


def run(
    plan: Plan, image: str | os.PathLike | Volume, *, name: str | None = None, progress: Meter = silent
) -> Explanation:
    """Explain one scan as planned; see :func:`explain`. Plan once for many scans, and one program serves them."""
    spec = plan.record.input
    begin = time.perf_counter()
    progress(0, 1, "reading the scan")
    volume = image if isinstance(image, Volume) else Volume.load(image)
    progress(0, 1, "comparing it with the network's space")
    space = check_space(volume, spec.space, spec.skull_stripped)
    progress(0, 1, "bringing it to the network's grid")
    scaling = spec.scaling
    x = prepare(volume, spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip)
    ready = time.perf_counter()
    progress(0, 1, "compiling")
    result = plan.method.run(
        plan.split, jnp.asarray(x), plan.outputs, plan.sigma, plan.options, _announce_compiling(progress)
    )
    timing = Timing(ready - begin, time.perf_counter() - ready)
    label = name or (volume.source.name if volume.source else "image")
    # frames of one are dropped here, so that every map lies on the scan's 3-D grid
    scan = dataclasses.replace(volume.frame(), source=volume.source)
    return Explanation(label, scan, plan, result, space, timing)


def _announce_compiling(progress: Meter) -> Meter:
    """The first chunk of steps is compiled before it runs; people should know why nothing moves."""

    def meter(done: float, total: float, text: str, /) -> None:
        progress(done, total, text if done else f"compiling, {text}")

    return meter
