"""ResNet-50 with a linear head, for regression."""

from collections.abc import Sequence

import jax
from flax import nnx

from jaxsal.zoo.layers import Call, Composition, MaxPool, check_grid, convolution, global_mean, windows

EXPANSION = 4
RESNET50_STAGES = (3, 4, 6, 3)
KERAS_RESNET50 = {"strided": 1, "bias": True, "epsilon": 1.001e-5}
"""Configuration of :class:`RegressionResNet50` in which weights of Keras' ``ResNet50`` mean the same."""


class Bottleneck(nnx.Module):
    """Convolutions of 1, 3 and 1 voxels beside a skip, each with BatchNorm: ``relu(convolutions(x) + skip(x))``.

    The skip is the identity, or a convolution of 1 voxel where number of channels or grid change. A cut inside the
    block would be crossed by the skip, so the block as a whole is one layer.

    Args:
        rank: number of spatial axes.
        before: channels that it reads.
        inner: channels within; it gives four times as many.
        stride: of the block, in voxels.
        project: whether the skip is a convolution.
        strided: which of the three convolutions has the stride.
        bias: whether convolutions have one.
        epsilon: added to the BatchNorms' variances.
        rngs: stream ``params``.
    """

    def __init__(
        self,
        rank: int,
        before: int,
        inner: int,
        *,
        stride: int = 1,
        project: bool = False,
        strided: int = 2,
        bias: bool = False,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        def conv(number: int, before: int, after: int, kernel: int) -> nnx.Conv:
            step = stride if number in (0, strided) else 1
            return convolution(
                rank, before, after, kernel, stride=step, padding=kernel // 2, use_bias=bias, rngs=rngs
            )  # fmt: skip

        def norm(width: int) -> nnx.BatchNorm:
            return nnx.BatchNorm(width, momentum=0.9, epsilon=epsilon, rngs=rngs)

        after = EXPANSION * inner
        self.conv1, self.bn1 = conv(1, before, inner, 1), norm(inner)
        self.conv2, self.bn2 = conv(2, inner, inner, 3), norm(inner)
        self.conv3, self.bn3 = conv(3, inner, after, 1), norm(after)
        self.downsample = nnx.List([conv(0, before, after, 1), norm(after)] if project else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        """``[b, *space, before] -> [b, *space / stride, 4 * inner]``."""
        h = jax.nn.relu(self.bn1(self.conv1(x)))
        h = jax.nn.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        for layer in self.downsample:
            x = layer(x)
        return jax.nn.relu(h + x)


class RegressionResNet50(Composition):
    """ResNet-50 with a linear layer of regression outputs, in 2-D or 3-D.

    With 3 channels and 1000 outputs it is torchvision's ``resnet50``: 25,557,032 parameters, strides in the 3 x 3
    convolutions, explicit padding; :func:`jaxsal.zoo.torchvision_names` pairs the weights. Zhang et al. used that
    of Keras: ``**KERAS_RESNET50``, with the strides in the first convolution of a block, biases, and 25,636,712
    parameters, those of the BatchNorms' statistics included.

    Layers are ``conv1``, ``bn1``, ``relu``, ``maxpool``, the blocks ``layer1_0`` to ``layer4_2``, ``avgpool`` and
    ``fc``. Inside a block the skip crosses every cut, so that a mask can lie in front of a block or behind it.

    Args:
        outputs: number of them.
        shape: spatial grid of the input; its length is the rank. Any grid goes with the same weights.
        channels: of the input.
        width: channels of the first convolution.
        stages: number of blocks of each stage; from the second stage on the first block halves the grid.
        strided: which convolution of such a block has the stride.
        bias: whether convolutions have one.
        epsilon: added to the BatchNorms' variances.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small.

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016, https://doi.org/10.1109/CVPR.2016.90; as a
        regression of the fetal head circumference: Zhang et al., Explainability for regression CNN in fetal head
        circumference estimation from ultrasound images, iMIMIC 2020, https://doi.org/10.1007/978-3-030-61166-8_8

    Example:
        >>> from flax import nnx
        >>> model = RegressionResNet50(1, shape=(32, 32), width=4, stages=(1,), rngs=nnx.Rngs(0))
        >>> model.eval()  # BatchNorms use their running statistics
        >>> model.names
        ('conv1', 'bn1', 'relu', 'maxpool', 'layer1_0', 'avgpool', 'fc')
        >>> model(jax.numpy.zeros((2, 32, 32, 1))).shape
        (2, 1)
    """

    def __init__(
        self,
        outputs: int = 1,
        *,
        shape: Sequence[int] = (128, 128),
        channels: int = 1,
        width: int = 64,
        stages: Sequence[int] = RESNET50_STAGES,
        strided: int = 2,
        bias: bool = False,
        epsilon: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        rank = len(shape)
        check_grid(windows(windows(shape, 7, 2, 3), 3, 2, 1), shape, 1, len(stages))
        layers: dict[str, Call] = {
            "conv1": convolution(rank, channels, width, 7, stride=2, padding=3, use_bias=bias, rngs=rngs),
            "bn1": nnx.BatchNorm(width, momentum=0.9, epsilon=epsilon, rngs=rngs),
            "relu": jax.nn.relu,
            "maxpool": MaxPool(3, 2, 1),
        }
        before = width
        for stage, count in enumerate(stages):
            inner = width * 2**stage
            for block in range(count):
                layers[f"layer{stage + 1}_{block}"] = Bottleneck(
                    rank, before, inner, stride=2 if stage and not block else 1, project=not block,
                    strided=strided, bias=bias, epsilon=epsilon, rngs=rngs,
                )  # fmt: skip
                before = EXPANSION * inner
        self.compose({**layers, "avgpool": global_mean, "fc": nnx.Linear(before, outputs, rngs=rngs)})
