"""Oracles: the PyTorch peer of SMOCAM, and real networks rebuilt in both frameworks."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import Partial

from jaxsal.splitting import Split


def load_smocam_torch(shared: Path):
    """The paper's algorithm in PyTorch."""
    pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    spec = importlib.util.spec_from_file_location("smocam_torch", shared / "peers" / "smocam_torch.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    return peer


def to_torch(features: jax.Array):
    """Features ``[b, *t, c]`` as a PyTorch tensor ``[b, c, *t]``."""
    import torch

    return torch.from_numpy(np.moveaxis(np.asarray(features), -1, 1).copy())


class Block(NamedTuple):
    """Convolution without bias, max-pool, BatchNorm, LeakyReLU."""

    kernel: int
    stride: int
    pool: int
    pool_stride: int


AD_BLOCKS = (Block(7, 2, 3, 2), Block(4, 1, 2, 2), Block(3, 1, 2, 2), Block(3, 1, 2, 2))


class ADNetwork(NamedTuple):
    """One fold of the AD-spectrum network, cut at the input of its third block.

    Attributes:
        split: in JAX; the tail's output is the cognition score ``[b, 1]``.
        tail: in PyTorch, ``[b, 40, 20, 24, 20] -> [b, 1]``.
    """

    split: Split
    tail: object


def ad_network(shared: Path, fold: int) -> ADNetwork:
    """The published weights of a fold, by hand in both frameworks."""
    torch = pytest.importorskip("torch", reason="the published weights are PyTorch files; torch==2.13.0 reads them")
    convs, norms, dense = ad_weights(shared, fold)
    blocks = []
    for kernel, norm in zip(convs, norms, strict=True):
        scale = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-5)
        shift = norm["bias"] - norm["running_mean"] * scale
        blocks.append(tuple(jnp.asarray(a.numpy()) for a in (kernel.permute(2, 3, 4, 1, 0), scale, shift)))
    layers = tuple((jnp.asarray(weight.numpy().T), jnp.asarray(bias.numpy())) for weight, bias in dense)
    return ADNetwork(
        Split(Partial(_jax_head, blocks[:2]), Partial(_jax_tail, (blocks[2:], layers))),
        lambda features: _torch_tail(features, convs[2:], norms[2:], dense),
    )


def ad_weights(shared: Path, fold: int):
    """The published weights of a fold, of PyTorch: kernels, BatchNorms, and weights and biases of the dense layers."""
    torch = pytest.importorskip("torch", reason="the published weights are PyTorch files; torch==2.13.0 reads them")
    folder = shared / "weights" / "ncomms2022" / f"CNN_baseline_new_cross{fold}"
    state = {}
    for part in ("backbone", "COG"):
        (path,) = folder.glob(f"{part}_*.pth")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state |= {f"{part}.{name.removeprefix('module.')}": value for name, value in loaded.items()}
    return _sort(state)


def _sort(state):
    convs = [value for value in state.values() if value.ndim == 5]
    names = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    norms = [{key: state[name + key] for key in ("weight", "bias", "running_mean", "running_var")} for name in names]
    dense = [(value, state[name.replace("weight", "bias")]) for name, value in state.items() if value.ndim == 2]
    assert len(convs) == len(norms) == 4
    assert len(dense) == 2
    return convs, norms, dense


def _jax_blocks(blocks, specs, x):
    for (kernel, scale, shift), spec in zip(blocks, specs, strict=True):
        x = lax.conv_general_dilated(
            x, kernel, (spec.stride,) * 3, "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )
        sizes, strides = ((1, *(n,) * 3, 1) for n in (spec.pool, spec.pool_stride))
        x = lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, "VALID")
        x = jax.nn.leaky_relu(x * scale.reshape(1, 1, 1, 1, -1) + shift.reshape(1, 1, 1, 1, -1), 0.01)
    return x


def _jax_head(blocks, x):
    return _jax_blocks(blocks, AD_BLOCKS[:2], x)


def _jax_tail(weights, features):
    blocks, ((w1, b1), (w2, b2)) = weights
    x = _jax_blocks(blocks, AD_BLOCKS[2:], features)
    x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)  # PyTorch flattens channels first
    return jax.nn.leaky_relu(x @ w1 + b1.reshape(1, -1), 0.01) @ w2 + b2.reshape(1, -1)


def _torch_tail(features, convs, norms, dense):
    from torch.nn import functional as F

    x = features
    for kernel, norm, spec in zip(convs, norms, AD_BLOCKS[2:], strict=True):
        x = F.max_pool3d(F.conv3d(x, kernel, stride=spec.stride), spec.pool, spec.pool_stride)
        x = F.batch_norm(x, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"])
        x = F.leaky_relu(x, 0.01)
    (w1, b1), (w2, b2) = dense
    return F.linear(F.leaky_relu(F.linear(x.flatten(1), w1, b1), 0.01), w2, b2)
