"""A coarse map and a fine one together."""

import jax


def guide(cam: jax.Array, map: jax.Array) -> jax.Array:
    """The product of a class activation map and a map of the image's voxels, as in guided Grad-CAM.

    The paper's is Grad-CAM with ``positive=True`` times guided backpropagation of the same score. Of two signed maps
    the product is positive where they agree, also where both are negative.

    Args:
        cam: on the image's grid, ``[..., b, *space]``.
        map: ``[..., b, *space, c]``.

    Returns:
        ``[..., b, *space, c]``.

    Raises:
        ValueError: if the shapes differ in more than the channels.

    Reference:
        Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017,
        https://doi.org/10.1109/ICCV.2017.74

    Example:
        >>> import jax.numpy as jnp
        >>> guide(jnp.array([[2.0, 0.0]]), jnp.array([[[1.0, -3.0], [4.0, 5.0]]])).tolist()
        [[[2.0, -6.0], [0.0, 0.0]]]
    """
    if cam.shape != map.shape[:-1]:
        raise ValueError(
            f"A class activation map {cam.shape} cannot guide a map {map.shape}: [..., b, *space] and "
            "[..., b, *space, c] of the same images and outputs are needed."
        )
    return cam[..., None] * map
