"""VGG-16 with a linear head, for regression."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from jaxsal.zoo.layers import AdaptiveMeanPool, Call, Composition, MaxPool, check_grid, convolution, flatten, windows

VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class RegressionVGG16(Composition):
    """VGG-16 with a linear layer of regression outputs, in 2-D or 3-D.

    With 3 channels and 1000 outputs it is torchvision's ``vgg16`` and Keras' ``VGG16`` at 224 x 224: 138,357,544
    parameters; :func:`jaxsal.zoo.torchvision_names` pairs the weights. At other sizes torchvision averages the
    features to 7 x 7 (``pooled=7``), so that the dense layers fit any grid; Keras flattens them as they are
    (``pooled=None``).

    Layers are ``conv1_1``, ``relu1_1``, ..., ``pool5``, ``avgpool`` (if any), ``flatten``, ``fc1``, ``relu_fc1``,
    ``dropout1``, ``fc2``, ``relu_fc2``, ``dropout2``, ``fc3``. Features are flattened with the channels last, so the
    rows of torchvision's first dense layer come in another order, see :func:`jaxsal.zoo.channels_last`.

    Args:
        outputs: number of them.
        shape: spatial grid of the input; its length is the rank.
        channels: of the input.
        blocks: widths of the convolutions of each block; a max-pool halves the grid behind it.
        dense: widths of the hidden dense layers.
        pooled: voxels along each axis that the features are averaged to, None for as they are.
        dropout: rate behind each hidden dense layer.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015,
        https://doi.org/10.48550/arXiv.1409.1556; as a regression of the fetal head circumference: Zhang et al.,
        Explainability for regression CNN in fetal head circumference estimation from ultrasound images, iMIMIC 2020,
        https://doi.org/10.1007/978-3-030-61166-8_8

    Example:
        >>> from flax import nnx
        >>> model = RegressionVGG16(1, shape=(16, 16), blocks=((4,), (8, 8)), dense=(6,), pooled=2, rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout
        >>> model(jax.numpy.zeros((2, 16, 16, 1))).shape
        (2, 1)
    """

    def __init__(
        self,
        outputs: int = 1,
        *,
        shape: Sequence[int] = (128, 128),
        channels: int = 1,
        blocks: Sequence[Sequence[int]] = VGG16_BLOCKS,
        dense: Sequence[int] = (4096, 4096),
        pooled: int | None = 7,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
    ):
        grid, before = tuple(shape), channels
        layers: dict[str, Call] = {}
        for block, widths in enumerate(blocks, start=1):
            for index, width in enumerate(widths, start=1):
                layers[f"conv{block}_{index}"] = convolution(len(shape), before, width, 3, padding=1, rngs=rngs)
                layers[f"relu{block}_{index}"] = jax.nn.relu
                before = width
            layers[f"pool{block}"] = MaxPool(2, 2)
            grid = windows(grid, 2, 2)
            check_grid(grid, shape, block, len(blocks))
        if pooled is not None:
            layers["avgpool"] = AdaptiveMeanPool(pooled)
            grid = (pooled,) * len(shape)
        layers["flatten"] = flatten
        before *= int(np.prod(grid))
        for index, width in enumerate(dense, start=1):
            layers[f"fc{index}"] = nnx.Linear(before, width, rngs=rngs)
            layers[f"relu_fc{index}"] = jax.nn.relu
            layers[f"dropout{index}"] = nnx.Dropout(dropout)
            before = width
        self.compose({**layers, f"fc{len(dense) + 1}": nnx.Linear(before, outputs, rngs=rngs)})
