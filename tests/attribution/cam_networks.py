"""Small split networks for class activation maps, and what numpy makes of their features."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from scipy import ndimage

from jaxsal import Split

SPACE = {2: (7, 9), 3: (5, 6, 7)}


def network(rank: int, *, seed: int = 0, outputs: int = 3, channels: int = 4) -> Split:
    """Strided convolution and ReLU; convolution, ReLU, mean and dense, whose outputs are of both signs."""
    random = np.random.default_rng(seed)
    window = (3,) * rank
    first = jnp.asarray(random.normal(size=(*window, 2, channels)) / 3)
    second = jnp.asarray(random.normal(size=(*window, channels, 5)) / 3)
    dense, bias = jnp.asarray(random.normal(size=(5, outputs))), jnp.asarray(random.normal(size=(1, outputs)))
    return Split(Partial(head, first), Partial(tail, second, dense, bias))


def images(rank: int, count: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(count, *SPACE[rank], 2)))


def head(kernel, x):
    return jax.nn.relu(_convolution(x, kernel, 2))


def tail(kernel, dense, bias, features):
    h = jax.nn.relu(_convolution(features, kernel, 1))
    return h.mean(tuple(range(1, h.ndim - 1))) @ dense + bias


def _convolution(x, kernel, stride):
    letters = "XYZ"[: x.ndim - 2]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(x, kernel, (stride,) * len(letters), "SAME", dimension_numbers=numbers)


def features_and_gradients(split: Split, x, output: int):
    """Per example, from its Jacobian: numpy ``[b, *t, c]`` twice."""
    features = jax.jit(split.head)(x)
    jacobian = jax.jit(jax.jacrev(lambda f: split.tail(f[None])[0]))
    return np.asarray(features), np.stack([jacobian(example)[output] for example in features])


def resized(map: np.ndarray, start, step, space) -> np.ndarray:
    """Voxel by voxel, linear between centres, the edge beyond."""
    grid = np.stack(np.meshgrid(*map_positions(start, step, space), indexing="ij"))
    return ndimage.map_coordinates(map, grid, order=1, mode="nearest")


def map_positions(start, step, space):
    return [(np.arange(size) - a) / s for size, a, s in zip(space, start, step, strict=True)]


def voxels(array: np.ndarray):
    """Indices of all of its voxels, the last axis being channels."""
    return itertools.product(*map(range, array.shape[:-1]))
