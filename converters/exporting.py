"""Any PyTorch module as a JAX network: exported as a graph of core operations, written as data."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxsal.graph.aten.convolving import stored_kernel
from jaxsal.graph.aten.products import stored_weight
from jaxsal.graph.aten.rules import rule_of, rules
from jaxsal.graph.program import Node, write
from jaxsal.zoo import Output

from .building import build, default_layer
from .checking import Conversion, compare, described, random_images
from .tagging import layer_tags

if TYPE_CHECKING:
    import torch

# taken apart, these would hide what they are: a normalisation of single images, an activation, a dense layer
_KEPT = (
    "linear", "instance_norm", "group_norm", "layer_norm", "hardswish", "hardsigmoid", "silu", "mish", "softplus",
    "gelu", "log_sigmoid", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "prelu", "leaky_relu",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "scaled_dot_product_attention",
    "upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec", "upsample_linear1d.vec",
    "upsample_bilinear2d.vec", "upsample_trilinear3d.vec", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "pixel_shuffle", "selu", "celu", "relu6", "std",
    "roll", "pad",
    "_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec", "_upsample_nearest_exact3d.vec",
)  # fmt: skip
# what has no result that matters
_ASSERTIONS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range")
# of these only the first result is computed
_FIRST_ONLY = ("max_pool", "adaptive_max_pool", "max.dim", "min.dim", "native_", "_native_")
# what says where and how values lie, not what they are
_SETTINGS = frozenset(("layout", "device", "pin_memory", "non_blocking", "memory_format"))


class _Stored(NamedTuple):
    kind: str
    array: np.ndarray


class _Layout(NamedTuple):
    """How a weight is stored: as it is, as a ``"kernel"`` or as the matrix of a ``"dense"`` layer."""

    kind: str = ""
    transposed: bool = False
    groups: int = 1


_PLAIN = _Layout()


def from_torch(
    module: "torch.nn.Module",
    example: Any,
    *,
    name: str | None = None,
    outputs: Sequence[str | Output] | None = None,
    images: Sequence[Any] = (),
    tolerance: float = 1e-4,
) -> Conversion:
    """A PyTorch module in JAX, with its weights, proven equal.

    The module is exported by ``torch.export`` as a graph of ATen's core operations. These run in JAX, channels last
    inside, so that splits, masks and the engine of relevance work on the network as on any other. Every layer whose
    output is one array has its name from the module (``"features.3"``) as a tag for :func:`jaxsal.split`.

    Args:
        module: in evaluation mode; takes one tensor ``[b, c, *space]`` and returns one, ``[b, k]`` or
            ``[b, k, *space]``.
        example: a tensor of PyTorch ``[b, c, *space]``, or an array ``[b, *space, c]``; the network is converted for
            this grid and any batch size.
        name: of the network; its class's otherwise.
        outputs: names of the outputs, or what they are.
        images: more images ``[b, *space, c]`` for the check, real ones best.
        tolerance: see :func:`jaxsal.converters.checking.compare`; noise and the example are checked too.

    Returns:
        Network, record and the largest difference.

    Raises:
        NotImplementedError: if operations have no rule: all are named, with their lines.
        ValueError: if the module is in training mode, takes or returns something else, cannot be exported, or the
            check fails.
    """
    import torch

    name, origin = name or type(module).__name__, {"source": f"PyTorch {torch.__version__}, {type(module).__name__}"}
    _check_mode(module)
    if small := _small_dtypes(module):
        # 16 bits would round every value on its way, each framework in its own manner
        module, origin = copy.deepcopy(module).float(), origin | {"weights": f"{', '.join(small)}, as float32"}
    sample = _tensor(module, example)
    program = _exported(module, sample, name)
    graph, weights, unused = _translated(program, name)
    shape, channels = tuple(sample.shape[2:]), int(sample.shape[1])
    config = {"graph": graph, "weights": {p: _about(w) for p, w in weights.items()}}

    def source(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = module(_tensor(module, image))
        return np.moveaxis(_numpy(out), 1, -1) if out.ndim > 2 else _numpy(out)

    first = np.moveaxis(_numpy(sample), 1, -1)
    count = source(first[:1]).shape[-1]
    model = build(count, shape, channels, config, {path: weight.array for path, weight in weights.items()})
    compared = compare(
        model, source, [random_images(shape, channels), first, *map(np.asarray, images)], tolerance, name
    )
    record = described(
        name, "Graph", config, shape, channels, outputs, count, default_layer(model, shape, channels), origin
    )  # fmt: skip
    return Conversion(model, record, *compared, unused)


def _check_mode(module: "torch.nn.Module") -> None:
    training = [path or "the module" for path, part in module.named_modules() if part.training]
    if training:
        raise ValueError(
            f"The network is in training mode ({', '.join(training[:3])}{' and more' if len(training) > 3 else ''}): "
            "dropout and BatchNorm would not do what they do when it predicts. Call module.eval() first."
        )


def _small_dtypes(module: "torch.nn.Module") -> list[str]:
    """Those of weights that have fewer than 32 bits."""
    weights = [*module.parameters(), *module.buffers()]
    return sorted({str(w.dtype).removeprefix("torch.") for w in weights if _is_small(w)})


def _is_small(tensor: "torch.Tensor") -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


def _numpy(tensor: "torch.Tensor") -> np.ndarray:
    return (tensor.float() if _is_small(tensor) else tensor).detach().cpu().numpy()


def _tensor(module: "torch.nn.Module", example: Any) -> "torch.Tensor":
    import torch

    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    if not isinstance(example, torch.Tensor):
        example = torch.from_numpy(np.moveaxis(np.array(example), -1, 1).copy())
    if example.ndim < 3:
        raise ValueError(
            f"The example has shape {tuple(example.shape)}, an image is needed: a tensor [b, c, *space], or an array "
            "[b, *space, c]."
        )
    return example.detach().to(device=like.device, dtype=like.dtype)


def _exported(module: "torch.nn.Module", sample: "torch.Tensor", name: str) -> Any:
    import torch

    # of one image PyTorch would take the batch for a constant
    batch = torch.cat([sample, sample])[:2]
    table = torch.export.default_decompositions()
    for op in _KEPT:
        base, _, overload = op.partition(".")
        packet = getattr(torch.ops.aten, base, None)
        for each in ([overload] if overload else packet.overloads()) if packet else ():
            table.pop(getattr(packet, each), None)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # PyTorch's about itself
            exported = torch.export.export(module, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            return exported.run_decompositions(table)
    except Exception as error:
        raise ValueError(
            f"PyTorch cannot export {name} as one graph: {type(error).__name__}: {str(error).strip()[:1500]}\nThe "
            "module must take one tensor, not branch on its values, and leave the batch size free (x.shape[0], or -1 "
            "in view). Rewrite such a line, or convert the part of the network without it."
        ) from error


def _translated(program: Any, name: str) -> tuple[dict[str, Any], dict[str, _Stored], tuple[str, ...]]:
    """The graph as data, the weights that it reads, and the names of those that it does not."""
    found = [node for node in program.graph.nodes if node.op == "call_function" and _op(node) not in _ASSERTIONS]
    found = [node for node in found if not _op(node).startswith(_ASSERTIONS)]
    _check_operations(found, name)
    image, output, paths = _signature(program, name)
    _check_weights(found, paths)
    tags = layer_tags(found, output)
    arrays = {**dict(program.state_dict), **dict(program.constants)}
    used: dict[str, _Stored] = {}

    stored: dict[tuple[str, _Layout], str] = {}

    def operand(value: Any, layout: _Layout = _PLAIN) -> Any:
        import torch

        if isinstance(value, torch.fx.Node):
            if value.name not in paths:
                return {"node": value.name}
            kind, path = paths[value.name]
            if (path, layout) not in stored:
                # a weight that several operations use is stored once for each way in which they take it
                ways = sum(each == path for each, _ in stored)
                stored[path, layout] = f"{path}@{ways}" if ways else path
                used[stored[path, layout]] = _Stored(kind, _laid(_numpy(arrays[path]), layout))
            return {"weight": stored[path, layout]}
        if isinstance(value, list | tuple):
            return [operand(each) for each in value]
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, float) and not np.isfinite(value):
            return {"number": str(value)}
        return value if isinstance(value, bool | int | float | str) else None

    nodes = [
        Node(
            node.name,
            _op(node),
            tuple(operand(arg, _layout(node) if i == 1 else _PLAIN) for i, arg in enumerate(node.args)),
            tuple((key, operand(arg)) for key, arg in node.kwargs.items() if arg is not None and key not in _SETTINGS),
            tags.get(node.name, ()),
        )
        for node in found
    ]
    graph = write("aten", image, nodes, operand(output))
    unused = tuple(sorted(set(arrays) - {path for path, _ in stored}))
    return graph, used, unused


def _op(node: Any) -> str:
    import torch

    if isinstance(node.target, torch._ops.OpOverload):
        namespace, _, rest = str(node.target).partition(".")
        return rest if namespace == "aten" else str(node.target)
    return f"operator.{getattr(node.target, '__name__', node.target)}".replace("_operator.", "")


def _check_operations(nodes: Sequence[Any], name: str) -> None:
    table = rules()
    missing = [node for node in nodes if rule_of(table, _op(node)) is None]
    random = [node for node in nodes if "dropout" in _op(node) and len(node.args) > 2 and node.args[2]]
    seconds = [
        node
        for node in nodes
        if _op(node) == "operator.getitem" and node.args[1] != 0 and _op(node.args[0]).startswith(_FIRST_ONLY)
    ]
    if not missing and not seconds and not random:
        return
    lines = [f"  {_op(node)} at {_place(node)}" for node in missing]
    lines += [f"  result {node.args[1]} of {_op(node.args[0])} at {_place(node.args[0])}" for node in seconds]
    lines += [f"  {_op(node)} at {_place(node)}, which draws numbers whenever the network predicts" for node in random]
    raise NotImplementedError(
        f"{name} uses operations of PyTorch that have no rule in JAX:\n" + "\n".join(dict.fromkeys(lines)) + "\n"
        "Write these lines with other operations, or give a part of the network without them; rules are in "
        "jaxsal/graph/aten/rules.py, where one of your own can be added."
    )


def _place(node: Any) -> str:
    """``file:line`` in the user's own code, and the layer."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer = f" (layer {stack[-1][0]})" if stack and stack[-1][0] else ""
    files = [line.strip() for line in (node.stack_trace or "").splitlines() if line.strip().startswith('File "')]
    own = [line for line in files if "/torch/" not in line] or files
    if not own:
        return f"an unknown line{layer}"
    file, number = own[-1].split('"')[1], own[-1].split("line ")[1].partition(",")[0]
    return f"{file}:{number}{layer}"


def _signature(program: Any, name: str) -> tuple[str, Any, dict[str, tuple[str, str]]]:
    """Name of the image, the node of the output, and of every other input its kind and path."""
    import torch
    from torch.export.graph_signature import InputKind

    images, paths = [], {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            images.append(spec.arg.name)
        elif spec.target is not None:
            paths[spec.arg.name] = ("parameter" if spec.kind == InputKind.PARAMETER else "buffer", spec.target)
    (result,) = next(node for node in program.graph.nodes if node.op == "output").args
    changed = len(result) - sum(spec.kind.name == "USER_OUTPUT" for spec in program.graph_signature.output_specs)
    if changed:
        raise ValueError(f"{name} changes {changed} of its buffers when it predicts: a network for jaxsal must not.")
    if len(result) != 1 or not isinstance(result[0], torch.fx.Node):
        raise ValueError(
            f"{name} returns {len(result)} values, one tensor [b, k] is needed: wrap it in a module whose forward "
            "returns the one that is to be explained."
        )
    return images[0], result[0], paths


def _layout(node: Any) -> _Layout:
    """How JAX wants the weight of an operation, its second operand."""
    op = _op(node)
    if op.startswith("linear."):
        return _Layout("dense")
    if op.startswith("convolution."):
        transposed = bool(node.args[6])
        return _Layout("kernel", transposed, int(node.args[8]) if transposed else 1)
    return _PLAIN


def _check_weights(nodes: Sequence[Any], paths: Mapping[str, Any]) -> None:
    for node in nodes:
        if _layout(node) is not _PLAIN and node.args[1].name not in paths:
            raise NotImplementedError(
                f"The weights of {_op(node)} at {_place(node)} are computed: give them as a parameter of the layer "
                "(torch.nn.utils.parametrize.remove_parametrizations, or torch.nn.utils.remove_weight_norm)."
            )


def _laid(array: np.ndarray, layout: _Layout) -> np.ndarray:
    if layout.kind == "kernel":
        return np.ascontiguousarray(stored_kernel(array, layout.transposed, layout.groups))  # type: ignore[arg-type]
    if layout.kind == "dense":
        return np.ascontiguousarray(stored_weight(array))  # type: ignore[arg-type]
    return array


def _about(weight: _Stored) -> dict[str, Any]:
    dtype = "float32" if weight.array.dtype == np.float64 else str(weight.array.dtype)
    return {"kind": weight.kind, "shape": list(weight.array.shape), "dtype": dtype}
