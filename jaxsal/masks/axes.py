"""More axes of lanes for SMOCAM: weights of the objective, random starts, several networks."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import optim
from jaxsal.engine.geometry import Geometry
from jaxsal.masks.result import MaskResult, warn_of_flips
from jaxsal.masks.smocam import (
    Job,
    Prepared,
    Running,
    check_weights,
    collect,
    image_objective,
    jobs_of,
    optimise,
    prepare,
    uniform_start,
)
from jaxsal.masks.terms import l2_norm
from jaxsal.model import Model
from jaxsal.splitting import Split


def smocam_grid(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    lam: Sequence[float],
    gamma: Sequence[float],
    sigma: Any = 1.0,
    percentile: float = 95,
    geometry: Geometry | None = None,
    **running: Unpack[Running],
) -> tuple[MaskResult, ...]:
    """SMOCAM for every pair of weights, all of them jobs of the same lanes.

    Args:
        split: see :func:`smocam`, as all that is not described here.
        x: images ``[b, *space, c]``.
        outputs: to explain.
        lam: weights of the norm term.
        gamma: weights of the smoothness term.
        sigma: standard deviation of the outputs.
        percentile: 0 to 100.
        geometry: of the features.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        One result per pair, ``gamma`` changing fastest; each says in its ``config`` which pair it is.

    Raises:
        ValueError: as :func:`smocam`, and if there is no pair.

    Example:
        >>> head, tail = jnp.sqrt, lambda f: f.sum((1, 2))
        >>> parts, x = Split(head, tail), jnp.ones((1, 8, 8, 1)).at[0, 2:4, 2:4].set(100.0)
        >>> results = smocam_grid(parts, x, lam=[1.0], gamma=[1.0, 30.0], sigma=10.0, max_steps=20)
        >>> [(result.config.lam, result.config.gamma) for result in results]
        [(1.0, 1.0), (1.0, 30.0)]
    """
    pairs = pairs_of(lam, gamma)
    prepared = prepare(split, x, outputs, sigma, geometry, percentile)
    lanes = grid_lanes(prepared, pairs, **running)
    results = tuple(collect(prepared, of_pair(lanes, pairs, pair), *pair, percentile) for pair in pairs)
    _warn(results)
    return results


def smocam_restarts(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    restarts: int,
    key: jax.Array,
    sigma: Any = 1.0,
    lam: float = 1.0,
    gamma: float = 30.0,
    percentile: float = 95,
    geometry: Geometry | None = None,
    **running: Unpack[Running],
) -> tuple[MaskResult, ...]:
    """SMOCAM from random masks instead of the uniform one: how much of a mask is due to where it started.

    A start is ``1.1 u / ||u||_2`` with ``u`` uniform on [0, 1) in every voxel. The best ones are had by
    :func:`best_of`.

    Args:
        split: see :func:`smocam`, as all that is not described here.
        x: images ``[b, *space, c]``.
        outputs: to explain.
        restarts: how many starts per image and output.
        key: of the random numbers, ``jax.random.key(seed)``.
        sigma: standard deviation of the outputs.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: 0 to 100.
        geometry: of the features.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        One result per restart.

    Raises:
        ValueError: as :func:`smocam`, and if there is no restart.
    """
    if restarts < 1:
        raise ValueError(f"restarts got {restarts}, at least 1 is needed.")
    check_weights(lam, gamma)
    prepared = prepare(split, x, outputs, sigma, geometry, percentile)
    jobs = jobs_of(prepared, [(lam, gamma)] * restarts)
    keys = jax.random.split(key, jobs.index.shape)
    lanes = optimise(
        _restart_objective, prepared.features[:, None], (jobs, keys), _random_start, prepared.tail, **running
    )
    results = tuple(collect(prepared, each, lam, gamma, percentile) for each in _apart(lanes, restarts))
    _warn(results)
    return results


def smocam_networks(
    splits: Sequence[Split],
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    sigma: Any = 1.0,
    lam: float = 1.0,
    gamma: float = 30.0,
    percentile: float = 95,
    geometry: Geometry | None = None,
    **running: Unpack[Running],
) -> tuple[MaskResult, ...]:
    """SMOCAM for several networks of one architecture, e.g. the folds of a cross-validation, in one program.

    Args:
        splits: of the networks, all cut at the same layer.
        x: images ``[b, *space, c]`` that all networks see.
        outputs: to explain.
        sigma: standard deviation of the outputs, see :func:`smocam`, as all that follows.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: 0 to 100.
        geometry: of the features.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        One result per network.

    Raises:
        ValueError: as :func:`smocam`, and if there is no network or their architectures differ.
    """
    check_weights(lam, gamma)
    if not splits:
        raise ValueError("There is no network: give the splits of at least one.")
    networks = [prepare(split, x, outputs, sigma, geometry, percentile) for split in splits]
    # a convolution whose kernel differs from row to row is slow on a CPU: one network after the other
    rows = 1 if jax.default_backend() == "cpu" else None
    lanes, images = network_lanes(networks, lam, gamma, rows=rows, **running), len(x)
    results = []
    for i, network in enumerate(networks):
        own = _slice(lanes, lambda a, i=i: a[i * images : (i + 1) * images])
        results.append(collect(network, own, lam, gamma, percentile))
    _warn(results)
    return tuple(results)


def best_of(results: Sequence[MaskResult]) -> MaskResult:
    """For every output and image, the mask with the lowest objective.

    Args:
        results: of one objective, e.g. of :func:`smocam_restarts`; masks that are not finite are passed over.

    Raises:
        ValueError: if there is none, or they have different objectives, whose values do not compare.
    """
    if not results or any(result.config != results[0].config for result in results):
        raise ValueError("best_of compares values of one objective: give at least one result, all of one config.")
    values = np.stack([np.asarray(result.value) for result in results])
    chosen = np.where(np.isfinite(values), values, np.inf).argmin(0)

    def pick(*leaves: Any) -> Any:
        stacked = (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)
        return stacked[(chosen, *np.indices(chosen.shape))]

    names = [field.name for field in dataclasses.fields(MaskResult) if field.name not in ("config", "usage")]
    picked = {name: jax.tree.map(pick, *(getattr(result, name) for result in results)) for name in names}
    return MaskResult(**picked, config=results[0].config, usage=_together([result.usage for result in results]))


def pairs_of(lam: Sequence[float], gamma: Sequence[float]) -> list[tuple[float, float]]:
    """Every pair of weights.

    Raises:
        ValueError: if there is none, or a weight is negative or not finite.
    """
    pairs = list(itertools.product(map(float, lam), map(float, gamma)))
    if not pairs:
        raise ValueError("lam and gamma got no values: give at least one of each.")
    for pair in pairs:
        check_weights(*pair)
    return pairs


def grid_lanes(prepared: Prepared, pairs: Sequence[tuple[float, float]], **running: Unpack[Running]) -> optim.Lanes:
    """The lanes ``[b, pairs * k]`` of every pair of weights."""
    jobs = jobs_of(prepared, pairs)
    return optimise(image_objective, prepared.features[:, None], jobs, uniform_start, prepared.tail, **running)


def network_lanes(
    networks: Sequence[Prepared], lam: float, gamma: float, rows: int | None, **running: Unpack[Running]
) -> optim.Lanes:
    """The lanes ``[networks * b, k]`` of several networks on the same images.

    Args:
        networks: of one architecture.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        rows: images, each under one of the networks, side by side; None is as many as are useful.
        **running: see :func:`smocam_networks`.
    """
    images = len(networks[0].features)
    numbers = jnp.arange(len(networks), dtype=jnp.int32).repeat(images)
    features = jnp.concatenate([network.features for network in networks])[:, None]
    jobs = jax.tree.map(lambda *a: jnp.concatenate(a), *(jobs_of(network, [(lam, gamma)]) for network in networks))
    tails = _stacked([network.tail for network in networks])
    return optimise(_network_objective, (features, numbers), jobs, _network_start, tails, rows=rows, **running)


def of_pair(lanes: optim.Lanes, pairs: Sequence[tuple[float, float]], pair: tuple[float, float]) -> optim.Lanes:
    """The lanes ``[b, k]`` of one of the pairs of weights."""
    return _apart(lanes, len(pairs))[list(pairs).index(pair)]


def _restart_objective(job: tuple[Job, jax.Array], features: jax.Array, tail: Model) -> optim.Objective:
    return image_objective(job[0], features, tail)


def _random_start(job: tuple[Job, jax.Array], features: jax.Array, tail: Model) -> jax.Array:
    mask = jax.random.uniform(job[1], features.shape[1:-1], features.dtype)
    return 1.1 * mask / l2_norm(mask)


def _network_objective(job: Job, group: tuple[jax.Array, jax.Array], tails: Any) -> optim.Objective:
    features, number = group
    return image_objective(job, features, jax.tree.map(lambda a: a[number], tails))


def _network_start(job: Job, group: tuple[jax.Array, jax.Array], tails: Any) -> jax.Array:
    return uniform_start(job, group[0], tails)


def _stacked(tails: Sequence[Model]) -> Model:
    try:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tails)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The networks are not of one architecture, or not cut at the same layer: {error}. Explain them one by one."
        ) from None


def _apart(lanes: optim.Lanes, count: int) -> list[Any]:
    """Lanes ``[b, count * k]`` as ``count`` of ``[b, k]``."""
    outputs = lanes.steps.shape[1] // count
    return [_slice(lanes, lambda a, i=i: a[:, i * outputs : (i + 1) * outputs]) for i in range(count)]


def _slice(lanes: optim.Lanes, cut: Any) -> optim.Lanes:
    names = [field.name for field in dataclasses.fields(optim.Lanes) if field.name != "usage"]
    return optim.Lanes(**{name: jax.tree.map(cut, getattr(lanes, name)) for name in names}, usage=lanes.usage)


def _together(usages: Sequence[optim.Usage]) -> optim.Usage:
    """What several results cost; those of one run share the same object, which counts once."""
    runs = list({id(usage): usage for usage in usages}.values())
    return optim.Usage(
        max(usage.lanes for usage in runs),
        sum(usage.chunks for usage in runs),
        sum(usage.useful for usage in runs),
        sum(usage.computed for usage in runs),
    )


def _warn(results: Sequence[MaskResult]) -> None:
    warn_of_flips(np.stack([np.asarray(result.negative_energy) for result in results]), stacklevel=4)
