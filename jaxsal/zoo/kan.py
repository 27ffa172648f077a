"""A 3-D CNN for brain scans, and the convolutional autoencoder that it can learn its first layers from."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from jaxsal.zoo.layers import Call, Composition, MaxPool, check_grid, convolution, flatten, windows

KAN_WIDTHS = (32, 64, 128)


class KanCNN3D(Composition):
    """Classification of a brain scan, e.g. by diagnosis or sex (Kan et al. 2020).

    Three blocks of ``conv 3^3 -> BatchNorm -> ReLU -> max-pool 2`` without padding, then ``flatten -> dropout ->
    dense``. From 58 x 70 x 58 voxels the features have 5 x 7 x 5. The network gives logits; the authors' gives their
    log-softmax.

    Layers are ``conv1``, ``bn1``, ``relu1``, ``pool1``, ..., ``pool3``, ``flatten``, ``dropout``, ``output``.

    Args:
        outputs: number of classes.
        shape: spatial grid of the input, in voxels; its length is the rank.
        channels: of the input.
        widths: channels of each block.
        dropout: rate in front of the dense layer.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        Kan et al., Interpretation of 3D CNNs for brain MRI data classification, 2020,
        https://doi.org/10.48550/arXiv.2006.15969

    Example:
        >>> from flax import nnx
        >>> model = KanCNN3D(2, shape=(12, 10, 12), widths=(2, 4), rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout, BatchNorms use their running statistics
        >>> model(jax.numpy.zeros((1, 12, 10, 12, 1))).shape
        (1, 2)
    """

    def __init__(
        self,
        outputs: int = 2,
        *,
        shape: Sequence[int] = (58, 70, 58),
        channels: int = 1,
        widths: Sequence[int] = KAN_WIDTHS,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
    ):
        grid = _grids(shape, widths)[-1]
        features = widths[-1] * int(np.prod(grid))
        self.compose(
            {
                **_encoder(len(shape), channels, widths, rngs),
                "flatten": flatten,
                "dropout": nnx.Dropout(dropout),
                "output": nnx.Linear(features, outputs, rngs=rngs),
            }
        )


class KanAutoencoder(Composition):
    """A scan from its features in :class:`KanCNN3D`, to learn the convolutions from scans without a diagnosis.

    The encoder has the classifier's blocks, under their names. The decoder mirrors them, block by block:
    nearest-neighbour upsampling to the grid before the pool, ``conv 3^3`` with a frame of two empty voxels, which gives
    back what the encoder's convolution took, BatchNorm and ReLU; the last block ends with its convolution. The paper
    tells that there is such an autoencoder; its decoder is *assumed*. :func:`copy_encoder` hands what was learned to a
    classifier.

    Layers are those of the encoder, then ``up3``, ``deconv3``, ``debn3``, ``derelu3``, ..., ``up1``, ``deconv1``.

    Args:
        outputs: channels of the reconstruction, those of the input.
        shape: spatial grid of the input, in voxels; its length is the rank.
        channels: of the input.
        widths: channels of each block of the encoder.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        See :class:`KanCNN3D`.

    Example:
        >>> from flax import nnx
        >>> model = KanAutoencoder(1, shape=(13, 11), widths=(2, 4), rngs=nnx.Rngs(0))
        >>> model.eval()  # BatchNorms use their running statistics
        >>> model(jax.numpy.zeros((1, 13, 11, 1))).shape
        (1, 13, 11, 1)
    """

    def __init__(
        self,
        outputs: int = 1,
        *,
        shape: Sequence[int] = (58, 70, 58),
        channels: int = 1,
        widths: Sequence[int] = KAN_WIDTHS,
        rngs: nnx.Rngs,
    ):
        rank, grids = len(shape), _grids(shape, widths)
        layers = _encoder(rank, channels, widths, rngs)
        for index in range(len(widths), 0, -1):
            after = widths[index - 2] if index > 1 else outputs
            before_pool = windows(grids[index - 1], 3, 1)
            layers[f"up{index}"] = Nearest(before_pool)
            layers[f"deconv{index}"] = convolution(rank, widths[index - 1], after, 3, padding=2, rngs=rngs)
            if index > 1:
                layers[f"debn{index}"] = nnx.BatchNorm(after, momentum=0.9, epsilon=1e-5, rngs=rngs)
                layers[f"derelu{index}"] = jax.nn.relu
        self.compose(layers)


@dataclass(frozen=True)
class Nearest:
    """Nearest-neighbour interpolation to a grid.

    Attributes:
        shape: of the grid, in voxels.

    Example:
        >>> Nearest((3,))(jax.numpy.arange(2.0).reshape(1, 2, 1)).ravel()
        Array([0., 1., 1.], dtype=float32)
    """

    shape: tuple[int, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Interpolate ``x[b, *space, c]``."""
        return jax.image.resize(x, (x.shape[0], *self.shape, x.shape[-1]), "nearest")


def copy_encoder(autoencoder: KanAutoencoder, classifier: KanCNN3D) -> KanCNN3D:
    """A classifier whose convolutions and BatchNorms are an autoencoder's.

    Args:
        autoencoder: trained on scans of the classifier's grid or another.
        classifier: with the same widths and channels; left as it is.

    Returns:
        A new classifier; its dense layer is the given one's.

    Raises:
        ValueError: if a weight has another shape, or there is no such weight; all of them are named.

    Example:
        >>> from flax import nnx
        >>> autoencoder = KanAutoencoder(shape=(10, 10), widths=(2,), rngs=nnx.Rngs(0))
        >>> classifier = KanCNN3D(shape=(12, 12), widths=(2,), rngs=nnx.Rngs(1))
        >>> started = copy_encoder(autoencoder, classifier)
        >>> bool((started.conv1.kernel[...] == autoencoder.conv1.kernel[...]).all())
        True
    """
    given = dict(nnx.to_flat_state(nnx.state(autoencoder, nnx.Any(nnx.Param, nnx.BatchStat))))
    copy = nnx.clone(classifier)
    state = nnx.state(copy, nnx.Any(nnx.Param, nnx.BatchStat))
    wanted = {path: leaf for path, leaf in nnx.to_flat_state(state) if path[0] != "output"}
    problems = [
        f"{'.'.join(map(str, path))} is {leaf.get_value().shape}, "
        + (f"the autoencoder's {given[path].get_value().shape}" if path in given else "the autoencoder has none")
        for path, leaf in wanted.items()
        if path not in given or given[path].get_value().shape != leaf.get_value().shape
    ]
    if problems:
        raise ValueError(f"The encoder does not fit: {'; '.join(problems)}. Give both the same widths and channels.")
    for path, leaf in wanted.items():
        leaf.set_value(given[path].get_value())
    nnx.update(copy, state)
    return copy


def _encoder(rank: int, channels: int, widths: Sequence[int], rngs: nnx.Rngs) -> dict[str, Call]:
    layers: dict[str, Call] = {}
    before = channels
    for index, width in enumerate(widths, start=1):
        layers[f"conv{index}"] = convolution(rank, before, width, 3, rngs=rngs)
        layers[f"bn{index}"] = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        layers[f"relu{index}"] = jax.nn.relu
        layers[f"pool{index}"] = MaxPool(2, 2)
        before = width
    return layers


def _grids(shape: Sequence[int], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """The grid of the input and that behind each block."""
    grids = [tuple(shape)]
    for index in range(1, len(widths) + 1):
        grids.append(windows(windows(grids[-1], 3, 1), 2, 2))
        check_grid(grids[-1], shape, index, len(widths))
    return grids
