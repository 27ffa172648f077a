"""Networks of the zoo as PyTorch computes them from the same files, to compare with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Source = Callable[[np.ndarray], np.ndarray]


def in_torch(network: Callable[[Mapping[str, Any], Any], Any], weights: Mapping[str, np.ndarray]) -> Source | None:
    """A network ``(weights, x[b, c, *space]) -> y`` for images with channels last; None without PyTorch."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}

    def source(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(state, torch.from_numpy(np.moveaxis(image, -1, 1).copy())).numpy()

    return source


def ad_spectrum(heads: Sequence[str]) -> Callable[[Mapping[str, Any], Any], Any]:
    """The network of Qiu et al. 2022, its heads' outputs side by side."""

    def network(state: Mapping[str, Any], x: Any) -> Any:
        import torch
        from torch.nn import functional as F

        for i in range(1, 5):
            x = F.conv3d(x, state[f"backbone.block{i}.conv.weight"], stride=2 if i == 1 else 1)
            x = F.max_pool3d(x, 3 if i == 1 else 2, 2)
            x = F.leaky_relu(_batch_norm(state, f"backbone.block{i}.BN", x), 0.01)
        x = x.flatten(1)
        return torch.cat([_dense(state, f"{h}.dense2.2", _leaky(_dense(state, f"{h}.dense1.1", x))) for h in heads], 1)

    return network


def resnet50(state: Mapping[str, Any], x: Any) -> Any:
    """torchvision's: strides in the 3 x 3 convolutions."""
    from torch.nn import functional as F

    def normed(conv: str, norm: str, x: Any, stride: int = 1) -> Any:
        kernel = state[f"{conv}.weight"]
        return _batch_norm(state, norm, F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2))

    x = F.max_pool2d(normed("conv1", "bn1", x, 2).relu(), 3, 2, 1)
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            h = normed(f"{name}.conv1", f"{name}.bn1", x).relu()
            h = normed(f"{name}.conv2", f"{name}.bn2", h, stride).relu()
            h = normed(f"{name}.conv3", f"{name}.bn3", h)
            x = (h + (x if block else normed(f"{name}.downsample.0", f"{name}.downsample.1", x, stride))).relu()
    return _dense(state, "fc", x.mean((2, 3)))


def vgg16(state: Mapping[str, Any], x: Any) -> Any:
    """torchvision's: features averaged to 7 x 7."""
    from torch.nn import functional as F

    number = 0
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            name = f"features.{number}"
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).relu()
            number += 2
        x, number = F.max_pool2d(x, 2), number + 1
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    for i in (0, 3):
        x = _dense(state, f"classifier.{i}", x).relu()
    return _dense(state, "classifier.6", x)


def _batch_norm(state: Mapping[str, Any], name: str, x: Any) -> Any:
    from torch.nn import functional as F

    mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def _dense(state: Mapping[str, Any], name: str, x: Any) -> Any:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _leaky(x: Any) -> Any:
    from torch.nn import functional as F

    return F.leaky_relu(x, 0.01)
