"""Networks of real size of the zoo, and the same in PyTorch."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal import zoo
from jaxsal.attribution import blurred
from jaxsal.converters.architectures import _filled, _inside
from jaxsal.converters.matching import matched
from jaxsal.converters.pairing import ad_spectrum_names, torch_pairs
from jaxsal.converters.states import read_weights, without_prefixes
from jaxsal.model import Model
from jaxsal.zoo.resnet import RESNET50_STAGES, Bottleneck
from tests.peers import AD_BLOCKS, ad_weights, to_torch

Network = TypeVar("Network")
EPSILON = 1e-5


def whole_ad_network(shared: Path, fold: int) -> zoo.ADSpectrumNet:
    """One fold of the AD-spectrum network, ``[b, 182, 218, 182, 1] -> [b, 1]``, with its published weights."""
    record, given = zoo.ad_spectrum_record(), {}
    folder = shared / "weights" / "ncomms2022" / f"CNN_baseline_new_cross{fold}"
    for part in ("backbone", "COG"):
        (path,) = folder.glob(f"{part}_*.pth")
        given |= {f"{part}.{name}": value for name, value in without_prefixes(read_weights(path)).items()}
    shapes, grids = _inside(record)
    # as convert() does, less the comparison on whole brains that it ends with
    return _filled(record, matched(torch_pairs(shapes, ad_spectrum_names(list(shapes)), grids), shapes, given, folder))


def torch_ad_network(shared: Path, fold: int, first: int = 0) -> Any:
    """The same of PyTorch's own layers, ``[b, 1, 182, 218, 182] -> [b, 1]``; from the block ``first`` on."""
    from torch import nn

    convs, norms, dense = ad_weights(shared, fold)
    layers: list[Any] = []
    for kernel, norm, block in list(zip(convs, norms, AD_BLOCKS, strict=True))[first:]:
        conv = nn.Conv3d(kernel.shape[1], kernel.shape[0], block.kernel, block.stride, bias=False)
        batch_norm = nn.BatchNorm3d(len(kernel))
        conv.load_state_dict({"weight": kernel})
        batch_norm.load_state_dict(norm, strict=False)
        layers += [conv, nn.MaxPool3d(block.pool, block.pool_stride), batch_norm, nn.LeakyReLU(0.01)]
    (w1, b1), (w2, b2) = dense
    linear1, linear2 = nn.Linear(*reversed(w1.shape)), nn.Linear(*reversed(w2.shape))
    linear1.load_state_dict({"weight": w1, "bias": b1})
    linear2.load_state_dict({"weight": w2, "bias": b2})
    return nn.Sequential(*layers, nn.Flatten(), linear1, nn.LeakyReLU(0.01), linear2).eval()


def ad_scan(shared: Path, name: str = "1000") -> jax.Array:
    """A real scan as the AD network takes it, ``[1, 182, 218, 182, 1]``: over its mean, clipped to 0 .. 8."""
    import nibabel

    image = nibabel.load(shared / "data" / "oasis_1mm" / f"{name}_T1.nii.gz")
    scan = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
    return jnp.asarray(np.clip(scan / scan.mean(), 0, 8))[None, ..., None]


def resnet50(seed: int = 0, *, width: int = 64, outputs: int = 1000) -> zoo.RegressionResNet50:
    """A ResNet-50 of random weights, ``[b, h, w, 3] -> [b, k]``.

    Statistics of its BatchNorms are those of smooth noise that has passed the layers before, so that values keep their
    scale through the network; scales lie between 0.5 and 1.5, shifts have a deviation of 0.2.

    Args:
        seed: of the weights.
        width: channels of the first convolution; 64 is ResNet-50.
        outputs: number of them.
    """
    model = zoo.RegressionResNet50(outputs, channels=3, width=width, epsilon=EPSILON, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    for layer in _in_order(model):
        for name, value in _drawn(rng, layer).items():
            getattr(layer, name).set_value(jnp.asarray(value, np.float32))
    # the last batch alone is what counts
    model.set_attributes(momentum=0.0)
    model.train()
    nnx.jit(lambda model, x: model(x))(model, smooth_noise(seed + 1, 4))
    model.eval()
    return model


def without_biases(model: Network) -> Network:
    """The same with BatchNorms that only scale and other layers without bias."""

    def bare(path: Any, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf) if {"bias", "mean"} & {getattr(key, "name", None) for key in path} else leaf

    return jax.tree_util.tree_map_with_path(bare, model)


def smooth_noise(seed: int, count: int, size: int = 64) -> jax.Array:
    """Images ``[count, size, size, 3]`` float32 of mean 0 and deviation 1, two pixels wide in their details."""
    noise = blurred(jax.random.normal(jax.random.key(seed), (count, size, size, 3)), 2.0)
    return noise / noise.std((1, 2, 3), keepdims=True)


def _in_order(model: zoo.RegressionResNet50) -> Iterator[Any]:
    """Layers with weights, as they are computed."""
    for _, layer in model.named_layers():
        if isinstance(layer, Bottleneck):
            yield from (layer.conv1, layer.bn1, layer.conv2, layer.bn2, layer.conv3, layer.bn3, *layer.downsample)
        elif isinstance(layer, nnx.Module):
            yield layer


def _drawn(rng: np.random.Generator, layer: Any) -> dict[str, np.ndarray]:
    if isinstance(layer, nnx.BatchNorm):
        count = layer.num_features
        return {"scale": rng.uniform(0.5, 1.5, count), "bias": 0.2 * rng.standard_normal(count)}
    shape = layer.kernel.shape
    if isinstance(layer, nnx.Conv):
        return {"kernel": (2 / np.prod(shape[:-1])) ** 0.5 * rng.standard_normal(shape)}
    return {"kernel": shape[0] ** -0.5 * rng.standard_normal(shape), "bias": 0.1 * rng.standard_normal(shape[1])}


def torch_resnet50(model: zoo.RegressionResNet50, add: Any = None) -> Any:
    """The same in PyTorch, ``[b, 3, h, w] -> [b, k]``, of modules that each run once.

    Args:
        model: from :func:`resnet50`.
        add: makes the module that sums the two branches, stacked in a new last axis, as ``zennit.layer.Sum``; None for
            PyTorch's own addition.
    """
    import torch
    from torch import nn

    def conv(before: int, after: int, size: int, stride: int = 1) -> Any:
        return nn.Conv2d(before, after, size, stride, size // 2, bias=False)

    def norm(width: int) -> Any:
        # added to the variance below: zennit merges a BatchNorm and leaves its eps behind
        return nn.BatchNorm2d(width, 0.0)

    class Block(nn.Module):
        def __init__(self, before: int, inner: int, stride: int, project: bool):
            super().__init__()
            after = 4 * inner
            self.conv1, self.bn1, self.relu1 = conv(before, inner, 1), norm(inner), nn.ReLU()
            self.conv2, self.bn2, self.relu2 = conv(inner, inner, 3, stride), norm(inner), nn.ReLU()
            self.conv3, self.bn3, self.relu3 = conv(inner, after, 1), norm(after), nn.ReLU()
            self.downsample = nn.Sequential(*[conv(before, after, 1, stride), norm(after)] if project else [])
            self.add = None if add is None else add()

        def forward(self, x: Any) -> Any:
            h = self.relu1(self.bn1(self.conv1(x)))
            h = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(h)))))
            x = self.downsample(x)
            return self.relu3(h + x if self.add is None else self.add(torch.stack([h, x], -1)))

    names = zoo.torchvision_names(model)
    state = {names[name]: torch.from_numpy(outputs_first(value)) for name, value in zoo.weights(model).items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] += EPSILON
    before = width = len(state["bn1.weight"])
    network = nn.Sequential()
    for name, layer in {
        "conv1": conv(3, width, 7, 2), "bn1": norm(width), "relu": nn.ReLU(), "maxpool": nn.MaxPool2d(3, 2, 1)
    }.items():  # fmt: skip
        network.add_module(name, layer)
    for stage, count in enumerate(RESNET50_STAGES):
        inner, blocks = width * 2**stage, nn.Sequential()
        for i in range(count):
            blocks.append(Block(before, inner, 2 if stage and not i else 1, not i))
            before = 4 * inner
        network.add_module(f"layer{stage + 1}", blocks)
    network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    network.add_module("fc", nn.Linear(before, len(state["fc.bias"])))
    network = network.to(state["fc.bias"].dtype)
    lacking, unknown = network.load_state_dict(state, strict=False)
    assert not unknown
    assert all(name.endswith("num_batches_tracked") for name in lacking)
    return network.eval()


def outputs_first(value: Any) -> np.ndarray:
    """A kernel ``[*window, in, out]`` as ``[out, in, *window]``; what has one axis as it is."""
    array = np.asarray(value)
    return np.array(np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array)


class Twins(NamedTuple):
    """One network and one image in both frameworks.

    Attributes:
        model: in JAX.
        x: ``[b, *space, c]``.
        peer: in PyTorch.
        image: ``[b, c, *space]``.
    """

    model: Model
    x: jax.Array
    peer: Any
    image: Any


def twins(model: Model, x: jax.Array, peer: Any) -> Twins:
    """The same network in both, with the image in both orders of axes."""
    for parameter in peer.parameters():
        parameter.requires_grad_(False)
    return Twins(model, x, peer, to_torch(x))


def from_torch(tensor: Any) -> np.ndarray:
    """``[b, c, *space]`` of PyTorch as ``[b, *space, c]``."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def zennit() -> Any:
    """Its package, which asks for networks of torchvision that nobody needs here; None where it is not installed."""
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
    if importlib.util.find_spec("zennit") is None:
        return None
    stand_ins = {} if importlib.util.find_spec("torchvision") else {name: types.ModuleType(name) for name in names}
    for block in ("Bottleneck", "BasicBlock", "ResNet"):
        for module in stand_ins.values():
            setattr(module, block, type(block, (), {}))
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("zennit")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def zennit_epsilon_plus(peer: Any, image: Any, target: Any) -> np.ndarray:
    """Relevance of the value of one output of each image, by zennit's epsilon-plus with BatchNorms merged."""
    import torch

    package = zennit()
    composite = package.composites.EpsilonPlus(canonizers=[package.canonizers.SequentialMergeBatchNorm()])
    with composite.context(peer) as modified:
        image = image.clone().requires_grad_()
        y = modified(image)
        start = y.detach() * torch.eye(y.shape[1], dtype=y.dtype)[target]
        return from_torch(torch.autograd.grad(y, image, start)[0])
