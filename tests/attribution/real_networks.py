"""Networks of real size in JAX and PyTorch, with the same weights in both."""

import functools
import importlib.util
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

from jaxsal.attribution import blurred
from jaxsal.model import Model
from tests.peers import AD_BLOCKS, ad_network, ad_weights, to_torch

AD_SHAPE = (182, 218, 182)
# blocks of each stage, and the stride of its first one
RESNET50 = ((3, 1), (4, 2), (6, 2), (3, 2))
EXPANSION = 4
BN_EPS = 1e-5


def whole_ad_network(shared: Path, fold: int) -> Model:
    """One fold of the AD-spectrum network, ``[b, 182, 218, 182, 1] -> [b, 1]``, with its published weights."""
    split = ad_network(shared, fold).split
    return Partial(_one_after_the_other, split.head, split.tail)


def _one_after_the_other(head: Model, tail: Model, x: jax.Array) -> jax.Array:
    return tail(head(x))


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


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class ResNet50:
    """ResNet-50 (He et al. 2016), its strides in the 3 x 3 convolutions, ``[b, h, w, 3] -> [b, k]``.

    Attributes:
        weights: by the name of the layer.
    """

    weights: Mapping[str, Any]

    def __call__(self, x: jax.Array) -> jax.Array:
        return _through(self.weights, x, _batch_norm)


def resnet50(seed: int = 0, *, width: int = 64, outputs: int = 1000) -> ResNet50:
    """A ResNet-50 of random weights.

    Statistics of its BatchNorms are those of smooth noise that has passed the layers before, so that values keep their
    scale through the network; scales lie between 0.5 and 1.5, shifts have a deviation of 0.2.

    Args:
        seed: of the weights.
        width: channels of the first convolution; 64 is ResNet-50.
        outputs: number of them.
    """
    rng = np.random.default_rng(seed)
    weights = jax.tree.map(lambda a: jnp.asarray(a, np.float32), _drawn(rng, width, outputs))
    noise = smooth_noise(seed + 1, 4)
    return ResNet50(jax.jit(_calibrated)(weights, noise))


def without_biases(model: ResNet50) -> ResNet50:
    """The same with BatchNorms that only scale and a last layer without bias."""

    def bare(path: Any, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf) if path[-1].key in ("shift", "mean", "bias") else leaf

    return ResNet50(jax.tree_util.tree_map_with_path(bare, model.weights))


def smooth_noise(seed: int, count: int, size: int = 64) -> jax.Array:
    """Images ``[count, size, size, 3]`` float32 of mean 0 and deviation 1, two pixels wide in their details."""
    noise = blurred(jax.random.normal(jax.random.key(seed), (count, size, size, 3)), 2.0)
    return noise / noise.std((1, 2, 3), keepdims=True)


def _drawn(rng: np.random.Generator, width: int, outputs: int) -> dict[str, Any]:
    def conv(size: int, before: int, after: int) -> dict[str, np.ndarray]:
        scale = (2 / (size * size * before)) ** 0.5
        return {"kernel": scale * rng.standard_normal((size, size, before, after))}

    def norm(count: int) -> dict[str, np.ndarray]:
        return {
            "scale": rng.uniform(0.5, 1.5, count),
            "shift": 0.2 * rng.standard_normal(count),
            "mean": np.zeros(count),
            "var": np.ones(count),
        }

    def block(before: int, inner: int, first: bool) -> dict[str, Any]:
        after = EXPANSION * inner
        parts = {
            "conv1": conv(1, before, inner), "bn1": norm(inner),
            "conv2": conv(3, inner, inner), "bn2": norm(inner),
            "conv3": conv(1, inner, after), "bn3": norm(after),
        }  # fmt: skip
        return parts | ({"conv0": conv(1, before, after), "bn0": norm(after)} if first else {})

    weights: dict[str, Any] = {"conv": conv(7, 3, width), "bn": norm(width)}
    before = width
    for stage, (count, _) in enumerate(RESNET50):
        inner = width * 2**stage
        for i in range(count):
            weights[f"block{stage + 1}_{i + 1}"] = block(before, inner, i == 0)
            before = EXPANSION * inner
    scale = before**-0.5
    kernel = scale * rng.standard_normal((before, outputs))
    return weights | {"dense": {"kernel": kernel, "bias": 0.1 * rng.standard_normal(outputs)}}


def _batch_norm(x: jax.Array, norm: Mapping[str, jax.Array], _: str) -> jax.Array:
    per_channel = {name: value.reshape(1, 1, 1, -1) for name, value in norm.items()}
    scale = per_channel["scale"] * lax.rsqrt(per_channel["var"] + BN_EPS)
    return (x - per_channel["mean"]) * scale + per_channel["shift"]


def _calibrated(weights: Mapping[str, Any], noise: jax.Array) -> Mapping[str, Any]:
    found: dict[str, Any] = {}

    def measured(x: jax.Array, norm: Mapping[str, jax.Array], name: str) -> jax.Array:
        found[name] = {**norm, "mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
        return _batch_norm(x, found[name], name)

    _through(weights, noise, measured)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: found.get(jax.tree_util.keystr(path[:-1]), {}).get(path[-1].key, leaf), weights
    )


def _through(weights: Mapping[str, Any], x: jax.Array, batch_norm: Any) -> jax.Array:
    def normed(x: jax.Array, at: Mapping[str, Any], where: str, number: str, stride: int = 1) -> jax.Array:
        kernel = at[f"conv{number}"]["kernel"]
        pad = kernel.shape[0] // 2
        dims = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=dims)
        return batch_norm(x, at[f"bn{number}"], f"{where}['bn{number}']")

    def block(x: jax.Array, name: str, stride: int) -> jax.Array:
        at, where = weights[name], f"['{name}']"
        h = jax.nn.relu(normed(x, at, where, "1"))
        h = jax.nn.relu(normed(h, at, where, "2", stride))
        h = normed(h, at, where, "3")
        return jax.nn.relu(h + (normed(x, at, where, "0", stride) if "conv0" in at else x))

    x = jax.nn.relu(normed(x, weights, "", "", 2))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for stage, (count, stride) in enumerate(RESNET50):
        for i in range(count):
            x = block(x, f"block{stage + 1}_{i + 1}", stride if i == 0 else 1)
    dense = weights["dense"]
    return x.mean((1, 2)) @ dense["kernel"] + dense["bias"].reshape(1, -1)


def torch_resnet50(model: ResNet50, add: Any = None) -> Any:
    """The same in PyTorch, ``[b, 3, h, w] -> [b, k]``, of modules that each run once.

    Args:
        model: from :func:`resnet50`.
        add: makes the module that sums the two branches, stacked in a new last axis, as ``zennit.layer.Sum``; None for
            PyTorch's own addition.
    """
    import torch
    from torch import nn

    weights = model.weights

    def tensor(a: jax.Array) -> Any:
        return torch.from_numpy(np.array(a))

    def normed(at: Mapping[str, Any], number: str, stride: int = 1) -> Any:
        kernel = tensor(at[f"conv{number}"]["kernel"]).permute(3, 2, 0, 1).contiguous()
        outs, ins, size, _ = kernel.shape
        conv = nn.Conv2d(ins, outs, size, stride, size // 2, bias=False, dtype=kernel.dtype)
        # added to the variance here: zennit merges a BatchNorm and leaves its eps behind
        norm = nn.BatchNorm2d(outs, 0.0, dtype=kernel.dtype)
        given = {**at[f"bn{number}"], "var": at[f"bn{number}"]["var"] + BN_EPS}
        names = {"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "var"}
        conv.load_state_dict({"weight": kernel})
        norm.load_state_dict({key: tensor(given[name]) for key, name in names.items()}, strict=False)
        return nn.Sequential(conv, norm)

    class Block(nn.Module):
        def __init__(self, at: Mapping[str, Any], stride: int):
            super().__init__()
            self.long = nn.Sequential(
                normed(at, "1"), nn.ReLU(), normed(at, "2", stride), nn.ReLU(), normed(at, "3")
            )  # fmt: skip
            self.short = normed(at, "0", stride) if "conv0" in at else nn.Identity()
            self.add = None if add is None else add()
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            long, short = self.long(x), self.short(x)
            return self.relu(long + short if self.add is None else self.add(torch.stack([long, short], -1)))

    blocks = [
        Block(weights[f"block{stage + 1}_{i + 1}"], stride if i == 0 else 1)
        for stage, (count, stride) in enumerate(RESNET50)
        for i in range(count)
    ]
    kernel = tensor(weights["dense"]["kernel"])
    dense = nn.Linear(*kernel.shape, dtype=kernel.dtype)
    dense.load_state_dict({"weight": kernel.T, "bias": tensor(weights["dense"]["bias"])})
    pooled = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        normed(weights, "", 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, pooled, nn.Flatten(), dense
    ).eval()  # fmt: skip


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
