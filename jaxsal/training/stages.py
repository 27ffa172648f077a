"""The stages of the shipped network's training: where structures are, how large they are, the dense layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsal.data.synthetic.anatomy import GRID
from jaxsal.engine.geometry import geometry
from jaxsal.engine.lower import lower
from jaxsal.training import crops, dense, metrics
from jaxsal.training.fit import fit
from jaxsal.training.log import logger
from jaxsal.training.morphometry import Targets, export, network, standardise
from jaxsal.training.pool import PAINTED, QUANTUM, Pool, open_pool, unpack
from jaxsal.training.warm_start import scale_convolutions, sum_cells

_BATCH = 8
_SCALED_ON = 16  # crops that scale the convolutions
_AVERAGED = 1000  # anatomies whose shares are averaged


class Plan(NamedTuple):
    """How long each stage is and what it sees.

    Attributes:
        seed: of the initial weights, the order of the members and the augmentation.
        members: how many of the cohort are learnt from; the rest of it is held out.
        places: updates of the convolutions by where structures are, on crops.
        sizes: further updates of them by how large structures are, on crops that are shaken and mirrored.
        whole: updates of the whole network on whole brains.
    """

    seed: int = 0
    members: int = 4000
    places: int = 1500
    sizes: int = 4000
    whole: int = 200


def augment(images: jax.Array, key: jax.Array) -> jax.Array:
    """The contrast curve x + a x (1 - x), a ramp of the sensitivity and a factor, on top of the cohort's appearances.

    Args:
        images: float32[b, *space, 1], about 1 in white matter.
        key: a JAX random key.
    """
    k_bend, k_scale, k_ramp = jax.random.split(key, 3)
    one = (images.shape[0], 1, 1, 1, 1)
    # At most .2, so that the curve rises everywhere up to 2.5, the brightest stored intensity.
    bend = jax.random.uniform(k_bend, one, minval=-0.2, maxval=0.2)
    images = (images + bend * images * (1.0 - images)) * jnp.exp(0.05 * jax.random.normal(k_scale, one))
    axes = [jnp.linspace(-1.0, 1.0, n) for n in images.shape[1:-1]]
    slopes = 0.05 * jax.random.normal(k_ramp, (images.shape[0], 3))
    ramp = jnp.einsum("ba,aijk->bijk", slopes, jnp.stack(jnp.meshgrid(*axes, indexing="ij")))
    return images * jnp.exp(ramp)[..., None]


def mirrored(values: Any) -> Any:
    """Left and right exchanged along the last axis, [..., 14]."""
    return values.reshape(*values.shape[:-1], -1, 2)[..., ::-1].reshape(values.shape)


def train(cohort: Path, out: Path, plan: Plan) -> Path:
    """All stages, each resumed from its own checkpoints in ``out``.

    Args:
        cohort: folder of the cohort.
        out: folder of checkpoints, logs and of ``model.safetensors``.
        plan: lengths and seed.

    Returns:
        The saved network.
    """
    pool = open_pool(cohort)
    made = int(pool.done[0])
    if made <= plan.members:
        raise ValueError(
            f"the cohort in {cohort} has {made} members, more than {plan.members} are needed: go on making it with"
            " the command `cohort`, or ask for fewer"
        )
    targets = standardise(pool, plan.members)
    params, mean = locate(pool, out / "places", targets, plan)
    params = measure(params, mean, pool, out / "sizes", targets, plan)
    model = refine(assemble(params, mean, targets), pool, out / "whole", targets, plan)
    procedure = plan._asdict() | {
        "cohort_seed": int(pool.seed[0]),
        "batch": _BATCH,
        "r2_held_out": held_out(model, pool, targets, plan),
    }
    return export(out / "model.safetensors", model, targets, procedure=procedure)


def locate(pool: Pool, out: Path, targets: Targets, plan: Plan) -> tuple[dense.DenseParams, dense.Average]:
    """First stage: the convolutions learn every structure's share of every cell, and what the shares sum to."""
    model = network(plan.seed)
    everyone = np.arange(0, plan.members, PAINTED)
    some = _intensities(jnp.asarray(crops.take(pool, everyone[:_SCALED_ON]).images))
    scale_convolutions(model, some)
    mean = dense.average(crops.take(pool, everyone[:_AVERAGED]).shares)
    loss = dense.place_loss(model, mean, jnp.asarray(targets.sigma))

    def batch_loss(params: Any, batch: crops.Crops, key: jax.Array) -> jax.Array:
        images, shares = batch
        return loss(params, (augment(_intensities(images), key), shares.astype(jnp.float32) / 255.0))

    def batch_at(step: int) -> crops.Crops:
        return crops.take(pool, np.random.default_rng((plan.seed, 0, step)).integers(0, plan.members, _BATCH))

    start = dense.initial(model, mean, some)
    return _run(batch_loss, start, batch_at, _two_rates(2e-3, plan.places), out, plan.places, plan), mean


def measure(
    params: dense.DenseParams, mean: dense.Average, pool: Pool, out: Path, targets: Targets, plan: Plan
) -> dense.DenseParams:
    """Second stage: the same network by the volumes alone, which stay what they are when crops are shaken."""
    loss = dense.size_loss(network(plan.seed), mean, jnp.asarray(targets.sigma))

    def batch_loss(params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        images, z = batch
        return loss(params, (augment(_intensities(images), key), z))

    def batch_at(step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((plan.seed, 1, step))
        members = rng.integers(0, plan.members, _BATCH)
        images, flips = crops.shaken(pool, members, rng)
        return images, _over_sigma(pool, members, flips, targets)

    return _run(batch_loss, params, batch_at, _two_rates(1e-3, plan.sizes), out, plan.sizes, plan)


def assemble(params: dense.DenseParams, mean: dense.Average, targets: Targets) -> Any:
    """The network for whole brains: trained convolutions, and dense layers that sum the read-out."""
    model = nnx.merge(nnx.split(network(0))[0], params.network)
    scale = dense.POOLED_VOLUME / targets.sigma
    kernel = np.asarray(params.pooled * mean.pooled_sigma.reshape(1, 1, 1, 1, -1)) * scale
    sum_cells(model, on_grid(model, kernel))
    return model


def refine(model: Any, pool: Pool, out: Path, targets: Targets, plan: Plan) -> Any:
    """Last stage: all layers by the volumes of whole brains, at a low rate."""
    graph, start = nnx.split(model)
    predict = lower(lambda params, x: nnx.merge(graph, params)(x))

    def loss(params: Any, batch: tuple[jax.Array, jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        images, flips, z = batch
        x = unpack(images)
        x = jnp.where(flips.reshape(-1, 1, 1, 1, 1), x[:, ::-1], x)
        return optax.losses.huber_loss(predict(params, augment(x, key)), z).mean()

    def batch_at(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng((plan.seed, 2, step))
        members, flips = np.sort(rng.integers(0, plan.members, _BATCH)), rng.random(_BATCH) < 0.5
        return np.asarray(pool.images[members]), flips, _over_sigma(pool, members, flips, targets)

    def rate(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path)
        if "bias" in name and ("dense" in name or "output" in name):
            return "fixed"
        return "slow" if "dense1" in name else "fast"

    labels = jax.tree_util.tree_map_with_path(rate, start)
    rates: Any = {"fast": _adam(2e-4, plan.whole), "slow": _adam(2e-5, plan.whole), "fixed": optax.set_to_zero()}
    optimiser = optax.partition(rates, labels)
    return nnx.merge(graph, _run(loss, start, batch_at, optimiser, out, plan.whole, plan))


def held_out(model: Any, pool: Pool, targets: Targets, plan: Plan) -> list[float]:
    """R^2 of each output on the members that were not learnt from, every anatomy once."""
    predict = jax.jit(lower(lambda x: model(x)))
    members = np.arange(plan.members, int(pool.done[0]), PAINTED)
    found = np.concatenate([np.asarray(predict(unpack(jnp.asarray(pool.images[i : i + 1])))) for i in members])
    truth = _over_sigma(pool, members, np.zeros(len(members), bool), targets)
    return [round(metrics.r2(truth[:, i], found[:, i]), 3) for i in range(truth.shape[1])]


def on_grid(model: Any, kernel: np.ndarray) -> np.ndarray:
    """Weights of the crop's pooled cells [i, j, k, channels, n] among those of the whole grid, zero elsewhere."""

    def last(x: jax.Array) -> jax.Array:
        return dense.maps(model, x)[dense.POOLED]

    image, crop = (jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32) for shape in (GRID, crops.SHAPE))
    whole, part = geometry(last, image), geometry(last, crop)
    cells = jax.eval_shape(last, image).shape[1:-1]
    places = []
    for first, a, b, step, n in zip(crops.FIRST, whole.start, part.start, whole.step, kernel.shape, strict=False):
        skipped = (first + b - a) / step
        if skipped != round(skipped):
            raise ValueError(f"cells of the crop lie {skipped} cells from those of the grid: move crops.FIRST")
        places.append(slice(round(skipped), round(skipped) + n))
    full = np.zeros((*cells, *kernel.shape[-2:]))
    full[tuple(places)] = kernel
    return full


def _over_sigma(pool: Pool, members: np.ndarray, flips: np.ndarray, targets: Targets) -> np.ndarray:
    """Volumes over sigma, left and right exchanged where the image is seen in a mirror, float32[b, 14]."""
    z = np.stack([pool.volumes[i] for i in members]) / targets.sigma
    return np.where(flips[:, None], mirrored(z), z).astype(np.float32)


def _intensities(images: Any) -> jax.Array:
    return images.astype(jnp.float32)[..., None] * QUANTUM


def _two_rates(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam; the pooled read-out sums thousands of features, a step of the common length moves it far."""
    labels: Any = dense.DenseParams("fast", "fast", "fast", "slow")  # type: ignore[arg-type]
    return optax.partition({"fast": _adam(rate, steps), "slow": _adam(rate / 10, steps)}, labels)


def _adam(rate: float, steps: int) -> optax.GradientTransformation:
    warmup = min(100, steps // 4)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(steps, warmup + 1), rate / 200)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _run(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    batch_at: Callable[[int], Any],
    optimiser: optax.GradientTransformation,
    out: Path,
    steps: int,
    plan: Plan,
) -> Any:
    with logger(out, steps) as report:
        return fit(
            loss, params, batch_at, optimiser, steps=steps, key=jax.random.key(plan.seed), decay=0.99,
            checkpoints=out / "checkpoints", every=250, report=report,
        ).average  # fmt: skip
