"""Eigen-CAM: what a layer's features have most in common, whatever the network makes of them."""

import functools

import jax
import jax.numpy as jnp

from jaxsal.attribution.cam_prepared import located, prepare_head, upsampled
from jaxsal.attribution.pulling import check_batch_size, mapped
from jaxsal.engine.geometry import Geometry
from jaxsal.engine.lower import lower
from jaxsal.model import Model
from jaxsal.splitting import Split


def eigen_cam(
    split: Split, x: jax.Array, *, batch_size: int | None = None, geometry: Geometry | None = None
) -> jax.Array:
    r"""Eigen-CAM: the features projected on their first principal direction, the same map for every output.

    ``map = A v``, where ``A[voxels, channels]`` are an example's features, not centred, and ``v`` their first right
    singular vector. A singular vector has no sign of its own: here the map goes along with the sum of the features over
    channels, that is ``sum_c v_c >= 0``; for features that are not negative the map is not negative either. The
    tail, and with it any output, plays no part, hence there is no target: it tells what the head shows the tail and not
    what a number depends on.

    Args:
        split: head and tail, see :func:`jaxsal.split`; only the head is used.
        x: images ``[b, *space, c]``, floating point.
        batch_size: images that are decomposed at once; None takes one on a CPU, elsewhere all.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, in the unit of the features, interpolated linearly between the centres of their receptive
        fields. Where the two largest singular values are equal, the map is one of many.

    Raises:
        TypeError: if ``x`` is not a floating-point array.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Muhammad and Yeasin, Eigen-CAM: class activation map using principal components, IJCNN 2020,
        https://doi.org/10.1109/IJCNN48605.2020.9206626

    Example:
        >>> split = Split(lambda x: x @ jnp.array([[3.0, -4.0]]), lambda f: f.sum((1, 2)))
        >>> eigen_cam(split, jnp.arange(4.0).reshape(1, 4, 1, 1))[0, :, 0].round().tolist()
        [0.0, -5.0, -10.0, -15.0]
    """
    check_batch_size(batch_size)
    head = prepare_head(split, x)
    return upsampled(_projected(head, x, batch_size), located(geometry, head, x), x.shape[1:-1])


@functools.partial(jax.jit, static_argnums=2)
def _projected(head: Model, x: jax.Array, batch_size: int | None) -> jax.Array:
    return mapped(_first_component, lower(head)(x), batch_size)


def _first_component(features: jax.Array) -> jax.Array:
    matrix = features.reshape(-1, features.shape[-1])
    voxels, channels = matrix.shape
    # of the two products the smaller one: a layer has up to 200 000 voxels, or 2048 channels
    if channels <= voxels:
        direction = _largest(_times(matrix.T, matrix))
    else:
        direction = _times(matrix.T, _largest(_times(matrix, matrix.T)))
        length = jnp.linalg.norm(direction)
        direction = direction / jnp.where(length == 0, 1, length)
    direction = jnp.where(direction.sum() < 0, -direction, direction)
    return _times(matrix, direction).reshape(features.shape[:-1])


def _largest(symmetric: jax.Array) -> jax.Array:
    """The eigenvector of the largest eigenvalue."""
    return jnp.linalg.eigh(symmetric).eigenvectors[:, -1]


# a product of short numbers would turn the direction
_times = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
