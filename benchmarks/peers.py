"""The published algorithm in PyTorch, and the tails of networks of :mod:`jaxsal.zoo` in PyTorch, to run against it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.nn import functional as F

from jaxsal import zoo
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


def torch_tail(model: zoo.MorphometryVGG, blocks: Any, first: int, pooled: bool) -> Callable[[Any], Any]:
    """The layers of a network behind the ReLU of a block, with channels-first features.

    Args:
        model: the network, of three spatial axes, in evaluation mode.
        blocks: of it.
        first: block whose ReLU gives the features, counted from 1.
        pooled: whether that block pools after its ReLU.
    """
    weights = {name: torch.from_numpy(np.array(value)) for name, value in zoo.weights(model).items()}
    kernels = {i: weights[f"conv{i}.kernel"].permute(4, 3, 0, 1, 2).contiguous() for i in range(1, len(blocks) + 1)}
    dense = sorted(name.removesuffix(".kernel") for name in weights if name.startswith("dense") and "kernel" in name)

    def pool(h: Any, block: zoo.ConvBlock) -> Any:
        return F.max_pool3d(h, block.pool, block.pool_stride) if block.pool > 1 else h

    def tail(h: Any) -> Any:
        if pooled:
            h = pool(h, blocks[first - 1])
        for i, block in enumerate(blocks[first:], start=first + 1):
            pads = [p for n in reversed(h.shape[2:]) for p in _same(n, block.kernel, block.stride)]
            h = F.conv3d(F.pad(h, pads), kernels[i], weights.get(f"conv{i}.bias"), stride=block.stride)
            h = pool(torch.relu(h), block)
        h = h.permute(0, 2, 3, 4, 1).flatten(1)
        for i, name in enumerate(dense):
            h = h @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]
            h = torch.relu(h) if i < len(dense) - 1 else h
        return h @ weights["output.kernel"] + weights["output.bias"]

    return tail


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2
