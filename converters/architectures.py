"""Weights of published networks as the networks of the zoo."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxsal import zoo
from jaxsal.zoo.registry import build

from . import mirrors
from .building import build as build_graph
from .checking import Conversion, Images, compare, described, pictures, random_images
from .keras_files import read_keras
from .keras_layers import network
from .keras_models import flattened, from_keras
from .matching import Pair, matched
from .pairing import ad_spectrum_names, in_turn, torch_pairs
from .states import read_weights, without_prefixes

# grid for the comparison of networks of convolutions only, in voxels: any will do
_CROP = (24, 20, 18)


class Architecture(NamedTuple):
    """A kind of file that can be converted.

    Attributes:
        about: the network, and what FILE is.
        convert: ``path -> Conversion``; takes ``name`` and ``images`` too.
    """

    about: str
    convert: Callable[..., Conversion]


def architectures() -> dict[str, Architecture]:
    """By name, as ``jaxsal convert --arch`` takes it."""
    return {
        "keras": Architecture("any Keras model: .h5, .keras, or TensorFlow.js' model.json", keras),
        "meshnet": Architecture("brainchop's MeshNet, 18 classes per voxel: model.json", meshnet),
        "meshnet-volumes": Architecture("the volumes of its classes as outputs: model.json", meshnet_volumes),
        "ncomms2022": Architecture("cognition score of Qiu et al. 2022: folder of a fold", ad_spectrum),
        "ncomms2022-add": Architecture("its score and the two logits of ADD: folder of a fold", ad_spectrum_with_add),
        "resnet50": Architecture(
            "torchvision's resnet50: .pth, .pt or .safetensors",
            _torchvision(_Torchvision("RegressionResNet50", mirrors.resnet50, "conv1", "fc", "layer2_3")),
        ),
        "vgg16": Architecture(
            "torchvision's vgg16: .pth, .pt or .safetensors",
            _torchvision(_Torchvision("RegressionVGG16", mirrors.vgg16, "features.0", "classifier.6", "relu3_3")),
        ),
    }


def convert(path: str | os.PathLike, arch: str, **options: Any) -> Conversion:
    """A file of weights as a network of jaxsal.

    Args:
        path: file or folder, see :func:`architectures`.
        arch: name of the architecture.
        options: of it, such as ``name`` and ``images``.

    Raises:
        ValueError: if there is no such architecture (those that exist are listed), or the weights do not fit: all that
            are missing, unknown or mis-shaped are named.
    """
    known = architectures()
    if arch not in known:
        raise ValueError(
            f"There is no architecture {arch!r}: {', '.join(known)}. Any other network of PyTorch is converted in "
            "Python, with jaxsal.converters.from_torch(module, example)."
        )
    if not Path(path).exists():
        raise FileNotFoundError(f"Nothing lies at {path}: {arch} is {known[arch].about}.")
    takes = inspect.signature(known[arch].convert).parameters
    if useless := sorted(set(options) - set(takes)):
        raise ValueError(f"{arch} takes no {', '.join(useless)}: the file says it, or the network has it fixed.")
    return known[arch].convert(path, **options)


def keras(
    path: str | os.PathLike,
    *,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    outputs: Sequence[str | zoo.Output] | None = None,
    images: Images = (),
    tolerance: float = 1e-4,
) -> Conversion:
    """Any Keras model; compared with Keras itself, where that is installed and can load the file."""
    # first of all: it refuses what is not known, and what would be run
    found = from_keras(path, name=name, shape=shape, outputs=outputs)
    return _compared(found.model, found.record, mirrors.in_keras(path, found.record), images, tolerance)


def ad_spectrum(
    folder: str | os.PathLike, *, name: str | None = None, images: Images = (), tolerance: float = 1e-4
) -> Conversion:
    """The cognition score of Qiu et al. 2022, from the folder of one fold."""
    return _ad_spectrum(folder, zoo.ad_spectrum_record(), ("COG",), name, images, tolerance)


def ad_spectrum_with_add(
    folder: str | os.PathLike, *, name: str | None = None, images: Images = (), tolerance: float = 1e-4
) -> Conversion:
    """The score and the two logits of ADD, which mean something among people with dementia only."""
    return _ad_spectrum(folder, zoo.ad_spectrum_with_add_record(), ("COG", "ADD"), name, images, tolerance)


def meshnet(path: str | os.PathLike, *, name: str | None = None, images: Images = (), tolerance: float = 1e-4):
    """Brainchop's MeshNet from TensorFlow.js' files; compared with the file's own layers run one by one."""
    return _meshnet(path, lambda width: zoo.meshnet_record(width=width), name, images, tolerance)


def meshnet_volumes(
    path: str | os.PathLike,
    *,
    name: str | None = None,
    structures: Sequence[str] | None = None,
    images: Images = (),
    tolerance: float = 1e-4,
) -> Conversion:
    """The volumes of MeshNet's classes; what is compared is MeshNet, see :func:`meshnet`."""

    def record(width: int) -> zoo.ModelRecord:
        named = () if structures is None else (structures,)
        return zoo.meshnet_volumes_record(*named, width=width)

    return _meshnet(path, record, name, images, tolerance)


def _ad_spectrum(
    folder: str | os.PathLike,
    record: zoo.ModelRecord,
    heads: Sequence[str],
    name: str | None,
    images: Images,
    tolerance: float,
) -> Conversion:
    folder = Path(folder)
    given: dict[str, np.ndarray] = {}
    for part in ("backbone", *heads):
        files = sorted(folder.glob(f"{part}_*.pth")) + sorted(folder.glob(f"{part}_*.safetensors"))
        if len(files) != 1:
            raise ValueError(
                f"{folder} has {len(files)} files {part}_*.pth, one is needed: give the folder of one fold, such as "
                "CNN_baseline_new_cross0."
            )
        given |= {f"{part}.{key}": array for key, array in without_prefixes(read_weights(files[0])).items()}
    record = record.model_copy(update={"name": name or folder.name, "training": {"source": folder.name}})
    shapes, grids = _inside(record)
    pairs = torch_pairs(shapes, ad_spectrum_names(list(shapes)), grids)
    model = _filled(record, matched(pairs, shapes, given, folder))
    return _compared(model, record, mirrors.in_torch(mirrors.ad_spectrum(heads), given), images, tolerance)


class _Torchvision(NamedTuple):
    """A network of torchvision's.

    Attributes:
        architecture: of the zoo.
        mirror: the network in PyTorch.
        first: its layer that reads the image.
        last: its layer that gives the outputs.
        layer: where masks lie.
    """

    architecture: str
    mirror: Callable[[Mapping[str, Any], Any], Any]
    first: str
    last: str
    layer: str


def _torchvision(network: _Torchvision) -> Callable[..., Conversion]:
    def converted(
        path: str | os.PathLike,
        *,
        name: str | None = None,
        shape: Sequence[int] = (224, 224),
        outputs: Sequence[str | zoo.Output] | None = None,
        images: Images = (),
        tolerance: float = 1e-4,
    ) -> Conversion:
        """Weights of the shape of torchvision's, with any number of outputs and input channels."""
        given = read_weights(path)
        # numbers of outputs and channels are the file's; weights that do not tell them are told with the others
        count = _size(given, f"{network.last}.weight", 0, of=2) or 1000
        channels = _size(given, f"{network.first}.weight", 1, of=4) or 3
        record = described(
            name or Path(path).stem, network.architecture, {}, shape, channels, outputs, count, network.layer,
            {"source": Path(path).name},
        )  # fmt: skip
        shapes, grids = _inside(record)
        # of the names only: torchvision_names asks for the network
        names = zoo.torchvision_names(_fresh(record))  # type: ignore[arg-type]
        model = _filled(record, matched(torch_pairs(shapes, names, grids), shapes, given, path))
        return _compared(model, record, mirrors.in_torch(network.mirror, given), images, tolerance)

    return converted


def _size(given: Mapping[str, np.ndarray], name: str, axis: int, of: int) -> int | None:
    """Length of an axis of a weight, if that is there and has so many axes."""
    return given[name].shape[axis] if name in given and given[name].ndim == of else None


def _meshnet(
    path: str | os.PathLike,
    record_of: Callable[[int], zoo.ModelRecord],
    name: str | None,
    images: Images,
    tolerance: float,
) -> Conversion:
    path = Path(path)
    model, weights, version = read_keras(path)
    flat = flattened(weights)
    width = next((array.shape[-1] for array in flat.values() if array.ndim > 1), 21)
    origin = {"source": f"TensorFlow.js, Keras {version}", "file": f"{path.parent.name}/{path.name}"}
    record = record_of(width)
    record = record.model_copy(update={"name": name or path.parent.name, "training": origin})
    read = network(model, lambda layer: {key: f"{layer}.{key}" for key in weights.get(layer, {})})
    layers = [layer.name for layer in read.layers if layer.name in weights]
    shapes, _ = _inside(record)
    # in the order of computation: conv10 would sort before conv2
    ordered = [key for layer in _in_order(record) for key in shapes if key.rpartition(".")[0] == layer]
    pairs = {ours: Pair(theirs, np.asarray) for ours, theirs in in_turn(ordered, layers).items()}
    built = _filled(record, matched(pairs, shapes, flat, path))

    plain = zoo.meshnet_record(width=width)
    segments = _filled(plain, matched(pairs, shapes, flat, path))
    config = {
        "graph": read.graph,
        "weights": {key: {"kind": "parameter", "shape": list(a.shape), "dtype": "float32"} for key, a in flat.items()},
    }

    def source(x: np.ndarray) -> np.ndarray:
        as_read = build_graph(len(plain.outputs), x.shape[1:-1], 1, config, flat)
        return np.asarray(jax.jit(as_read)(x))

    crops = [random_images(_CROP, 1), *(_middle(image, _CROP) for image in pictures(images, record))]
    return Conversion(built, record, *compare(segments, source, crops, tolerance, record.name))


def _middle(image: np.ndarray, most: Sequence[int]) -> np.ndarray:
    """The middle of ``[b, *space, c]``, of at most so many voxels along each axis."""
    sizes = [min(n, m) for n, m in zip(image.shape[1:-1], most, strict=True)]
    corner = [(n - m) // 2 for n, m in zip(image.shape[1:-1], sizes, strict=True)]
    return image[:, *(slice(c, c + m) for c, m in zip(corner, sizes, strict=True))]


def _fresh(record: zoo.ModelRecord) -> nnx.Module:
    """The network with shapes for weights."""
    model = nnx.eval_shape(lambda: build(record.architecture, record.config, len(record.outputs), record.input))
    model.eval()
    return model


def _inside(record: zoo.ModelRecord) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of all weights, and of each dense layer that reads flattened features the features' grid."""
    shapes = {key: tuple(value.shape) for key, value in zoo.weights(_fresh(record)).items()}
    grid: list[tuple[int, ...]] = []
    width: list[int] = []

    def note(x: jax.Array) -> None:
        model = build(record.architecture, record.config, len(record.outputs), record.input)
        model.eval()
        for name, call in model.named_layers():  # type: ignore[attr-defined]
            if name == "flatten":
                grid.append(tuple(x.shape[1:-1]))
                width.append(int(np.prod(x.shape[1:])))
                return
            x = call(x)

    jax.eval_shape(note, jax.ShapeDtypeStruct((1, *record.input.shape, record.input.channels), np.float32))
    first = [key for key, shape in shapes.items() if grid and key.endswith(".kernel") and shape[:-1] == (width[0],)]
    return shapes, {key.removesuffix(".kernel"): grid[0] for key in first}


def _in_order(record: zoo.ModelRecord) -> tuple[str, ...]:
    return tuple(name for name, _ in _fresh(record).named_layers())  # type: ignore[attr-defined]


def _filled(record: zoo.ModelRecord, weights: Mapping[str, np.ndarray]) -> nnx.Module:
    model = _fresh(record)
    _, state, _ = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    for path, variable in nnx.to_flat_state(state):
        array = weights[".".join(map(str, path))]
        variable.set_value(jax.numpy.asarray(array, dtype=variable.get_value().dtype))
    nnx.update(model, state)
    return model


def _compared(
    model: Any, record: zoo.ModelRecord, source: mirrors.Source | str, images: Images, tolerance: float
) -> Conversion:
    """The conversion with its proof, or with the reason why there is none."""
    if isinstance(source, str):
        return Conversion(model, record, None, None, not_compared=source)
    noise = random_images(record.input.shape, record.input.channels, count=1)
    return Conversion(
        model, record, *compare(model, source, [noise, *pictures(images, record)], tolerance, record.name)
    )
