"""Choosing the weights of SMOCAM's objective by what the masks look like, not by its value."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import optim
from jaxsal.engine.geometry import Geometry
from jaxsal.masks.axes import grid_lanes, of_pair, pairs_of
from jaxsal.masks.result import MaskResult, judge
from jaxsal.masks.smocam import Prepared, Running, collect, prepare
from jaxsal.splitting import Split


class GridSearch(NamedTuple):
    """What a grid of weights gave.

    Attributes:
        table: a ``pandas.DataFrame``, one row per mask: ``lam``, ``gamma``, ``output``, ``image``, ``prediction``,
            ``masked``, ``distance`` (of the two, in sigma), ``recovered``, ``area``, ``smoothness``, ``value``,
            ``steps``, ``status``.
        lam: the picked weight of the norm term.
        gamma: the picked weight of the smoothness term.
        result: the masks of the picked pair.
    """

    table: Any
    lam: float
    gamma: float
    result: MaskResult


def grid_search(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    lam: Sequence[float],
    gamma: Sequence[float],
    sigma: Any = 1.0,
    within: float = 0.5,
    percentile: float = 95,
    geometry: Geometry | None = None,
    **running: Unpack[Running],
) -> GridSearch:
    """Run SMOCAM for every pair of weights and pick one, see :func:`choose_weights`.

    Args:
        split: see :func:`jaxsal.smocam`, as all that is not described here.
        x: images ``[b, *space, c]``.
        outputs: to explain.
        lam: weights of the norm term to try.
        gamma: weights of the smoothness term to try.
        sigma: standard deviation of the outputs.
        within: distance to the prediction, in sigma, that is close enough.
        percentile: 0 to 100.
        geometry: of the features.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        The table of all masks, the picked pair and its masks.

    Raises:
        ValueError: as :func:`jaxsal.smocam`, and if no pair gave finite masks.

    Example:
        >>> head, tail = jnp.sqrt, lambda f: f.mean((1, 2))
        >>> parts, x = Split(head, tail), jnp.ones((1, 8, 8, 1)).at[0, 2:4, 2:4].set(100.0)
        >>> found = grid_search(parts, x, lam=[1.0], gamma=[1.0, 30.0], sigma=10.0, max_steps=20)
        >>> len(found.table), found.result.mask.shape
        (2, (1, 1, 8, 8))
    """
    pairs = pairs_of(lam, gamma)
    prepared = prepare(split, x, outputs, sigma, geometry, percentile)
    lanes = grid_lanes(prepared, pairs, **running)
    table = mask_table(prepared, lanes, pairs)
    picked = choose_weights(table, within)
    result = collect(prepared, of_pair(lanes, pairs, picked), *picked, percentile)
    return GridSearch(table, *picked, result)


def choose_weights(table: Any, within: float = 0.5) -> tuple[float, float]:
    """The pair of weights whose masks keep the prediction with the least area and the least variation.

    Every pair counts with its means over outputs and images. Among the pairs whose distance is at most ``within``,
    the one with the smallest ``area / max area + smoothness / max smoothness``; if no pair comes that close, the
    closest.

    Args:
        table: columns ``lam``, ``gamma``, ``distance``, ``area``, ``smoothness``.
        within: in sigma.

    Returns:
        ``(lam, gamma)``.

    Raises:
        ValueError: if no pair has finite distances.

    Example:
        >>> import pandas as pd
        >>> columns = ("lam", "gamma", "distance", "area", "smoothness")
        >>> rows = [(1.0, 1.0, 0.1, 0.2, 0.9), (1.0, 9.0, 0.4, 0.3, 0.1), (1.0, 99.0, 3.0, 0.1, 0.0)]
        >>> choose_weights(pd.DataFrame(rows, columns=columns))
        (1.0, 9.0)
    """
    columns = ["distance", "area", "smoothness"]
    # a pair with one mask that is not finite is not finite
    means = table.groupby(["lam", "gamma"])[columns].agg(lambda column: column.mean(skipna=False))
    means = means[np.isfinite(means).all(axis=1)]
    if means.empty:
        raise ValueError("No pair of weights gave finite masks: look at the table's status, try smaller steps.")
    close = means[means["distance"] <= within]
    if close.empty:
        return _pair(means["distance"].idxmin())
    parts = close[["area", "smoothness"]]
    score = (parts / parts.max().replace(0, 1)).sum(axis=1)
    return _pair(score.idxmin())


def _pair(index: Any) -> tuple[float, float]:
    lam, gamma = index
    return float(lam), float(gamma)


def mask_table(prepared: Prepared, lanes: optim.Lanes, pairs: Sequence[tuple[float, float]]) -> Any:
    """One row per mask, see :class:`GridSearch`; pandas is loaded here.

    ``area`` is ``(sum |M|)^2 / (n sum M^2)`` over the ``n`` voxels of a mask: 1 for a uniform one, ``1/n`` for a
    single voxel. ``smoothness`` is the mean total variation over ``||M||_2``. Neither depends on the mask's scale.
    """
    import pandas as pd

    images, outputs = prepared.prediction.shape
    sigma = np.asarray(prepared.sigma)
    null = jnp.broadcast_to(prepared.null[None], prepared.prediction.shape)
    frames = []
    for lam, gamma in pairs:
        found = of_pair(lanes, pairs, (lam, gamma))
        parts, masked = found.aux
        area, norm = _area_and_norm(found.params)
        recovered = (masked - null) / (prepared.prediction - null)
        status = judge(found.status, prepared.prediction, null, recovered, sigma)
        image, output = np.indices((images, outputs))
        columns = {
            "lam": np.full(image.shape, lam),
            "gamma": np.full(image.shape, gamma),
            "output": np.asarray(prepared.indices)[output],
            "image": image,
            "prediction": prepared.prediction,
            "masked": masked,
            "distance": parts.distance,
            "recovered": recovered,
            "area": area,
            "smoothness": parts.smoothness / norm,
            "value": found.value,
            "steps": found.steps,
        }
        frame = pd.DataFrame({name: np.asarray(column).ravel() for name, column in columns.items()})
        frame["status"] = [optim.Status(code).name.lower() for code in status.ravel()]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _area_and_norm(masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat = masks.reshape(*masks.shape[:2], -1)
    squares = (flat**2).sum(-1)
    return jnp.abs(flat).sum(-1) ** 2 / (flat.shape[-1] * squares), jnp.sqrt(squares)
