"""The shipped network: a small MorphometryVGG trained on the synthetic cohort alone.

Run as ``python -m jaxsal.training.morphometry cohort|train|evaluate``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal import zoo
from jaxsal.data import synthetic
from jaxsal.data.synthetic.anatomy import GRID, ORIGIN, SPACING
from jaxsal.training.pool import Pool

CONFIG: dict[str, Any] = {
    "blocks": (
        # Strides, not pools: a maximum over cells forgets how much of each a structure fills.
        zoo.ConvBlock(24, kernel=3, stride=2, pool=1),
        zoo.ConvBlock(48, kernel=3, stride=2, pool=1),
        zoo.ConvBlock(32, kernel=3, stride=1, pool=1),
        # No constants from here on: what no feature supports is predicted as 0 mm^3, so a mask has all to explain.
        zoo.ConvBlock(48, kernel=2, stride=2, bias=False, pool=1),
        zoo.ConvBlock(64, kernel=3, stride=2, bias=False, pool=1),
    ),
    "dense": (64, 32),
    "dropout": 0.0,
}
MASK_LAYER = "relu3"


class Targets(NamedTuple):
    """Mean and standard deviation of each volume over the cohort, mm^3, float32[14]."""

    mean: np.ndarray
    sigma: np.ndarray


def network(seed: int) -> nnx.Module:
    """The untrained network."""
    return zoo.MorphometryVGG(len(synthetic.OUTPUTS), shape=GRID, **CONFIG, rngs=nnx.Rngs(seed))


def standardise(pool: Pool, count: int) -> Targets:
    """Mean and sigma over the first members, the two sides of a pair pooled."""
    pairs = np.asarray(pool.volumes[:count], np.float64).reshape(count, -1, 2)
    mean, sigma = pairs.mean((0, 2)), pairs.std((0, 2))
    return Targets(np.repeat(mean, 2).astype(np.float32), np.repeat(sigma, 2).astype(np.float32))


def export(path: Path, model: Any, targets: Targets, *, procedure: dict[str, Any]) -> Path:
    """Save a network that predicts volumes over sigma as one that predicts mm^3, with its record."""
    sigma = jnp.asarray(targets.sigma)
    model.output.kernel.set_value(model.output.kernel.get_value() * sigma[None])
    return zoo.save(path, model, record(targets, procedure=procedure))


def record(targets: Targets, *, procedure: dict[str, Any]) -> zoo.ModelRecord:
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
        # features of nothing are predicted as nothing, so a mask of norm 1 cannot keep a large structure's whole volume
        options={"smocam": {"lam": 0.1}},
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
            **procedure,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "jax": jax.__version__,
            "jaxsal": importlib.metadata.version("jaxsal"),
        },
    )


if __name__ == "__main__":
    from jaxsal.training.commands import app

    app()
