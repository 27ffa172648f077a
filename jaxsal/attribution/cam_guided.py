"""Guided Grad-CAM: where in the image, and which details there."""

import jax

from jaxsal.attribution.backprop import guided_backprop
from jaxsal.attribution.cam_gradient import grad_cam
from jaxsal.attribution.cam_guiding import guide
from jaxsal.attribution.pulling import Outputs, Target
from jaxsal.chaining import joined
from jaxsal.engine.geometry import Geometry
from jaxsal.splitting import Split


def guided_grad_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    counterfactual: bool = False,
    positive: bool = True,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""Guided Grad-CAM: guided backprop, weighed at every voxel by Grad-CAM.

    Args:
        split: head and tail, see :func:`jaxsal.split`.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        counterfactual: negate the gradients of Grad-CAM.
        positive: take what Grad-CAM finds above 0 alone, as the paper does; without, where Grad-CAM is below 0 the map
            is guided backprop with its sign changed.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space, c]``, or with ``outputs`` ``[o, b, *space, c]``.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017,
        https://doi.org/10.1109/ICCV.2017.74

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: jax.nn.relu(x), lambda f: f[:, :2].mean((1, 2)))
        >>> guided_grad_cam(split, jnp.ones((1, 4, 1, 1)))[0, :, 0, 0].tolist()
        [0.125, 0.125, 0.0, 0.0]
    """
    options = {"outputs": outputs, "batch_size": batch_size}
    cam = grad_cam(split, x, target, counterfactual=counterfactual, positive=positive, geometry=geometry, **options)
    return guide(cam, guided_backprop(joined(split), x, target, **options))
