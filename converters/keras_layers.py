"""A Keras model's configuration as a graph of operations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxsal.graph.keras.layers import ACTIVATIONS
from jaxsal.graph.keras.rules import rules
from jaxsal.graph.program import Node, write

from .keras_errors import KerasError, told

MODELS = frozenset(("Functional", "Model", "Sequential"))
# of each class, what of its configuration matters when it predicts
_OPTIONS: dict[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "AveragePooling": ("pool_size", "strides", "padding"),
    "BatchNormalization": ("epsilon",),
    "Concatenate": ("axis",),
    "Conv": ("strides", "padding", "dilation_rate", "groups", "activation"),
    "ConvTranspose": ("strides", "padding", "activation"),
    "Cropping": ("cropping",),
    "Dense": ("activation",),
    "DepthwiseConv": ("strides", "padding", "dilation_rate", "activation"),
    "GlobalAveragePooling": ("keepdims",),
    "GlobalMaxPooling": ("keepdims",),
    "LayerNormalization": ("epsilon",),
    "MaxPooling": ("pool_size", "strides", "padding"),
    "Permute": ("dims",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Rescaling": ("scale", "offset"),
    "Reshape": ("target_shape",),
    "SeparableConv": ("strides", "padding", "dilation_rate", "activation"),
    "Softmax": ("axis",),
    "UpSampling": ("size", "interpolation"),
    "ZeroPadding": ("padding",),
}
# settings that would change what a layer computes, with the only values that the rules know
_NEEDED: dict[str, tuple[Any, ...]] = {
    "data_format": (None, "channels_last"),
    "interpolation": (None, "nearest", "bilinear"),
    "output_padding": (None,),
    "rms_scaling": (None, False),
}
# models that are called several times, within such models, would be written out without end
_CALLS = 100_000
# packages whose classes are Keras's own
_KERAS = ("keras", "tf_keras", "tensorflow")


class Layer(NamedTuple):
    """A layer that runs, wherever models are nested.

    Attributes:
        name: in its model.
        kind: class.
        config: its own.
        model: names of the models around it, from the outermost.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    model: tuple[str, ...]


class Network(NamedTuple):
    """A model read.

    Attributes:
        graph: for :class:`jaxsal.graph.Graph`.
        layers: that it runs, in the model's order.
        shape: of the image ``[*space, c]``; None along an axis of any length.
    """

    graph: dict[str, Any]
    layers: tuple[Layer, ...]
    shape: tuple[int | None, ...]


def listed(model: Mapping[str, Any], around: tuple[str, ...] = ()) -> Iterator[Layer]:
    """Every layer of a model and of the models in it, in order."""
    for entry in entries(model):
        name = entry["config"]["name"]
        if entry["class_name"] in MODELS:
            yield from listed(entry, (*around, name))
        elif entry["class_name"] != "InputLayer":
            yield Layer(name, entry["class_name"], entry["config"], around)


def check_layers(layers: Sequence[Layer]) -> None:
    """Refuse a model with layers, or settings of them, that have no rule.

    Raises:
        NotImplementedError: all of them are named.
    """
    known = rules()
    problems = [f"layer {each.name!r} is a {each.kind}{_own(each.kind)}" for each in layers if each.kind not in known]
    for each in layers:
        problems += [] if each.kind not in known else _settings(each)
    if problems:
        raise NotImplementedError(
            f"The Keras model has layers that have no rule in JAX: {'; '.join(problems)}. Take them out or write them "
            "with other layers and save the model again, or add a rule to jaxsal/graph/keras/rules.py; those that "
            f"exist: {', '.join(sorted(known))}."
        )


def _own(kind: str) -> str:
    return " (a class of somebody's own, whose code is not in the file)" if ">" in kind else ""


@told("The configuration of the Keras model")
def network(model: Mapping[str, Any], weights: Callable[[str], Mapping[str, str]]) -> Network:
    """A model as a graph.

    Args:
        model: its configuration, ``{"class_name": ..., "config": ...}``.
        weights: of a layer's name, for what its rule calls them, the paths of its weights.

    Raises:
        NotImplementedError: if layers have no rule.
        ValueError: if the model has several inputs or outputs, or layers that are called in unusual ways.
    """
    layers = tuple(listed(model))
    check_layers(layers)
    writer = _Writer(weights)
    output = writer.model(model, ({"node": "image"},), ())
    return Network(write("keras", "image", writer.nodes, output), layers, _shape(model))


class _Writer:
    """Collects operations, nested models written out."""

    def __init__(self, weights: Callable[[str], Mapping[str, str]]):
        self.weights = weights
        self.nodes: list[Node] = []
        self.names: set[str] = set()
        self.calls = 0

    def model(self, model: Mapping[str, Any], inputs: Sequence[Any], around: tuple[str, ...]) -> Any:
        if model["class_name"] == "Sequential":
            (value,) = inputs
            for entry in entries(model):
                if entry["class_name"] != "InputLayer":
                    value = self.call(entry, [value], around)
            return value
        config = model["config"]
        starts = [_history(each)[0] for each in _many(config["input_layers"])]
        ends = [_history(each) for each in _many(config["output_layers"])]
        if len(starts) != len(inputs) or len(ends) != 1:
            raise KerasError(
                f"The Keras model {config.get('name')!r} has {len(starts)} inputs and {len(ends)} outputs; one image "
                "in and one array out are needed: build a Model of those and save it."
            )
        values = {(name, 0): value for name, value in zip(starts, inputs, strict=True)}
        waiting = [
            (entry, number, [_history(each) for each in call])
            for entry in entries(model)
            for number, call in enumerate(_calls(entry))
            if entry["class_name"] != "InputLayer"
        ]
        while waiting:
            ready = [each for each in waiting if all(key in values for key in each[2])]
            if not ready:
                names = ", ".join(each[0]["config"]["name"] for each in waiting)
                raise KerasError(f"The layers {names} of the Keras model read values that none computes.")
            for entry, number, sources in ready:
                name = entry["config"]["name"]
                values[name, number] = self.call(entry, [values[key] for key in sources], around, number)
            waiting = [each for each in waiting if each not in ready]
        return values[ends[0]]

    def call(self, entry: Mapping[str, Any], inputs: list[Any], around: tuple[str, ...], number: int = 0) -> Any:
        name, kind = entry["config"]["name"], entry["class_name"]
        self.calls += 1
        if self.calls > _CALLS:
            raise KerasError(
                f"The Keras model has more than {_CALLS} operations, with the models in it written out at every call: "
                "it is damaged, or made to fill the memory. Build a Model of fewer layers and save it."
            )
        if kind in MODELS:
            return self.model(entry, inputs, (*around, name))
        layer = Layer(name, kind, entry["config"], around)
        tag = name if name not in self.names else f"{name}@{number or len(self.nodes)}"
        self.names.add(tag)
        kwargs = options(layer) | {key: {"weight": path} for key, path in self.weights(layer.name).items()}
        self.nodes.append(Node(tag, kind, tuple(inputs), tuple(kwargs.items()), (tag,)))
        return {"node": tag}


def options(layer: Layer) -> dict[str, Any]:
    """What of a layer's configuration its rule takes."""
    config = layer.config
    if layer.kind == "LeakyReLU":
        return {"negative_slope": config.get("negative_slope", config.get("alpha", 0.3))}
    if layer.kind == "ELU":
        return {"activation": "elu"}
    kept = {key: config[key] for key in _OPTIONS.get(_family(layer.kind), ()) if config.get(key) is not None}
    if "activation" in kept:
        kept["activation"] = _activation(kept["activation"])
    if layer.kind in ("BatchNormalization", "LayerNormalization"):
        kept["axis"] = _flat(config.get("axis", -1))[0]
    return kept


def _settings(layer: Layer) -> list[str]:
    config, where = layer.config, f"layer {layer.name!r} ({layer.kind})"
    problems = []
    for key, values in _NEEDED.items():
        if config.get(key) not in values:
            problems.append(f"{where} has {key} {config[key]!r}")
    if "Conv" in layer.kind and config.get("padding") not in ("valid", "same"):
        problems.append(f"{where} has padding {config.get('padding')!r}")
    if "Transpose" in layer.kind and set(_flat(config.get("dilation_rate", 1))) != {1}:
        problems.append(f"{where} has dilation_rate {config['dilation_rate']!r}")
    if "Normalization" in layer.kind:
        axes = _flat(config.get("axis", -1))
        if len(axes) != 1:
            problems.append(f"{where} normalises over the axes {axes}, one of channels is needed")
    name = _activation(config.get("activation", "linear"))
    if name not in ACTIVATIONS:
        problems.append(f"{where} has the activation {name!r}")
    if layer.kind == "ELU" and config.get("alpha", 1.0) != 1.0:
        problems.append(f"{where} has alpha {config['alpha']}")
    return problems


def _activation(value: Any) -> str:
    """Its name: Keras writes it as such, or as an object; functions of ``builtins`` have a name and nothing else."""
    if isinstance(value, Mapping):
        inner, kind = value.get("config"), value.get("class_name")
        if kind == "function" and isinstance(inner, str) and value.get("registered_name") in (None, kind, inner):
            return inner
        return _class({"class_name": "?", **value})
    return value or "linear"


def _class(entry: Mapping[str, Any]) -> str:
    """Name of a class; one of somebody's own has its package before it, ``package>name``, and no rule.

    Example:
        >>> _class({"class_name": "Conv2D", "module": "keras.layers", "registered_name": None})
        'Conv2D'
        >>> _class({"class_name": "Conv2D", "module": None, "registered_name": "lab>Conv2D"})
        'lab>Conv2D'
        >>> _class({"class_name": "Conv2D", "module": "lab.layers", "registered_name": "Conv2D"})
        'lab.layers>Conv2D'
    """
    name, registered = entry["class_name"], entry.get("registered_name")
    if registered not in (None, name):
        return str(registered)
    if "module" in entry and str(entry["module"]).partition(".")[0] not in _KERAS:
        return f"{entry['module'] or '__main__'}>{name}"
    return name


def _family(kind: str) -> str:
    for rank in "123":
        kind = kind.replace(f"{rank}D", "")
    return kind


def entries(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Layers of a model as its configuration has them, each with its name, under the class that it really is of.

    Raises:
        KerasError: if they are not written as Keras writes them.
    """
    config = model["config"]
    found = config if isinstance(config, list) else config["layers"]  # of old Sequential models it is a list
    result = []
    for entry in found:
        name = entry["config"].get("name") or entry.get("name")
        if not isinstance(entry["class_name"], str) or not isinstance(name, str):
            raise KerasError(
                f"The Keras model has a layer with class {entry['class_name']!r} and name {name!r}, texts are needed: "
                "its configuration is damaged, save the model again."
            )
        result.append({**entry, "class_name": _class(entry), "config": {**entry["config"], "name": name}})
    return result


def check_model(model: Mapping[str, Any]) -> None:
    """Refuse what is not a model of layers.

    Raises:
        KerasError: if the class is another one.
    """
    kind = _class(model)
    if kind not in MODELS:
        raise KerasError(
            f"The Keras model is a {kind}; what such a class computes is not in its file. Build a Sequential or a "
            "functional Model of its layers and save that."
        )


def _many(values: Any) -> list[Any]:
    """Inputs or outputs: one history, or a list of them."""
    return [values] if values and isinstance(values[0], str) else list(values)


def _history(value: Any) -> tuple[str, int]:
    """Name of a layer and number of its call, from one of Keras's ways to write a value down."""
    if isinstance(value, Mapping):
        value = value["config"]["keras_history"]
    name, call, tensor = value[:3]
    if tensor:
        raise KerasError(f"The Keras model reads result {tensor} of layer {name!r}, layers here have one result each.")
    return name, call


def _calls(entry: Mapping[str, Any]) -> list[list[Any]]:
    """Of each call of a layer, the values that it reads."""
    found = []
    for call in entry.get("inbound_nodes", ()):
        if isinstance(call, Mapping):  # Keras 3
            found.append(list(_operands(entry, call)))
        else:
            found.append(_many(call))
    return found


def _operands(entry: Mapping[str, Any], call: Mapping[str, Any]) -> Iterator[Any]:
    """The values of the image that a call reads; numbers beside them would change what it does."""
    numbers = [value for value in _flat(call["args"]) if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers or "ops" in str(entry.get("module") or "").split("."):
        raise NotImplementedError(
            f"The Keras model computes {entry.get('class_name')} {entry['config'].get('name')!r}"
            f"{f' with the numbers {numbers}' if numbers else ''} outside a layer, for which there is no rule in JAX: "
            "write it as a layer (keras.layers.Rescaling, Add, ...) and save the model again."
        )
    yield from _tensors(call["args"])


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _shape(model: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Of the image, without the batch."""
    config = model["config"]
    candidates = [] if isinstance(config, list) else [config.get("build_input_shape")]
    for entry in entries(model):
        own = entry["config"]
        candidates += [own.get("batch_input_shape"), own.get("batch_shape")]
        if entry["class_name"] in MODELS:
            candidates.append((None, *_shape(entry)))
    found = [shape for shape in candidates if shape]
    if not found:
        raise KerasError("The Keras model does not say which shape its input has: give it an InputLayer, and save it.")
    shape = tuple(found[0][1:])
    if not shape or not all(n is None or (type(n) is int and n > 0) for n in shape):
        raise KerasError(
            f"The Keras model says that its input has shape {tuple(found[0])}; a batch, the image's axes and channels "
            "are needed: save the model again."
        )
    return shape


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
