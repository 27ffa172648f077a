"""What each class activation map weighs the features by: pure functions of one example, any number of spatial axes."""

import jax
import jax.numpy as jnp


def grad_cam_weights(features: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""Mean gradient of every channel, over all of its voxels: ``w_c = mean_v G_vc``.

    Args:
        features: ``A[*t, c]``.
        gradient: of the score by the features, ``G[*t, c]``.

    Returns:
        ``[c]``.

    Example:
        >>> grad_cam_weights(jnp.ones((2, 1)), jnp.array([[1.0], [2.0]])).tolist()
        [1.5]
    """
    return gradient.mean(_space(features))


def grad_cam_plus_plus_weights(features: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""Positive gradients, each with a share of its own: ``w_c = sum_v relu(G_vc) / (2 + G_vc sum_u A_uc)``.

    The paper's share is ``Y'' / (2 Y'' + Y''' sum_u A_uc)`` of a function ``Y`` of the score that can be differentiated
    often, and takes ``Y = exp(S)``. Where the network is piecewise linear, ``Y' = exp(S) G``, ``Y'' = exp(S) G^2`` and
    ``Y''' = exp(S) G^3``: the exponential cancels in the share, which becomes ``1 / (2 + G sum A)``, and is one
    positive factor of the whole map besides, left out here. So nothing overflows, however large the score is, and no
    gradient is so small that its square is 0.

    Args:
        features: ``A[*t, c]``; the shares lie between 0 and 1/2 where no channel has a negative sum, as after a ReLU.
        gradient: of the score by the features, ``G[*t, c]``, of a score without unit: ``2`` and ``G sum A`` are added.

    Returns:
        ``[c]``.

    Example:
        >>> grad_cam_plus_plus_weights(jnp.ones((2, 1)), jnp.array([[1.0], [-2.0]])).tolist()
        [0.25]
    """
    share = 2 + gradient * features.sum(_space(features), keepdims=True)
    return (jax.nn.relu(gradient) * _over(jnp.ones_like(share), share)).sum(_space(features))


def hires_cam_weights(features: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""The gradient itself, voxel by voxel: ``w_vc = G_vc``.

    Args:
        features: ``A[*t, c]``.
        gradient: of the score by the features, ``G[*t, c]``.

    Returns:
        ``[*t, c]``.
    """
    return gradient


def layer_cam_weights(features: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""The gradient where it is positive, voxel by voxel: ``w_vc = relu(G_vc)``.

    Args:
        features: ``A[*t, c]``.
        gradient: of the score by the features, ``G[*t, c]``.

    Returns:
        ``[*t, c]``.
    """
    return jax.nn.relu(gradient)


def xgrad_cam_weights(features: jax.Array, gradient: jax.Array) -> jax.Array:
    r"""Mean gradient of every channel, weighted by its features: ``w_c = sum_v A_vc G_vc / sum_v A_vc``.

    Args:
        features: ``A[*t, c]``; a channel whose features sum to 0, such as one that is dead, has weight 0.
        gradient: of the score by the features, ``G[*t, c]``.

    Returns:
        ``[c]``.

    Example:
        >>> xgrad_cam_weights(jnp.array([[1.0, 0.0], [3.0, 0.0]]), jnp.array([[2.0, 5.0], [6.0, 5.0]])).tolist()
        [5.0, 0.0]
    """
    space = _space(features)
    return _over((features * gradient).sum(space), features.sum(space))


def _space(features: jax.Array) -> tuple[int, ...]:
    return tuple(range(features.ndim - 1))


def _over(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, 0 where the denominator is."""
    nothing = denominator == 0
    return jnp.where(nothing, 0, numerator / jnp.where(nothing, 1, denominator))
