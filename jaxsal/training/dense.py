"""The first stage: convolutions learn how much of each place a structure fills, not only how large it is.

One number per structure teaches convolutions slowly. The cohort knows the share of every structure in every cell of
the grid, so linear read-outs of three feature maps are trained to predict how the shares differ from their mean over
the cohort. The coarsest read-out has weights of its own in every cell; summed over the cells it is the prediction of
the volumes, which is what the dense layers start from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsal.data.synthetic import OUTPUTS
from jaxsal.data.synthetic.anatomy import SPACING
from jaxsal.engine.lower import lower
from jaxsal.training.pool import CELL

FINE, COARSE, POOLED = "relu3", "relu4", "relu5"
"""The layers with a read-out: cells of 8, 16 and 32 mm."""

PAIRS = len(OUTPUTS) // 2
CELL_VOLUME = (CELL * SPACING) ** 3  # mm^3 of the finest cells
POOLED_VOLUME = 4**3 * CELL_VOLUME
_FINE_WEIGHT = 300.0  # a cross-entropy over mostly empty cells is small
_LEAST = 1e-4  # share below which a cell counts as never reached


class Average(NamedTuple):
    """The cohort's mean shares, and how far members are from them.

    Attributes:
        fine: logit of the mean share of a structure's two sides together, float32[i, j, k, 7].
        coarse: mean share of 16 mm cells, float32[i, j, k, 14].
        coarse_sigma: root mean square difference from it, float32[14].
        pooled: mean share of 32 mm cells, float32[i, j, k, 14].
        pooled_sigma: root mean square difference from it, float32[14].
    """

    fine: jax.Array
    coarse: jax.Array
    coarse_sigma: jax.Array
    pooled: jax.Array
    pooled_sigma: jax.Array


class DenseParams(NamedTuple):
    """What the stage trains.

    Attributes:
        network: the network's state; its dense layers are not touched.
        fine: read-out of 8 mm cells, added to the average's logits, float32[channels, 7].
        coarse: read-out of 16 mm cells, standardised difference from the mean share, float32[channels, 14].
        pooled: read-out of 32 mm cells, one per cell and without a constant, share over `pooled_sigma`,
            float32[i, j, k, channels, 14].
    """

    network: Any
    fine: jax.Array
    coarse: jax.Array
    pooled: jax.Array


def initial(network: nnx.Module, average: Average, x: jax.Array) -> DenseParams:
    """The network as it is, and read-outs that predict the mean share everywhere.

    Args:
        network: its convolutions.
        average: the cohort's.
        x: some images, float32[b, *space, 1]; the pooled read-out gives the mean share on their mean features.
    """
    found = lower(lambda x: maps(network, x))(x)
    mean = found[POOLED].mean(0)
    direction = mean / jnp.maximum((mean**2).sum(-1, keepdims=True), 1e-6)
    n = len(OUTPUTS)
    return DenseParams(
        nnx.split(network)[1],
        jnp.zeros((found[FINE].shape[-1], PAIRS)),
        jnp.zeros((found[COARSE].shape[-1], n)),
        direction[..., None] * (average.pooled / average.pooled_sigma.reshape(1, 1, 1, -1))[..., None, :],
    )


def coarsen(shares: jax.Array, factor: int) -> jax.Array:
    """Mean shares [b, i, j, k, n] of cells `factor` times as large; what lies beyond the last cell is empty."""
    shares = jnp.pad(shares, [(0, 0), *((0, -n % factor) for n in shares.shape[1:-1]), (0, 0)])
    i, j, k = (n // factor for n in shares.shape[1:-1])
    return shares.reshape(len(shares), i, factor, j, factor, k, factor, -1).mean((2, 4, 6))


def either(shares: jax.Array) -> jax.Array:
    """Share of a structure's left and right side together, [..., 14] -> [..., 7]."""
    return jnp.clip(shares.reshape(*shares.shape[:-1], PAIRS, 2).sum(-1), 0.0, 1.0)


def average(shares: np.ndarray) -> Average:
    """Measure the mean and the differences of stored shares (times 255), uint8[m, i, j, k, 14]."""
    fine = jnp.asarray(shares, jnp.float32) / 255.0
    maps = []
    for factor in (2, 4):
        coarse = coarsen(fine, factor)
        mean = coarse.mean(0)
        maps += [mean, jnp.sqrt(((coarse - mean[None]) ** 2).mean((0, 1, 2, 3)))]
    prior = jnp.clip(either(fine).mean(0), _LEAST, 1.0 - _LEAST)
    return Average(jnp.log(prior) - jnp.log1p(-prior), *maps)


def maps(model: Any, x: jax.Array) -> dict[str, jax.Array]:
    """The three feature maps that have a read-out."""
    found = {}
    for name, layer in model.named_layers():
        x = layer(x)
        if name in (FINE, COARSE, POOLED):
            found[name] = x
        if name == POOLED:
            return found
    raise ValueError(f"the network has no layer {POOLED!r}")


def place_loss(network: nnx.Module, mean: Average, sigma: jax.Array) -> Callable[[DenseParams, Any], jax.Array]:
    r"""Cross-entropy of fine shares, squared errors of coarser ones, Huber loss of their sums, added up.

    .. math:: 300\,H(o_8, \hat o_8) + \overline{((o_{16} - \hat o_{16}) / s_{16})^2}
        + \overline{((o_{32} - \hat o_{32}) / s_{32})^2} + \overline{h((V - \hat V) / \sigma)}

    Args:
        network: gives the architecture.
        mean: the cohort's average.
        sigma: standard deviation of each volume, mm^3, float32[14].

    Returns:
        (params, (images float32[b, *space, 1], shares float32[b, *cells, 14])) -> float32[].
    """
    read = _reader(network)

    def loss(params: DenseParams, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, shares = batch
        found, shares_found = read(params, x)
        fine = optax.sigmoid_binary_cross_entropy(found[FINE] @ params.fine + mean.fine[None], either(shares)).mean()
        true_coarse = (coarsen(shares, 2) - mean.coarse[None]) / _per_structure(mean.coarse_sigma)
        coarse = ((found[COARSE] @ params.coarse - true_coarse) ** 2).mean()
        error = shares_found - coarsen(shares, 4) / _per_structure(mean.pooled_sigma)
        pooled = (error**2).mean()
        volume = (error * _per_structure(mean.pooled_sigma)).sum((1, 2, 3))
        size = optax.losses.huber_loss(volume * (POOLED_VOLUME / sigma[None])).mean()
        return _FINE_WEIGHT * fine + coarse + pooled + size

    return loss


def size_loss(network: nnx.Module, mean: Average, sigma: jax.Array) -> Callable[[DenseParams, Any], jax.Array]:
    """Huber loss of the summed read-out alone; arguments as for :func:`place_loss`, volumes / sigma in the batch.

    Returns:
        (params, (images float32[b, *space, 1], z float32[b, 14])) -> float32[].
    """
    read = _reader(network)

    def loss(params: DenseParams, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, z = batch
        shares = read(params, x)[1] * _per_structure(mean.pooled_sigma)
        return optax.losses.huber_loss(shares.sum((1, 2, 3)) * (POOLED_VOLUME / sigma[None]), z).mean()

    return loss


def _reader(network: nnx.Module) -> Callable[[DenseParams, jax.Array], tuple[dict[str, jax.Array], jax.Array]]:
    """Feature maps, and pooled shares over their standard deviation, of images."""
    graph = nnx.split(network)[0]
    fast = lower(lambda state, x: maps(nnx.merge(graph, state), x))

    def read(params: DenseParams, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        found = fast(params.network, x)
        return found, jnp.einsum("bijkc,ijkcn->bijkn", found[POOLED], params.pooled)

    return read


def _per_structure(values: jax.Array) -> jax.Array:
    return values.reshape(1, 1, 1, 1, -1)
