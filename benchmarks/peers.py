"""The published algorithm in PyTorch, and the tails of networks of :mod:`jaxsal.zoo` in PyTorch, to run against it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jaxsal import zoo
from tests.attribution.real_networks import outputs_first
from tests.peers import load_smocam_torch, to_torch


class PeerRun(NamedTuple):
    """What the peer found.

    Attributes:
        masks: ``[k, *t]``.
        values: of the objective, ``[k]``.
        steps: of every output, ``[k]``.
    """

    masks: np.ndarray
    values: np.ndarray
    steps: np.ndarray


def shared_folder() -> Path:
    """Folder of the peer and of real data: ``JAXSAL_SHARED``, or ``shared`` beside the repository."""
    return Path(os.environ.get("JAXSAL_SHARED", Path(__file__).parents[2] / "shared"))


def run_peer(
    way: str,
    tail: Callable[[Any], Any],
    features: jax.Array,
    outputs: np.ndarray,
    prediction: np.ndarray,
    sigma: np.ndarray,
    *,
    lam: float,
    max_iter: int,
    nonnegative: bool,
) -> PeerRun:
    """The published algorithm, ``"smocam"`` for all outputs in one batch or ``"sequential"`` for one after the other.

    Args:
        way: a function of the peer.
        tail: in PyTorch, ``[b, c, *t] -> [b, k]``.
        features: ``[1, *t, c]``.
        outputs: positions.
        prediction: of these outputs.
        sigma: of these outputs.
        lam: weight of the norm term.
        max_iter: most steps.
        nonnegative: whether the mask is clamped at 0 after every step.
    """
    peer = load_smocam_torch(shared_folder())
    if nonnegative:
        objective = peer.objective

        def clamped(tail: Any, features: Any, m: Any, *rest: Any) -> Any:
            m.data.clamp_(min=0)  # the step before it is done; the next one starts from here
            return objective(tail, features, m, *rest)

        peer.objective = clamped
    found = getattr(peer, way)(
        tail,
        to_torch(features),
        torch.from_numpy(np.array(prediction, np.float32)),
        torch.from_numpy(np.array(outputs)),
        torch.from_numpy(np.array(sigma, np.float32)),
        lam=lam,
        max_iter=max_iter,
    )
    return PeerRun(*(a.detach().numpy() for a in found))


def torch_tail(model: zoo.MorphometryVGG, blocks: Any, first: int, pooled: bool) -> nn.Sequential:
    """The layers of a network behind the ReLU of a block, by their names, with channels-first features.

    Args:
        model: the network, of three spatial axes, in evaluation mode.
        blocks: of it.
        first: block whose ReLU gives the features, counted from 1.
        pooled: whether that block pools after its ReLU.
    """
    state = {name.replace("kernel", "weight"): outputs_first(value) for name, value in zoo.weights(model).items()}
    layers = nn.Sequential()

    def pool(i: int, block: zoo.ConvBlock) -> None:
        if block.pool > 1:
            layers.add_module(f"pool{i}", nn.MaxPool3d(block.pool, block.pool_stride))

    if pooled:
        pool(first, blocks[first - 1])
    for i, block in enumerate(blocks[first:], start=first + 1):
        before = state[f"conv{i}.weight"].shape[1]
        layers.add_module(f"same{i}", _Same(block.kernel, block.stride))
        layers.add_module(f"conv{i}", nn.Conv3d(before, block.width, block.kernel, block.stride, bias=block.bias))
        layers.add_module(f"relu{i}", nn.ReLU())
        pool(i, block)
    layers.add_module("flatten", _Flatten())
    dense = sorted(name.removesuffix(".weight") for name in state if name.startswith("dense") and "weight" in name)
    for i, name in enumerate([*dense, "output"], start=1):
        after, before = state[f"{name}.weight"].shape
        layers.add_module(name, nn.Linear(before, after))
        if i < len(dense):
            layers.add_module(f"relu{len(blocks) + i}", nn.ReLU())
    layers.load_state_dict({name: torch.from_numpy(state[name]) for name in layers.state_dict()})
    return layers.requires_grad_(False).eval()


class _Same(nn.Module):
    """Padding that JAX calls 'same': where it is odd, the larger part lies behind."""

    def __init__(self, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, h: Any) -> Any:
        missing = [max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in reversed(h.shape[2:])]
        return F.pad(h, [part for n in missing for part in (n // 2, n - n // 2)])


class _Flatten(nn.Module):
    """Channels last, as the weights behind it are ordered."""

    def forward(self, h: Any) -> Any:
        return h.permute(0, 2, 3, 4, 1).flatten(1)
