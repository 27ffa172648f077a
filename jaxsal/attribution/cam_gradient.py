"""Class activation maps by gradients: Grad-CAM and its relatives, which differ in their weights alone."""

from typing import Any

import jax

from jaxsal.attribution.cam_weighted import weighted_cam
from jaxsal.attribution.cam_weights import (
    grad_cam_plus_plus_weights,
    grad_cam_weights,
    hires_cam_weights,
    layer_cam_weights,
    xgrad_cam_weights,
)
from jaxsal.attribution.pulling import Outputs, Target
from jaxsal.engine.geometry import Geometry
from jaxsal.splitting import Split


def grad_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""Grad-CAM: every channel of the features by its mean gradient.

    ``map_v = sum_c A_vc mean_u G_uc``, with the mean over all spatial axes, in 2-D and 3-D.

    Args:
        split: head and tail, see :func:`jaxsal.split`; the map is as coarse as the features between them.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        counterfactual: negate the gradients: the map changes its sign.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, signed, in the unit of the output,
        interpolated linearly between the centres of the features' receptive fields.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV 2017,
        https://doi.org/10.1109/ICCV.2017.74

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: x, lambda f: -f[:, :2].mean((1, 2)))
        >>> grad_cam(split, jnp.ones((1, 4, 1, 1))).tolist()
        [[[-0.25], [-0.25], [-0.25], [-0.25]]]
    """
    return weighted_cam(
        split,
        x,
        target,
        weigh=grad_cam_weights,
        outputs=outputs,
        batch_size=batch_size,
        counterfactual=counterfactual,
        positive=positive,
        geometry=geometry,
    )


def grad_cam_plus_plus(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    sigma: Any = 1.0,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""Grad-CAM++: every channel by its positive gradients, each with a share of its own.

    ``map_v = sum_c A_vc sum_u relu(G_uc) / (2 + G_uc sum_w A_wc)``: the paper's map of the exponential of the score,
    but for the factor ``exp(S)``, which overflows in regressions and cancels in the shares; see
    :func:`~jaxsal.attribution.cam_weights.grad_cam_plus_plus_weights`. Weights are not negative: evidence against is
    what ``counterfactual=True`` shows.

    Args:
        split: head and tail, see :func:`jaxsal.split`; the map is as coarse as the features between them.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        sigma: the unit of the score. The shares compare gradients with the number 2 and so depend on it: of an output
            in mm or years give its standard deviation over a population, a number or one per output of the network.
        counterfactual: negate the gradients: what lowers the score takes the place of what raises it.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, not negative where no feature is,
        interpolated linearly between the centres of the features' receptive fields.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Chattopadhay et al., Grad-CAM++: generalized gradient-based visual explanations for deep convolutional networks,
        WACV 2018, https://doi.org/10.1109/WACV.2018.00097

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: x, lambda f: 100 * f[:, :2].sum((1, 2)))
        >>> grad_cam_plus_plus(split, jnp.ones((1, 4, 1, 1)), sigma=100.0)[0, :, 0].round(3).tolist()
        [0.333..., 0.333..., 0.333..., 0.333...]
    """
    return weighted_cam(
        split,
        x,
        target,
        weigh=grad_cam_plus_plus_weights,
        outputs=outputs,
        batch_size=batch_size,
        sigma=sigma,
        counterfactual=counterfactual,
        positive=positive,
        geometry=geometry,
    )


def hires_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""HiResCAM: the features by their gradients, voxel by voxel.

    ``map_v = sum_c A_vc G_vc``. A voxel of the features that the tail does not read has the value 0, and where the tail
    is linear, the map sums to the output but for the bias.

    Args:
        split: head and tail, see :func:`jaxsal.split`; the map is as coarse as the features between them.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        counterfactual: negate the gradients: the map changes its sign.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, signed, in the unit of the output,
        interpolated linearly between the centres of the features' receptive fields.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks,
        2020, https://doi.org/10.48550/arXiv.2011.08891

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: x, lambda f: f[:, :2].sum((1, 2)) - f[:, 2:].sum((1, 2)))
        >>> hires_cam(split, jnp.ones((1, 4, 1, 1))).tolist()
        [[[1.0], [1.0], [-1.0], [-1.0]]]
    """
    return weighted_cam(
        split,
        x,
        target,
        weigh=hires_cam_weights,
        outputs=outputs,
        batch_size=batch_size,
        counterfactual=counterfactual,
        positive=positive,
        geometry=geometry,
    )


def layer_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""LayerCAM: the features by their positive gradients, voxel by voxel.

    ``map_v = sum_c A_vc relu(G_vc)``, meant for early layers too. Evidence against is what ``counterfactual=True``
    shows; this map less that one is :func:`hires_cam`.

    Args:
        split: head and tail, see :func:`jaxsal.split`; the map is as coarse as the features between them.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        counterfactual: negate the gradients: what lowers the score takes the place of what raises it.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, not negative where no feature is,
        interpolated linearly between the centres of the features' receptive fields.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Jiang et al., LayerCAM: exploring hierarchical class activation maps for localization, IEEE TIP 2021,
        https://doi.org/10.1109/TIP.2021.3089943

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: x, lambda f: f[:, :1].sum((1, 2)) - f[:, 2:].sum((1, 2)))
        >>> layer_cam(split, jnp.ones((1, 4, 1, 1))).tolist()
        [[[1.0], [0.0], [0.0], [0.0]]]
    """
    return weighted_cam(
        split,
        x,
        target,
        weigh=layer_cam_weights,
        outputs=outputs,
        batch_size=batch_size,
        counterfactual=counterfactual,
        positive=positive,
        geometry=geometry,
    )


def xgrad_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""XGrad-CAM: every channel by the mean of its gradients, weighted by the features.

    ``map_v = sum_c A_vc sum_u(A_uc G_uc) / sum_u A_uc``. The map sums to ``sum A G``: for a tail of ReLUs without
    biases that is the output. A channel whose features sum to 0 has weight 0; where they nearly do, of both signs, its
    weight is large: split after a ReLU.

    Args:
        split: head and tail, see :func:`jaxsal.split`; the map is as coarse as the features between them.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        counterfactual: negate the gradients: the map changes its sign.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, signed, in the unit of the output,
        interpolated linearly between the centres of the features' receptive fields.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Fu et al., Axiom-based Grad-CAM: towards accurate visualization and explanation of CNNs, BMVC 2020,
        https://doi.org/10.48550/arXiv.2008.02312

    Example:
        >>> import jax.numpy as jnp
        >>> split = Split(lambda x: x, lambda f: 4 * f[:, :1].sum((1, 2)))
        >>> xgrad_cam(split, jnp.ones((1, 4, 1, 1))).tolist()
        [[[1.0], [1.0], [1.0], [1.0]]]
    """
    return weighted_cam(
        split,
        x,
        target,
        weigh=xgrad_cam_weights,
        outputs=outputs,
        batch_size=batch_size,
        counterfactual=counterfactual,
        positive=positive,
        geometry=geometry,
    )
