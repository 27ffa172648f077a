"""Extremal perturbations: of all smooth masks of a given area, the one that matters most."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsal import optim
from jaxsal.engine.lower import lower
from jaxsal.masks import fills, scores
from jaxsal.masks.batches import Problem, in_batches
from jaxsal.masks.damped import damped_momentum
from jaxsal.masks.fills import Fill, named_fill
from jaxsal.masks.perturbed import ExtremalParts, Measured, PerturbationResult, judged
from jaxsal.masks.scores import Score, check_choice
from jaxsal.masks.smooth_max import parameter_grid, smooth_max
from jaxsal.masks.stepping import Variables, within
from jaxsal.masks.targets import Target, checked_key, find_targets, per_target, predictions, values_of
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.optim.applied import Applied
from jaxsal.progress import Meter, reporting


class _Plan(NamedTuple):
    """What is compiled into the objective."""

    perturb: Callable[..., jax.Array]
    measure: Callable[..., jax.Array]
    closeness: bool
    relative: bool
    game: str
    flips: tuple[int, ...]
    growth: float
    step: int
    sigma: float
    space: tuple[int, ...]


class _Shared(NamedTuple):
    model: Model
    lam: jax.Array
    scale: jax.Array


class _Image(NamedTuple):
    state: Any
    key: jax.Array
    null: jax.Array  # outputs [k] with everything deleted


class _Lane(NamedTuple):
    index: jax.Array
    goal: jax.Array
    unit: jax.Array
    outside: jax.Array  # voxels beyond the area, int32


def extremal_perturbation(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    area: Any = 0.1,
    game: Literal["preservation", "deletion", "dual"] = "preservation",
    score: Score = "output",
    sigma: Any = 1.0,
    fill: str | Fill | None = None,
    step: int = 7,
    smoothness: float = 21.0,
    flip_axes: Sequence[int] = (),
    scale: float | None = None,
    lam: float = 300.0,
    growth: float = 1.0035,
    solver: optax.GradientTransformation | None = None,
    stop: optim.StoppingRule | None = None,
    max_steps: int = 800,
    key: jax.Array | None = None,
    batch_size: int | None = None,
    progress: Meter | None = None,
) -> PerturbationResult:
    r"""The region of a given area that keeps an output highest, or without which it is lowest.

    Minimises over masks ``m`` in [0, 1], soft maxima of kernels (:func:`jaxsal.masks.smooth_max.smooth_max`),

    ``-scale * f(Phi(x; m)) + lam * growth^i * mean (sort(m) - [0 ... 0 1 ... 1])^2``

    at step ``i``, where the ones are the share ``area`` of the image's voxels. Here a mask is the region that counts:
    in the preservation game only it is shown, in the deletion game it alone is not, and the dual game looks for the
    largest difference of the two. Images and areas are lanes of one compiled program.

    Args:
        model: ``x[b, *space, c] -> y[b, k]``.
        x: images, floating point.
        target: output that is explained: one for all images, one for each, a function ``y[n, k] -> [n]``, or None
            where there is only one.
        area: share of the voxels, in (0, 1): a number, or several, which lead the result.
        game: ``"preservation"``, ``"deletion"`` or ``"dual"``.
        score: ``f``: ``"output"`` as it is (for classes: before the softmax), ``"probability"``, or for a regression
            ``"closeness"`` to the output of the whole image, in ``sigma``.
        sigma: standard deviation of the outputs over a population, a number or one per output.
        fill: what is shown elsewhere; None is the paper's blur, ``fills.pyramid(20.0, 8)``.
        step: voxels from one parameter of the mask to the next.
        smoothness: width of the kernels in voxels.
        flip_axes: spatial axes, from 0, along which the image is flipped on every second step; the paper flips
            photographs. None by default: it would take the left side of a brain for the right one.
        scale: factor on the score. None counts it in percent of what deleting everything changes it by, so that
            neither weights nor steps depend on units; the paper has 1, for logits of photographs. ``terms`` has the
            score without it.
        lam: weight of the area.
        growth: factor on it from step to step.
        solver: an optax transform for masks, cut to [0, 1]; None is the paper's
            :func:`jaxsal.masks.damped.damped_momentum`.
        stop: a stopping rule beside ``max_steps``.
        max_steps: most updates of a mask.
        key: of a random fill.
        batch_size: lanes, that is areas of images, at once; None for all.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks' parameters in ``mask``, the masks themselves in ``saliency``; they lead with ``[image]``, or with
        ``[area, image]`` for several areas.

    Raises:
        TypeError: if ``x`` is not a floating-point array, or ``target`` or ``key`` is none.
        ValueError: if ``x``, the weights or an option cannot be used.

    Reference:
        Fong, Patrick and Vedaldi, Understanding deep networks via extremal perturbations and smooth masks, ICCV 2019,
        https://doi.org/10.1109/ICCV.2019.00304

    Example:
        >>> x = jnp.zeros((1, 24, 24, 1)).at[0, 4:12, 4:12].set(1.0)
        >>> model = lambda x: 100 * x[:, 4:12, 4:12].mean((1, 2))
        >>> result = extremal_perturbation(
        ...     model, x, area=0.15, fill="constant", step=4, smoothness=4.0, max_steps=300)
        >>> result.saliency.shape, bool(result.saliency[0, 8, 8] > 0.9), bool(result.saliency[0, 20, 20] < 0.1)
        ((1, 24, 24), True, True)
    """
    check_input(x)
    check_model(model)
    check_choice("game", game, ("preservation", "deletion", "dual"))
    check_choice("score", score, ("probability", "output", "closeness"))
    chosen = fills.pyramid() if fill is None else named_fill(fill)
    areas = _areas(area)
    space = x.shape[1:-1]
    flips = _flips(flip_axes, len(space))
    if not isinstance(step, int | np.integer) or step < 1:
        raise ValueError(f"step got {step!r}, a whole number of voxels, at least 1, is needed.")
    factor = 100.0 if scale is None else scale
    for name, number in (("smoothness", smoothness), ("scale", factor), ("lam", lam), ("growth", growth)):
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} got {number}, a finite number above 0 is needed.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size got {batch_size}, at least 1 is needed.")
    key = checked_key(key, chosen.random)

    model = as_pytree(model)
    y = predictions(model, x, batch_size or len(x))
    targets = find_targets(target, None, score, len(x), y.shape[1])
    unit = per_target("sigma", 1.0 if score == "probability" else sigma, targets.index, y.shape[1], x.dtype)
    if not (unit > 0).all():
        raise ValueError("sigma must be positive: it is the standard deviation of each output.")
    index = jnp.asarray(targets.index)
    outside = jnp.asarray([int(np.prod(space) * (1 - a)) for a in areas], jnp.int32)[None]
    lanes = _Lane(index, values_of(targets.measure, y, index), unit, outside)
    lanes = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(x), len(areas))), lanes)
    plan = _Plan(
        chosen.apply,
        targets.measure,
        score == "closeness",
        scale is None,
        game,
        flips,
        float(growth),
        int(step),
        float(smoothness),
        space,
    )
    problem = Problem(
        objective=Applied(_objective, (plan,)),
        measure=Applied(_measure, (plan,)),
        shared=_Shared(model, jnp.asarray(lam, x.dtype), jnp.asarray(factor, x.dtype)),
        outer=functools.partial(_images, chosen, model, x, jax.random.split(key, len(x))),
        inner=lanes,
        start=lambda _, inner: jnp.ones((*inner.index.shape, *parameter_grid(space, step)), x.dtype),
    )
    limit = optim.max_steps(max_steps)
    with reporting(progress, "Extremal perturbation") as meter:
        found = in_batches(
            problem,
            within(damped_momentum() if solver is None else solver),
            limit if stop is None else optim.any_of(stop, limit),
            batch_size,
            meter,
        )
    if np.ndim(area):
        found, lanes = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (found, lanes))
    else:
        found, lanes = jax.tree.map(lambda a: a[:, 0], (found, lanes))
    value, parts, values, saliency = found.measured
    kept: Any = "deletion" if game == "deletion" else "preservation"
    recovered, codes = judged(found.status, values, kept, score, lanes.unit)
    return PerturbationResult(
        mask=found.masks,
        saliency=saliency,
        value=value,
        terms=parts,
        steps=found.steps,
        evaluations=found.evaluations,
        status=codes,
        prediction=values.whole,
        masked_prediction=values.masked,
        null_prediction=values.null,
        recovered=recovered,
        lanes=("area", "image") if np.ndim(area) else ("image",),
        game=game,
    )


def _objective(plan: _Plan, shared: _Shared, image: _Image, lane: _Lane, variables: Variables):
    params, step = variables
    mask = smooth_max(params, plan.space, plan.step, plan.sigma)
    key = jax.random.fold_in(image.key, step.astype(jnp.int32))
    seen = jnp.stack([plan.perturb(image.state, m, key) for m in _shown(plan, mask)])
    if plan.flips:
        axes = [axis + 1 for axis in plan.flips]
        seen = jnp.where(step % 2 == 0, jnp.flip(seen, axes), seen)
    parts = ExtremalParts(_reward(plan, lane, lower(shared.model)(seen)), _missed(mask, lane.outside))
    scale = _scale(plan, shared, image, lane)
    return -scale * parts.score + shared.lam * plan.growth**step * parts.area, parts


def _measure(plan: _Plan, shared: _Shared, image: _Image, lane: _Lane, params: jax.Array):
    """Value with the first step's weight, parts, predictions, and the mask."""
    mask = smooth_max(params, plan.space, plan.step, plan.sigma)
    shown = _shown(plan, mask)
    masks = [*shown, jnp.ones_like(mask), jnp.zeros_like(mask)]
    y = lower(shared.model)(jnp.stack([plan.perturb(image.state, m, image.key) for m in masks]))
    parts = ExtremalParts(_reward(plan, lane, y[: len(shown)]), _missed(mask, lane.outside))
    explained = plan.measure(y, lane.index)
    values = Measured(explained[-2], explained[0], explained[-1])
    value = -_scale(plan, shared, image, lane) * parts.score + shared.lam * parts.area
    return value, parts, values, mask


def _scale(plan: _Plan, shared: _Shared, image: _Image, lane: _Lane) -> jax.Array:
    if not plan.relative:
        return shared.scale
    change = jnp.abs(plan.measure(image.null[None], lane.index)[0] - lane.goal)
    change = change / lane.unit if plan.closeness else change
    # where deleting changes nothing there is nothing to find
    return jnp.where(change > 0, shared.scale / jnp.where(change > 0, change, 1), 0)


def _shown(plan: _Plan, mask: jax.Array) -> list[jax.Array]:
    """Masks as the fills take them: 1 is shown."""
    return {"preservation": [mask], "deletion": [1 - mask], "dual": [mask, 1 - mask]}[plan.game]


def _reward(plan: _Plan, lane: _Lane, y: jax.Array) -> jax.Array:
    left = plan.measure(y, lane.index)
    if plan.closeness:
        left = scores.closeness(left, lane.goal, lane.unit)
    if plan.game == "dual":
        return left[0] - left[1]
    return -left[0] if plan.game == "deletion" else left[0]


def _missed(mask: jax.Array, outside: jax.Array) -> jax.Array:
    ordered = jnp.sort(mask.reshape(-1))
    wanted = jnp.arange(mask.size, dtype=jnp.int32) >= outside
    return jnp.mean((ordered - wanted.astype(mask.dtype)) ** 2)


def _images(fill: Fill, model: Model, x: jax.Array, keys: jax.Array, chosen: np.ndarray) -> _Image:
    state = fill.prepare(x[chosen])
    nothing = jnp.zeros(x.shape[1:-1], x.dtype)
    return _Image(state, keys[chosen], _nulls(fill.apply, model, state, nothing, keys[chosen]))


@functools.partial(jax.jit, static_argnums=0)
def _nulls(
    perturb: Callable[..., jax.Array], model: Model, state: Any, nothing: jax.Array, keys: jax.Array
) -> jax.Array:
    return lower(model)(jax.vmap(perturb, (0, None, 0))(state, nothing, keys))


def _areas(area: Any) -> list[float]:
    found = np.asarray(area, np.float64)
    if found.ndim > 1 or not found.size or not ((found > 0) & (found < 1)).all():
        raise ValueError(f"area got {area!r}: give a share of the voxels between 0 and 1, or a sequence of them.")
    return np.atleast_1d(found).tolist()


def _flips(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    found = tuple(int(axis) for axis in axes)
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) < len(found):
        raise ValueError(f"flip_axes got {list(axes)}: give different spatial axes from 0 to {rank - 1}.")
    return found
