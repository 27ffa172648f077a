"""How weights are called and laid out in torchvision, for networks of the same topology."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.zoo.resnet import RegressionResNet50
from jaxsal.zoo.store import weights
from jaxsal.zoo.vgg import RegressionVGG16

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torchvision_names(model: RegressionResNet50 | RegressionVGG16) -> dict[str, str]:
    """The names that torchvision gives to a network's weights.

    Args:
        model: a network of the zoo that torchvision has too.

    Returns:
        torchvision's name by ours. Kernels are ``[out, in, *space]`` there and ``[*space, in, out]`` here, see also
        :func:`channels_last`; its ``num_batches_tracked`` has no counterpart.

    Example:
        >>> from flax import nnx
        >>> model = RegressionVGG16(1, shape=(8, 8), blocks=((4,), (8,)), dense=(6,), pooled=2, rngs=nnx.Rngs(0))
        >>> [(ours, theirs) for ours, theirs in torchvision_names(model).items() if ours.endswith("kernel")]
        [('conv1_1.kernel', 'features.0.weight'), ('conv2_1.kernel', 'features.3.weight'),
        ('fc1.kernel', 'classifier.0.weight'), ('fc2.kernel', 'classifier.3.weight')]
    """
    layers = _resnet_layer if isinstance(model, RegressionResNet50) else _vgg_layer
    names = {}
    for ours in weights(model):
        layer, _, rest = ours.partition(".")
        *within, leaf = rest.split(".")
        names[ours] = ".".join((layers(model.names, layer), *within, _LEAVES[leaf]))
    return names


def channels_last(kernel: jax.Array, grid: Sequence[int]) -> jax.Array:
    """The kernel of a dense layer behind a flattening with channels first, for one with channels last.

    Args:
        kernel: ``[c * voxels, k]``, its rows in the order ``c, *grid``.
        grid: of the features that are flattened, in voxels.

    Returns:
        ``[voxels * c, k]``, its rows in the order ``*grid, c``.

    Example:
        >>> channels_last(jnp.asarray([[0.0], [1.0], [10.0], [11.0]]), (2,)).ravel()
        Array([ 0., 10.,  1., 11.], dtype=float32)
    """
    rows, outputs = kernel.shape
    shaped = kernel.reshape(rows // int(np.prod(grid)), *grid, outputs)
    return jnp.moveaxis(shaped, 0, -2).reshape(rows, outputs)


def _resnet_layer(_: Sequence[str], layer: str) -> str:
    return layer.replace("_", ".")


def _vgg_layer(names: Sequence[str], layer: str) -> str:
    flattening = names.index("flatten")
    at = names.index(layer)
    return f"features.{at}" if at < flattening else f"classifier.{at - flattening - 1}"
