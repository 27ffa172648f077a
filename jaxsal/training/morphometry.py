"""The shipped network: a small MorphometryVGG trained on the synthetic cohort alone.

Run as ``python -m jaxsal.training.morphometry cohort|train|evaluate``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsal import zoo
from jaxsal.data import synthetic
from jaxsal.data.synthetic.anatomy import GRID, ORIGIN, SPACING
from jaxsal.engine.lower import lower
from jaxsal.training.fit import FitState, fit, restore
from jaxsal.training.pool import Pool, open_pool, unpack, wait_for
from jaxsal.training.warm_start import Centring, fold, predict_centred, scale_convolutions, start

CONFIG: dict[str, Any] = {
    "blocks": (
        zoo.ConvBlock(16, kernel=3, stride=2, pool=2),
        zoo.ConvBlock(32, kernel=3, pool=2),
        zoo.ConvBlock(64, kernel=3, pool=2),
    ),
    "dense": (128, 64),
    "dropout": 0.0,
}
MASK_LAYER = "relu2"
BATCH = 8
_PEAK_RATE = 1.0e-3
_WARM_UP, _DECAY = 100, 600
_STARTED_ON, _CHUNK = 800, 20


class Schedule(NamedTuple):
    """Which members of a growing cohort step t may use: the first min(size, first + rate t).

    Attributes:
        first: members that must exist before the first step.
        rate: further members per step.
        size: members in the end.
    """

    first: int
    rate: float
    size: int

    def available(self, step: int) -> int:
        """Number of members that a step may use."""
        return min(self.size, self.first + int(self.rate * step))


class Targets(NamedTuple):
    """Mean and standard deviation of each volume over the cohort, mm^3, float32[14]."""

    mean: np.ndarray
    sigma: np.ndarray


def network(seed: int) -> nnx.Module:
    """The untrained network."""
    return zoo.MorphometryVGG(len(synthetic.OUTPUTS), shape=GRID, **CONFIG, rngs=nnx.Rngs(seed))


def augment(images: jax.Array, z: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Light changes on top of the cohort's own: mirroring (exact) and the contrast curve x + a x (1 - x).

    Args:
        images: float32[b, 91, 109, 91, 1].
        z: standardised volumes, float32[b, 14], pairs of left and right sharing mean and sigma.
        key: a JAX random key.

    Returns:
        Images, scaled to mean 1 over the voxels above zero again, and targets, of the same shapes.
    """
    k_flip, k_curve = jax.random.split(key)
    batch = images.shape[0]
    flip = jax.random.bernoulli(k_flip, 0.5, (batch,))
    swapped = z.reshape(batch, -1, 2)[..., ::-1].reshape(z.shape)
    images = jnp.where(flip[:, None, None, None, None], images[:, ::-1], images)
    z = jnp.where(flip[:, None], swapped, z)
    # At most .2, so that the curve rises everywhere up to 2.5, the brightest stored intensity.
    bend = jax.random.uniform(k_curve, (batch, 1, 1, 1, 1), minval=-0.2, maxval=0.2)
    images = images + bend * images * (1.0 - images)
    axes = (1, 2, 3, 4)
    mean = images.sum(axes, keepdims=True) / (images > 0).astype(jnp.float32).sum(axes, keepdims=True)
    return images / mean, z


def standardise(pool: Pool, count: int) -> Targets:
    """Mean and sigma over the first members, the two sides of a pair pooled."""
    pairs = np.asarray(pool.volumes[:count], np.float64).reshape(count, -1, 2)
    mean, sigma = pairs.mean((0, 2)), pairs.std((0, 2))
    return Targets(np.repeat(mean, 2).astype(np.float32), np.repeat(sigma, 2).astype(np.float32))


def train(pool_folder: Path, out: Path, *, seed: int, steps: int, schedule: Schedule) -> FitState:
    """Train on a cohort, resuming from the checkpoints in ``out``.

    Args:
        pool_folder: the cohort, finished or still being written.
        out: folder of checkpoints, of the log ``train.csv`` and of ``model.safetensors``.
        seed: of the initial weights, the order of the members and the augmentation.
        steps: number of updates.
        schedule: which members each step may use.

    Returns:
        The final state; the averaged weights are saved.
    """
    from jaxsal.training.log import logger

    pool = open_pool(pool_folder)
    wait_for(pool, schedule.first)
    targets = standardise(pool, schedule.first)
    mean, sigma = jnp.asarray(targets.mean), jnp.asarray(targets.sigma)
    model, centring = started(pool, targets, out / "start.safetensors", seed)
    graph, params = nnx.split(model)
    predict = lower(lambda params, x: predict_centred(nnx.merge(graph, params), centring, x))

    def loss(params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        images, volumes = batch
        x, z = augment(unpack(images), (volumes - mean[None]) / sigma[None], key)
        return optax.losses.huber_loss(predict(params, x), z, delta=1.0).mean()

    def batch_at(step: int) -> tuple[np.ndarray, np.ndarray]:
        count = schedule.available(step)
        wait_for(pool, count)
        chosen = np.sort(np.random.default_rng((seed, step)).integers(0, count, BATCH))
        return np.asarray(pool.images[chosen]), np.asarray(pool.volumes[chosen])

    optimiser = optimiser_for(steps)
    with logger(out, steps) as report:
        state = fit(
            loss, params, batch_at, optimiser, steps=steps, key=jax.random.key(seed), decay=0.998,
            checkpoints=out / "checkpoints", every=250, report=report,
        )  # fmt: skip
    export(out / "model.safetensors", state, centring, targets, seed=seed, steps=steps, members=schedule.size)
    return state


def optimiser_for(steps: int) -> optax.GradientTransformation:
    """AdamW whose rate rises over 100 updates, stays, and falls to zero over the last 600.

    Until the fall begins a run does not depend on its length, so that an interrupted run can be given another end.
    """
    decay = min(_DECAY, steps // 2)
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, _PEAK_RATE, _WARM_UP),
            optax.constant_schedule(_PEAK_RATE),
            optax.linear_schedule(_PEAK_RATE, 0.0, decay),
        ],
        [_WARM_UP, steps - decay],
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-4))


def started(pool: Pool, targets: Targets, path: Path, seed: int) -> tuple[nnx.Module, Centring]:
    """The network at its warm start, made once and kept in a file."""
    from safetensors.numpy import load_file, save_file

    model = network(seed)
    graph, params = nnx.split(model)
    leaves, tree = jax.tree.flatten(params)
    if not path.exists():
        scale_convolutions(model, unpack(jnp.asarray(pool.images[: 2 * _CHUNK : 2])))
        centring, quality = start(model, _start_batches(pool, targets))
        made = {f"param{i:02d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(nnx.split(model)[1]))}
        constants = {name: np.asarray(value) for name, value in centring._asdict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(made | constants, path, metadata={"r2_of_the_ridge_regression": f"{quality:.4f}"})
    stored = {name: jnp.asarray(value) for name, value in load_file(path).items()}
    params = jax.tree.unflatten(tree, [stored[f"param{i:02d}"] for i in range(len(leaves))])
    return nnx.merge(graph, params), Centring(stored["mean"], stored["scale"])


def _start_batches(pool: Pool, targets: Targets) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The first members and their mirror images."""
    for first in range(0, _STARTED_ON, _CHUNK):
        x = unpack(jnp.asarray(pool.images[first : first + _CHUNK]))
        z = (pool.volumes[first : first + _CHUNK] - targets.mean) / targets.sigma
        yield x, jnp.asarray(z)
        yield x[:, ::-1], jnp.asarray(z.reshape(len(z), -1, 2)[..., ::-1].reshape(z.shape))


def snapshot(pool_folder: Path, out: Path, *, seed: int, schedule: Schedule) -> Path:
    """Save the averaged weights of the newest checkpoint of a run that may still be going on."""
    pool = open_pool(pool_folder)
    targets = standardise(pool, schedule.first)
    model, centring = started(pool, targets, out / "start.safetensors", seed)
    _, params = nnx.split(model)
    like = FitState(jnp.zeros((), jnp.int32), params, optimiser_for(10 * _DECAY).init(params), params)
    state = restore(out / "checkpoints", like)
    step = int(state.step)
    path = out / f"model_{step:06d}.safetensors"
    return export(path, state, centring, targets, seed=seed, steps=step, members=schedule.available(step))


def export(
    path: Path, state: FitState, centring: Centring, targets: Targets, *, seed: int, steps: int, members: int
) -> Path:
    """Save the averaged weights with their record; centring and mm^3 go into the first and last dense layers."""
    graph, params = nnx.split(network(seed))
    model = nnx.merge(graph, jax.tree.map(lambda _, a: a, params, state.average))
    fold(model, centring)
    sigma, mean = jnp.asarray(targets.sigma), jnp.asarray(targets.mean)
    output = model.output  # type: ignore[attr-defined]
    output.kernel.set_value(output.kernel.get_value() * sigma[None])
    output.bias.set_value(output.bias.get_value() * sigma + mean)
    return zoo.save(path, model, record(targets, seed=seed, steps=steps, members=members))


def record(targets: Targets, *, seed: int, steps: int, members: int) -> zoo.ModelRecord:
    """What the network expects, what its outputs mean, and how it came about."""
    (dx, dy, dz), (ox, oy, oz) = (SPACING,) * 3, ORIGIN
    return zoo.ModelRecord(
        name="morphometry-2mm",
        architecture="MorphometryVGG",
        config={**CONFIG, "blocks": [list(block) for block in CONFIG["blocks"]]},
        input=zoo.InputSpec(
            shape=GRID,
            affine=((dx, 0.0, 0.0, ox), (0.0, dy, 0.0, oy), (0.0, 0.0, dz, oz), (0.0, 0.0, 0.0, 1.0)),
            channels=1,
            scaling=zoo.Scaling(divide_by="brain-mean", clip=(0.0, 4.0)),
            space="MNI152",
            skull_stripped=True,
        ),
        outputs=tuple(
            zoo.Output(
                name=name,
                unit="mm^3",
                sigma=float(sigma),
                structure=f"{name.replace('_', ' ')}, volume in the affine MNI152 template space",
            )
            for name, sigma in zip(synthetic.OUTPUTS, targets.sigma, strict=True)
        ),
        layer=MASK_LAYER,
        description=(
            "Volumes of 14 subcortical structures from a brain-only T1 scan that is affinely aligned to MNI152. Trained"
            " only on synthetic brains: the ICBM152 2009c T1 and its CerebrA labels under random deformation, growth,"
            " contrast, bias field, noise and resolution. Volumes are mm^3 in the affine template space, not in the"
            " scan's own. The lateral ventricles do not include the inferior horns."
        ),
        licence="Apache-2.0",
        credits=(
            "ICBM152 2009c: Fonov et al. 2011, https://doi.org/10.1016/j.neuroimage.2010.07.033;"
            " Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,"
            " McGill University",
            "CerebrA: Manera et al. 2020, https://doi.org/10.1038/s41597-020-0557-9",
        ),
        training={
            "seed": seed,
            "steps": steps,
            "batch": BATCH,
            "cohort": members,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "jax": jax.__version__,
        },
    )


if __name__ == "__main__":
    from jaxsal.training.commands import app

    app()
