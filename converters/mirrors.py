"""Networks as the frameworks that they come from compute them, from the same files, to compare with."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsal.zoo import ModelRecord

from .keras_files import read_keras

Source = Callable[[np.ndarray], np.ndarray]


def in_torch(network: Callable[[Mapping[str, Any], Any], Any], weights: Mapping[str, np.ndarray]) -> Source | str:
    """A network ``(weights, x[b, c, *space]) -> y`` for images with channels last, or why there is none.

    Weights of any precision are taken in float32, as the converted network has them.
    """
    try:
        import torch
    except ModuleNotFoundError:
        return "PyTorch, which would compute it, is not installed"
    state = {
        name: torch.from_numpy(np.array(array, np.float32 if array.dtype.kind == "f" else None))
        for name, array in weights.items()
    }

    def source(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(state, torch.from_numpy(np.moveaxis(image, -1, 1).copy())).numpy()

    return source


def in_keras(path: str | os.PathLike, record: ModelRecord) -> Source | str:
    """A Keras model as Keras computes it, or why it is not asked.

    Args:
        path: the file, of layers that jaxsal knows.
        record: of the network that it was converted to.
    """
    if Path(path).suffix == ".json":
        return "Keras does not read files of TensorFlow.js"
    # the loss and metrics of training may be anybody's: what is not compiled does not load them
    model_only = {key: part for key, part in read_keras(Path(path)).model.items() if key != "compile_config"}
    if foreign := sorted(set(_named_code(model_only))):
        return f"the file names {', '.join(foreign)}, which Keras would look for and run"
    # any backend will do: the one that is there for sure
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras  # pyright: ignore[reportMissingImports] - optional
    except ImportError as error:
        return f"Keras cannot be imported ({error})"
    # before, files could run code even in its safe mode
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 12):
        return f"Keras {keras.__version__} is too old to read a file safely, 3.12 is needed"

    def source(image: np.ndarray) -> np.ndarray:
        # of Keras on JAX no strictness is asked
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return np.asarray(model(image, training=False))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' about itself
            model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
        parts = list(model._flatten_layers())
        if small := sorted({str(part.dtype) for part in parts} & {"float16", "bfloat16"}):
            return f"Keras keeps its numbers in {', '.join(small)}, jaxsal in float32"
        for part in parts:
            # mixed precision: its weights are float32, and so is now what is computed with them
            part.dtype_policy = "float32"
        source(np.zeros((1, *record.input.shape, record.input.channels), np.float32))
    except Exception as error:
        return f"Keras {keras.__version__} cannot run it: {str(error).strip().partition(chr(10))[0]:.300}"
    return source


def _named_code(config: Any) -> Iterator[str]:
    """What a model's description names that is not Keras' own."""
    if isinstance(config, list):
        for each in config:
            yield from _named_code(each)
    if isinstance(config, Mapping):
        module, kind = config.get("module"), config.get("class_name")
        if module is not None and str(module).partition(".")[0] != "keras":
            yield f"{module}.{kind}"
        elif kind in ("__lambda__", "Lambda"):
            yield str(kind)
        for each in config.values():
            yield from _named_code(each)


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
