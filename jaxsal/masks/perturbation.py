"""Meaningful perturbation: the smallest part of an image that decides over a prediction."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsal import optim
from jaxsal.masks.ball import ball_starts
from jaxsal.masks.fills import Fill, constant, named_fill
from jaxsal.masks.objective import Image, Job, Plan, Shared, Wanted, job_objective, job_start, measure
from jaxsal.masks.optimising import between_0_and_1, each_job, optimise, side_by_side
from jaxsal.masks.penalties import Penalty
from jaxsal.masks.perturbed import PerturbationResult, collect
from jaxsal.masks.presets import Recipe, preset
from jaxsal.masks.scores import Game, Score, check_choice
from jaxsal.masks.targets import Target, checked_key, find_targets, per_target, predictions, values_of
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.optim.applied import Applied
from jaxsal.optim.budget import at_least_one
from jaxsal.progress import Meter

_Preset = preset


def meaningful_perturbation(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: str | Sequence[int] | None = None,
    preset: str | Recipe | None = None,
    fill: str | Fill | None = None,
    score: Score | None = None,
    game: Game = "deletion",
    goal: Any = None,
    sigma: Any = 1.0,
    lam1: float | None = None,
    lam2: float | None = None,
    sparsity: Penalty | None = None,
    smoothness: Penalty | None = None,
    factor: int | None = None,
    jitter: int | None = None,
    noise: float | None = None,
    solver: optax.GradientTransformation | None = None,
    stop: optim.StoppingRule | None = None,
    max_steps: int | None = None,
    key: jax.Array | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: Meter | None = None,
) -> PerturbationResult:
    r"""The smallest, smoothest part of an image without which a prediction falls, or with which alone it stays.

    For one value ``f`` of every image, minimises over masks ``m`` in [0, 1], on a grid coarser than the image's,

    ``f(Phi(x; m)) + lam1 * sparsity(1 - m) + lam2 * smoothness(m)`` (deletion), or

    ``-f(Phi(x; m)) + lam1 * sparsity(m) + lam2 * smoothness(m)`` (preservation),

    where ``Phi`` keeps the image where the mask is 1 and fills it where the mask is 0. All values of all images are
    jobs for the lanes of one compiled program (:func:`jaxsal.optim.minimise_groups`). What is not given is the
    preset's.

    Args:
        model: ``x[b, *space, c] -> y[b, k]``.
        x: images, floating point.
        target: output that is explained: one for all images, one for each, a function ``y[n, k] -> [n]``, or None
            where there is only one.
        outputs: instead, ``"all"`` or positions of several outputs: the result leads with ``[output, image]``.
        preset: ``"fong"``, ``"fong-torch"``, ``"jacobgil"`` or ``"kan"``: published constants, for classes; a
            :class:`Recipe`; None: jaxsal's own, which is not random and suits any output.
        fill: ``"blur"``, ``"noise"``, ``"constant"``, or a fill from :mod:`jaxsal.masks.fills` with its numbers.
        score: ``f``: ``"probability"`` is the softmax of the outputs at the target, ``"output"`` the output itself,
            ``"closeness"`` minus its distance from what it is for the whole image, in ``sigma``: deletion then looks
            for the part that changes the output most, preservation for the part that keeps it.
        game: ``"deletion"`` or ``"preservation"``.
        goal: move the output towards this number (or numbers, one per output) by deleting; with ``"closeness"``.
        sigma: standard deviation of the outputs over a population, a number or one per output; for ``"closeness"``,
            and to judge whether there was something to explain.
        lam1: weight of the sparsity.
        lam2: weight of the smoothness.
        sparsity: e.g. ``penalties.share_mean(beta)``.
        smoothness: e.g. ``penalties.variation_mean(beta)``.
        factor: image voxels per voxel of the mask along an axis.
        jitter: largest shift of the image under the mask, in voxels.
        noise: standard deviation of noise on the perturbed image, in its units.
        solver: an optax transform; kept within [0, 1] by :func:`jaxsal.optim.in_box`, unless it is by
            :func:`jaxsal.optim.clipped`. Build it once, or by :func:`jaxsal.optim.preset`.
        stop: a stopping rule beside ``max_steps``.
        max_steps: most updates of a mask.
        key: of the random fill, jitter and noise; needed where there are any.
        batch_size: lanes, that is values of images, at once (on each device), which bounds memory; None takes as many
            as are useful and fit.
        mesh: of devices over which the images are spread; None is the default device.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks, saliency and diagnostics that lead with ``[image]``, or ``[output, image]`` with ``outputs``.

    Raises:
        TypeError: if ``x`` is not a floating-point array, or ``target`` or ``key`` is none.
        ValueError: if ``x``, the weights or an option cannot be used.
        Interrupted: on Ctrl-C, with the lanes ``[image, output]``, see :class:`jaxsal.optim.Interrupted`.

    Reference:
        Fong and Vedaldi, Interpretable explanations of black boxes by meaningful perturbation, ICCV 2017,
        https://doi.org/10.1109/ICCV.2017.371

    Example:
        >>> x = jnp.zeros((1, 16, 16, 1)).at[0, 4:8, 4:8].set(10.0)
        >>> model = lambda x: x[:, 4:8, 4:8].mean((1, 2))
        >>> result = meaningful_perturbation(model, x, fill="constant", lam2=0.0, max_steps=60)
        >>> result.saliency.shape, bool(result.saliency[0, 5, 5] > 0.9), bool(result.saliency[0, 14, 14] < 0.1)
        ((1, 16, 16), True, True)
    """
    check_input(x)
    check_model(model)
    recipe = _varied(
        _Preset(preset),
        fill=None if fill is None else named_fill(fill),
        score=score, lam1=lam1, lam2=lam2, sparsity=sparsity, smoothness=smoothness, factor=factor,
        jitter=jitter, noise=noise, solver=solver, steps=max_steps,
    )  # fmt: skip
    check_choice("game", game, ("deletion", "preservation"))
    check_choice("score", recipe.score, ("probability", "output", "closeness"))
    if goal is not None and (game != "deletion" or recipe.score != "closeness"):
        raise ValueError('goal moves an output by deleting: it needs score="closeness" and game="deletion".')
    key = checked_key(key, bool(recipe.jitter or recipe.noise or recipe.fill.random))
    batch_size = batch_size if batch_size is None else at_least_one("batch_size", batch_size)

    model = as_pytree(model)
    y = predictions(model, x, batch_size or len(x))
    targets = find_targets(target, outputs, recipe.score, len(x), y.shape[1])
    unit = per_target("sigma", 1.0 if recipe.score == "probability" else sigma, targets.index, y.shape[1], x.dtype)
    if not (unit > 0).all():
        raise ValueError("sigma must be positive: it is the standard deviation of each output.")
    if goal is None:
        goals = values_of(targets.measure, y, jnp.asarray(targets.index))
    else:
        goals = per_target("goal", goal, targets.index, y.shape[1], x.dtype)
    lanes, rows = side_by_side(batch_size, targets.index.shape[1])

    deletes = game == "deletion"
    plan = Plan(
        perturb=recipe.fill.apply,
        expand=recipe.fill.expand,
        measure=targets.measure,
        closeness=recipe.score == "closeness",
        sign=1 if deletes and goal is None else -1,
        deletes=deletes,
        recipe=_compiled(recipe),
        space=x.shape[1:-1],
    )
    shared = Shared(model, jnp.asarray(recipe.lam1, x.dtype), jnp.asarray(recipe.lam2, x.dtype))
    padding = [(0, 0), *[(0, recipe.jitter)] * len(plan.space), (0, 0)]
    images = Image(recipe.fill.prepare(jnp.pad(x, padding, mode="edge")), jax.random.split(key, len(x)))
    wanted = Wanted(jnp.asarray(targets.index), goals, unit)
    solver = between_0_and_1(recipe.solver)
    ended = optimise(
        Applied(job_objective, (plan,)),
        images,
        Job(wanted, _starts(plan, recipe, shared, images, wanted)),
        job_start,
        shared,
        title="Meaningful perturbation",
        solver=solver if recipe.best_after is None else optim.best_so_far(solver, after=recipe.best_after),
        stop=stop,
        max_steps=recipe.steps,
        lanes=lanes,
        rows=rows,
        mesh=mesh,
        progress=progress,
    )
    return collect(
        ended,
        each_job(Applied(measure, (plan,)), shared, images, (wanted, ended.params)),
        (lambda a: jnp.swapaxes(a, 0, 1)) if targets.several else (lambda a: a[:, 0]),
        lanes=("output", "image") if targets.several else ("image",),
        game=game,
        score=recipe.score,
        sigma=unit,
        goal=None if goal is None else goals,
    )


def _starts(plan: Plan, recipe: Recipe, shared: Shared, images: Image, wanted: Wanted) -> jax.Array:
    grid = tuple(max(1, size // recipe.factor) for size in plan.space)
    if isinstance(recipe.start, str):
        return each_job(Applied(ball_starts, (plan, grid)), shared, images, wanted)
    return jnp.full((*wanted.index.shape, *grid), recipe.start, shared.lam1.dtype)


def _compiled(recipe: Recipe) -> Recipe:
    """The part of a recipe that the objective reads; the rest is given when it runs and compiles nothing anew."""
    return dataclasses.replace(
        recipe, fill=constant(), solver=optim.preset(optax.identity), steps=0, lam1=0.0, lam2=0.0, factor=1, start=0.0,
        best_after=None,
    )  # fmt: skip


def _varied(recipe: Recipe, **changes: Any) -> Recipe:
    recipe = dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    for name in ("lam1", "lam2", "noise"):
        value = getattr(recipe, name)
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} got {value}, a finite number of at least 0 is needed.")
    for name, least in (("factor", 1), ("jitter", 0), ("samples", 1)):
        value = getattr(recipe, name)
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} got {value!r}, a whole number of at least {least} is needed.")
    return recipe
