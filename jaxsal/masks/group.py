"""Group masks: one mask for many subjects, under which a network no longer sees what it saw in them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsal import optim
from jaxsal.engine.lower import lower
from jaxsal.masks import scores
from jaxsal.masks.fills import constant
from jaxsal.masks.objective import on_image
from jaxsal.masks.optimising import between_0_and_1, each_job, optimise
from jaxsal.masks.penalties import Penalty, share_norm, variation_norm
from jaxsal.masks.perturbed import Found, Measured, Parts, PerturbationResult, collect
from jaxsal.masks.separable import linear
from jaxsal.masks.targets import find_targets
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.optim.applied import Applied
from jaxsal.progress import Meter


class _Plan(NamedTuple):
    """What is compiled into the objective."""

    measure: Callable[..., jax.Array]
    score: Callable[..., jax.Array]
    sparsity: Penalty
    smoothness: Penalty
    space: tuple[int, ...]
    grid: tuple[int, ...]


class _Subjects(NamedTuple):
    """All subjects in batches ``[batches, n, ...]``, and what they share."""

    xs: jax.Array
    index: jax.Array
    goal: jax.Array
    sigma: jax.Array
    hidden: jax.Array  # what is shown instead, of an image's rank


class _Network(NamedTuple):
    """One network and the weight of every subject in its mean, ``[batches, n]``."""

    model: Model
    weight: jax.Array


def group_mask(
    model: Model | Sequence[Model],
    xs: jax.Array,
    target: Any,
    *,
    lam1: Any,
    lam2: Any,
    beta1: float,
    beta2: float,
    fill: Any = 1.0,
    goal: Any = None,
    sigma: float = 1.0,
    factor: int = 1,
    solver: optax.GradientTransformation | None = None,
    stop: optim.StoppingRule | None = None,
    max_steps: int = 300,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: Meter | None = None,
) -> PerturbationResult:
    r"""One mask for a set of subjects: the least that must be hidden from all of them.

    With ``X'_m = m X + (1 - m) fill``, minimises over ``m`` in [0, 1], from ``m = 1``,

    ``f(X'_m) + lam1 ||1 - m||_beta1 + lam2 ||grad m||_beta2``,

    where ``f`` is the mean probability of the true class over the subjects that the network classifies correctly, or,
    with a goal, the mean of ``|output - goal| / sigma`` over all subjects. Both norms are ``(sum |.|^beta)^(1 / beta)``
    over voxels, and over axes for forward differences. Gradients are summed batch by batch: memory does not grow with
    the number of subjects. Networks, ``lam1`` and ``lam2`` are jobs for the lanes of one compiled program
    (:func:`jaxsal.optim.minimise_groups`).

    Args:
        model: a network ``x[b, *space, c] -> y[b, k]``, or several of one architecture, such as the folds of a
            cross-validation, each of which gets a mask of its own.
        xs: subjects ``[n, *space, c]``, floating point, on one grid and in one space.
        target: the true class of every subject, one number or ``[n]``; with a goal, the output that is moved.
        lam1: weight of what is hidden: a number, or several, which add an axis.
        lam2: weight of roughness: a number, or several, which add an axis.
        beta1: exponent of the first norm, at least 1.
        beta2: exponent of the second.
        fill: what is shown instead: a number, one per channel, or an image ``[*space, c]``: 1 for maps of grey matter,
            the mean of the control group for T1-weighted scans.
        goal: where an output is to be moved, a number or one per subject.
        sigma: standard deviation of that output over a population.
        factor: image voxels per voxel of the mask along an axis; between its voxels it is linear.
        solver: an optax transform, see :func:`meaningful_perturbation`; None is Adam with steps of 0.1, clipped.
        stop: a stopping rule beside ``max_steps``; None stops when the objective stagnates.
        max_steps: most updates of a mask.
        batch_size: subjects at once (for every lane), which bounds memory; None for all.
        mesh: of devices over which the networks are spread; None is the default device.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks, which lead with ``[fold, lam1, lam2]`` as far as there are several. ``prediction`` and those that follow
        are means over the subjects that count, which are in ``subjects``.

    Raises:
        TypeError: if ``xs`` is not a floating-point array.
        ValueError: if an argument cannot be used, networks differ in their architecture, or one classifies no subject
            correctly.
        Interrupted: on Ctrl-C, with the lanes ``[fold, lam1 * lam2]``, see :class:`jaxsal.optim.Interrupted`.

    Reference:
        Thibeau-Sutre et al., Visualization approach to assess the robustness of neural networks for medical image
        classification, 2020, https://hal.science/hal-03365775

    Example:
        >>> xs = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1)).at[:, 2:4, 2:4].set(0.0)
        >>> model = lambda x: 9.0 * x[:, 2:4, 2:4].mean((1, 2)) * jnp.array([[1.0, -1.0]]) + jnp.array([[-3.0, 3.0]])
        >>> result = group_mask(model, xs, 1, lam1=0.01, lam2=0.0, beta1=1, beta2=1, max_steps=50)
        >>> bool(result.saliency[2:4, 2:4].min() > 0.5), bool(result.saliency[5:, 5:].max() < 0.1)
        (True, True)
    """
    check_input(xs, "xs")
    networks, count = _stacked(model)
    hidden = constant(fill).prepare(xs[:1])[1][0]
    grids = _weights("lam1", lam1), _weights("lam2", lam2)
    goals = _goals(goal, len(xs))
    for name, number in (("factor", factor), ("batch_size", len(xs) if batch_size is None else batch_size)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name} got {number!r}, a whole number of at least 1 is needed.")
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma got {sigma}, the output's standard deviation, a finite number above 0, is needed.")

    size = len(xs) if batch_size is None else min(batch_size, len(xs))
    y = _forward(networks, xs, size, count)
    if y.ndim != 3:
        raise ValueError(f"The network returns {y.shape[1:]}, [batch, outputs] is needed: reduce its other axes.")
    targets = find_targets(target, None, "probability" if goal is None else "output", len(xs), y.shape[-1])
    counts = _counted(y, targets.index[:, 0], goal is not None)
    order, once = _batches(len(xs), size)
    weight = counts[:, order] * once / counts.sum(1)[:, None, None]
    index, units = jnp.asarray(targets.index[:, 0])[order], jnp.asarray(goals, xs.dtype)[order]
    folds = _Network(networks, jnp.asarray(weight, xs.dtype))
    space, grid = xs.shape[1:-1], tuple(max(1, n // factor) for n in xs.shape[1:-1])
    measure = Applied(_distance, (targets.measure,)) if goal is not None else Applied(_value, (targets.measure,))
    plan = _Plan(targets.measure, measure, share_norm(beta1), variation_norm(beta2), space, grid)
    pairs = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, 2)
    jobs = jnp.asarray(np.broadcast_to(pairs, (count, *pairs.shape)), xs.dtype)
    shared = _Subjects(xs[order], index, units, jnp.asarray(sigma, xs.dtype), hidden)
    ended = optimise(
        Applied(_job_objective, (plan,)),
        folds,
        jobs,
        Applied(_start, (plan,)),
        shared,
        title="Group mask",
        solver=optim.clipped(optim.adam(0.1)) if solver is None else between_0_and_1(solver),
        stop=optim.stagnation() if stop is None else stop,
        max_steps=max_steps,
        # a convolution whose kernel differs from row to row is slow on a CPU: one network after the other
        rows=1 if jax.default_backend() == "cpu" else None,
        mesh=mesh,
        progress=progress,
    )
    several = _is_several(model), np.ndim(lam1) > 0, np.ndim(lam2) > 0
    shape = tuple(n for n, axis in zip((count, *map(len, grids)), several, strict=True) if axis)
    return collect(
        ended,
        each_job(Applied(_measure, (plan,)), shared, folds, (jobs, ended.params)),
        lambda a: a.reshape(*shape, *a.shape[2:]),
        lanes=tuple(name for name, axis in zip(("fold", "lam1", "lam2"), several, strict=True) if axis),
        game="deletion",
        score="probability" if goal is None else "closeness",
        sigma=1.0 if goal is None else sigma,
        goal=None if goal is None else jnp.full(jobs.shape[:2], goals.mean(), xs.dtype),
        subjects=counts if several[0] else counts[0],
    )


def _job_objective(plan: _Plan, weights: jax.Array, network: _Network, subjects: _Subjects) -> optim.Objective:
    return Applied(_objective, (plan, subjects, network, weights))


def _start(plan: _Plan, weights: jax.Array, network: _Network, subjects: _Subjects) -> jax.Array:
    return jnp.ones(plan.grid, weights.dtype)


def _objective(plan: _Plan, subjects: _Subjects, network: _Network, weights: jax.Array, mask: jax.Array):
    score = _mean(plan.score, subjects, network, on_image(mask, linear, plan.space))
    parts = Parts(score, plan.sparsity(1 - mask), plan.smoothness(mask))
    return parts.score + weights[0] * parts.sparsity + weights[1] * parts.smoothness, parts


def _measure(plan: _Plan, subjects: _Subjects, network: _Network) -> Callable[[tuple[jax.Array, jax.Array]], Found]:
    return Applied(_measured, (plan, subjects, network))


def _measured(plan: _Plan, subjects: _Subjects, network: _Network, found: tuple[jax.Array, jax.Array]) -> Found:
    weights, mask = found
    value, parts = _objective(plan, subjects, network, weights, mask)
    full = on_image(mask, linear, plan.space)
    explained = Applied(_value, (plan.measure,))
    values = [_mean(explained, subjects, network, m) for m in (jnp.ones_like(full), full, jnp.zeros_like(full))]
    return Found(value, parts, Measured(*values), 1 - full)


def _mean(score: Any, subjects: _Subjects, network: _Network, full: jax.Array) -> jax.Array:
    """Weighted mean of a score over all subjects under one mask on their grid."""
    full = full[None, ..., None]

    def add(total: jax.Array, batch: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        x, index, goal, weight = batch
        seen = full * x + (1 - full) * subjects.hidden[None]
        y = lower(network.model)(seen)
        return total + (weight * score(y, index, goal, subjects.sigma)).sum(), None

    # of every batch only the sum is kept; the gradient computes the batch once more
    over = subjects.xs, subjects.index, subjects.goal, network.weight
    return jax.lax.scan(jax.checkpoint(add), jnp.zeros((), full.dtype), over)[0]


def _value(measure: Any, y: jax.Array, index: jax.Array, goal: jax.Array, sigma: jax.Array) -> jax.Array:
    return jax.vmap(lambda y, index: measure(y[None], index)[0])(y, index)


def _distance(measure: Any, y: jax.Array, index: jax.Array, goal: jax.Array, sigma: jax.Array) -> jax.Array:
    return -scores.closeness(_value(measure, y, index, goal, sigma), goal, sigma)


def _batches(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``[batches, size]`` of all subjects, the last one repeated, and whether each is new."""
    places = np.arange(-(-count // size) * size).reshape(-1, size)
    return np.minimum(places, count - 1), places < count


def _counted(y: jax.Array, index: np.ndarray, moves: bool) -> np.ndarray:
    """Which subjects count, ``[fold, n]``: those whose class is right, or, where an output is moved, all."""
    if moves:
        return np.ones(y.shape[:2], bool)
    right = np.asarray(y).argmax(-1) == index
    if not right.any(1).all():
        raise ValueError(
            f"Network {int(np.argmin(right.any(1)))} gives none of the {right.shape[1]} subjects its target class: "
            "check target, or leave this network out."
        )
    return right


def _is_several(model: Any) -> bool:
    return isinstance(model, list | tuple) and not callable(model)


def _stacked(model: Any) -> tuple[Any, int]:
    """Networks of one architecture as one pytree whose arrays lead with ``[fold]``, and how many they are."""
    models = [as_pytree(m) for m in model] if _is_several(model) else [as_pytree(model)]
    if not models:
        raise ValueError("group_mask got no network.")
    for one in models:
        check_model(one)
    trees = [jax.tree.structure(one) for one in models]
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(one)] for one in models]
    if any(tree != trees[0] for tree in trees) or any(shape != shapes[0] for shape in shapes):
        raise ValueError("The networks differ in their architecture: give those of one, or call group_mask for each.")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models), len(models)


def _weights(name: str, values: Any) -> np.ndarray:
    found = np.atleast_1d(np.asarray(values, np.float64))
    if found.ndim != 1 or not found.size or not (np.isfinite(found).all() and (found >= 0).all()):
        raise ValueError(f"{name} got {values!r}: give one weight of at least 0, or a sequence of them.")
    return found


def _goals(goal: Any, count: int) -> np.ndarray:
    goals = np.asarray(0.0 if goal is None else goal, np.float64)
    if goals.shape not in ((), (count,)) or not np.isfinite(goals).all():
        raise ValueError(f"goal got {goal!r}: give one finite number, or one per subject ({count}).")
    return np.broadcast_to(goals, (count,))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _forward(networks: Any, xs: jax.Array, size: int, folds: int) -> jax.Array:
    def one(network: Model) -> jax.Array:
        return jax.lax.map(lambda x: lower(network)(x[None])[0], xs, batch_size=size)

    return jax.vmap(one, axis_size=folds)(networks)
