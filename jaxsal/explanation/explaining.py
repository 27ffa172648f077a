"""Explain a scan: read, check, prepare, optimise."""

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.data import Volume, check_space
from jaxsal.explanation.planning import Plan, plan
from jaxsal.explanation.referring import on_network_grid, stacked
from jaxsal.explanation.result import Explanation, Timing
from jaxsal.methods import Task
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
    references: Sequence[str | os.PathLike | Volume] = (),
    progress: Meter | None = None,
    **options: Any,
) -> Explanation:
    """Find out which voxels of a scan a network used for each of its outputs.

    The scan is compared with the space that the network's record states, brought to the network's grid by its
    header, and explained for all outputs together.

    Args:
        image: a NIfTI or MGH file, or a volume.
        model: name of a network that comes with jaxsal, a path that :func:`jaxsal.zoo.save` wrote, or a network
            with its record.
        method: ``"smocam"``, or another name from :func:`jaxsal.methods.method_names` (``jaxsal methods``).
        outputs: ``"all"``, one name, or a sequence of names and positions.
        layer: for methods that need one: where the mask lies; None is the layer that the record names.
        name: of the scan in reports; None is its file name.
        references: scans to compare with, for methods that need them: files or volumes in the network's space.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.
        **options: of the method, as ``jaxsal methods NAME`` lists them: for SMOCAM ``solver`` (``"recommended"``,
            ``"paper"`` or ``"nonnegative"``), ``max_steps``, ``lam``, ``gamma``, ``percentile``; those not given are
            the network's own, from its record, or the method's.

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
        prepared = plan(model, method, outputs, layer, references=references, **options)
        return run(prepared, image, name=name, progress=meter)


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
    x = on_network_grid(volume, spec)
    ready = time.perf_counter()
    progress(0, 1, "compiling")
    task = Task(
        plan.model.model,
        jnp.asarray(x),
        plan.outputs,
        plan.sigma,
        plan.options,
        plan.split,
        stacked(plan.references),
        _announce_compiling(progress),
    )
    result = jax.block_until_ready(plan.method.run(task))
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
