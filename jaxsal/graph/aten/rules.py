"""PyTorch's operations by name."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.graph.aten import convolving, elementwise, normalising, pooling, products, reducing, resizing, shaping
from jaxsal.graph.aten.elementwise import of_two, pointwise
from jaxsal.graph.aten.reducing import over_axes
from jaxsal.graph.laid import Laid

Rule = Callable[..., Any]


def rules() -> dict[str, Rule]:
    """Of each operation of ATen, without ``aten.`` and where one rule serves all of them without the overload."""
    return {
        **_layers(),
        **_activations(),
        **_arithmetic(),
        **_comparisons(),
        **_reductions(),
        **_shapes(),
        **_numbers(),
    }


def rule_of(table: dict[str, Rule], name: str) -> Rule | None:
    """The rule of an operation such as ``add.Tensor``, or None."""
    return table.get(name) or table.get(name.partition(".")[0])


def _layers() -> dict[str, Rule]:
    return {
        "convolution": convolving.convolution,
        "linear": products.linear,
        "addmm": products.addmm,
        "mm": products.matmul,
        "bmm": products.matmul,
        "matmul": products.matmul,
        "scaled_dot_product_attention": products.attention,
        "_native_batch_norm_legit_no_training": normalising.batch_norm,
        "group_norm": normalising.group_norm,
        "native_group_norm": normalising.native_group_norm,
        "instance_norm": normalising.instance_norm,
        "layer_norm": normalising.layer_norm,
        "native_layer_norm": normalising.native_layer_norm,
        **dict.fromkeys(
            ("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"), pooling.max_pool
        ),
        **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), pooling.avg_pool),
        **dict.fromkeys(
            (
                "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
                "_adaptive_avg_pool3d",
            ),
            pooling.adaptive_avg_pool,
        ),
        **dict.fromkeys(
            ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), pooling.adaptive_max_pool
        ),
        **{f"upsample_{kind}.vec": resizing.linear for kind in ("linear1d", "bilinear2d", "trilinear3d")},
        **{f"upsample_nearest{rank}d.vec": resizing.nearest for rank in (1, 2, 3)},
        **{f"_upsample_nearest_exact{rank}d.vec": resizing.nearest_exact for rank in (1, 2, 3)},
        "pixel_shuffle": resizing.pixel_shuffle,
        "native_dropout": elementwise.native_dropout,
        "dropout": elementwise.dropout,
        "feature_dropout": elementwise.dropout,
    }  # fmt: skip


def _activations() -> dict[str, Rule]:
    plain = {
        "relu": jax.nn.relu,
        "relu6": jax.nn.relu6,
        "silu": jax.nn.silu,
        "mish": jax.nn.mish,
        "selu": jax.nn.selu,
        "sigmoid": jax.nn.sigmoid,
        "log_sigmoid": jax.nn.log_sigmoid,
        "tanh": jnp.tanh,
        "hardswish": jax.nn.hard_swish,
        "hardsigmoid": jax.nn.hard_sigmoid,
        "softsign": jax.nn.soft_sign,
    }
    return {
        **{name: pointwise(fn) for name, fn in plain.items()},
        "leaky_relu": elementwise.leaky_relu,
        "elu": elementwise.elu,
        "celu": lambda x, alpha=1.0: Laid(jax.nn.celu(x.array, alpha), x.order),
        "gelu": elementwise.gelu,
        "prelu": elementwise.prelu,
        "_prelu_kernel": elementwise.prelu,
        "hardtanh": elementwise.hardtanh,
        "softplus": elementwise.softplus,
        "clamp": elementwise.clamp,
        "clamp_min": elementwise.clamp,
        "clamp_max": lambda x, high: elementwise.clamp(x, None, high),
        "_softmax": reducing.softmax,
        "softmax": reducing.softmax,
        "_log_softmax": reducing.log_softmax,
        "log_softmax": reducing.log_softmax,
    }


def _arithmetic() -> dict[str, Rule]:
    one = {
        "neg": operator.neg,
        "abs": jnp.abs,
        "exp": jnp.exp,
        "expm1": jnp.expm1,
        "log": jnp.log,
        "log1p": jnp.log1p,
        "log2": jnp.log2,
        "log10": jnp.log10,
        "sqrt": jnp.sqrt,
        "rsqrt": lax.rsqrt,
        "square": jnp.square,
        "reciprocal": jnp.reciprocal,
        "sin": jnp.sin,
        "cos": jnp.cos,
        "tan": jnp.tan,
        "atan": jnp.arctan,
        "sinh": jnp.sinh,
        "cosh": jnp.cosh,
        "erf": lax.erf,
        "floor": jnp.floor,
        "ceil": jnp.ceil,
        "round": jnp.round,
        "trunc": jnp.trunc,
        "sign": jnp.sign,
    }
    return {
        **{name: pointwise(fn) for name, fn in one.items()},
        "add": elementwise.scaled_sum(1),
        "sub": elementwise.scaled_sum(-1),
        "rsub": lambda a, b, alpha=1: elementwise.scaled_sum(-1)(b, a, alpha),
        "mul": of_two(operator.mul),
        "div": elementwise.divide,
        "pow": elementwise.power,
        "maximum": of_two(jnp.maximum),
        "minimum": of_two(jnp.minimum),
        "max.other": of_two(jnp.maximum),
        "min.other": of_two(jnp.minimum),
        "where": elementwise.where,
        "masked_fill": lambda x, mask, value: elementwise.where(mask, value, x),
    }


def _comparisons() -> dict[str, Rule]:
    two = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq}
    logic = {"logical_and": jnp.logical_and, "logical_or": jnp.logical_or, "ne": operator.ne}
    return {
        **{name: of_two(fn) for name, fn in (two | logic).items()},
        "logical_not": pointwise(jnp.logical_not),
        "bitwise_not": pointwise(jnp.bitwise_not),
    }


def _reductions() -> dict[str, Rule]:
    variances = {
        "correction": reducing.variance,
        "dim": reducing.variance_over_axes,
        "default": reducing.variance_of_all,
    }
    return {
        "sum": over_axes(jnp.sum),
        "mean": over_axes(jnp.mean),
        "amax": over_axes(jnp.max),
        "amin": over_axes(jnp.min),
        "max.default": over_axes(jnp.max),
        "min.default": over_axes(jnp.min),
        "max.dim": reducing.extreme_over_axis(jnp.max),
        "min.dim": reducing.extreme_over_axis(jnp.min),
        "prod": over_axes(jnp.prod),
        "logsumexp": over_axes(jax.nn.logsumexp),
        **{f"var.{overload}": rule for overload, rule in variances.items()},
        **{f"std.{overload}": reducing.rooted(rule) for overload, rule in variances.items()},
        "linalg_vector_norm": reducing.norm,
    }


def _shapes() -> dict[str, Rule]:
    same = ("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "lift_fresh", "detach_", "positive")
    return {
        **dict.fromkeys(same, elementwise.same),
        "_to_copy": elementwise.cast,
        "to": elementwise.cast,
        **dict.fromkeys(("view", "reshape", "_unsafe_view"), shaping.view),
        "flatten": shaping.flatten,
        "permute": shaping.permute,
        "transpose": shaping.transpose,
        "t": shaping.matrix_transpose,
        "unsqueeze": shaping.unsqueeze,
        "squeeze": shaping.squeeze,
        "expand": shaping.expand,
        "repeat": shaping.repeat,
        "select": shaping.select,
        "slice": shaping.take_slice,
        "split_with_sizes": shaping.split_sizes,
        "split": shaping.split,
        "chunk": shaping.chunk,
        "unbind": shaping.unbind,
        "cat": shaping.concatenate,
        "stack": shaping.stack,
        "flip": shaping.flip,
        "roll": shaping.roll,
        "constant_pad_nd": shaping.pad_constant,
        "pad": shaping.pad,
        **{f"reflection_pad{rank}d": shaping.pad_reflected for rank in (1, 2, 3)},
        **{f"replication_pad{rank}d": shaping.pad_replicated for rank in (1, 2, 3)},
        "full": products.full,
        "full_like": products.full_like,
        "zeros": lambda shape, dtype=None: products.full(shape, 0.0, dtype),
        "ones": lambda shape, dtype=None: products.full(shape, 1.0, dtype),
        "zeros_like": lambda x, dtype=None: products.full_like(x, 0, dtype),
        "ones_like": lambda x, dtype=None: products.full_like(x, 1, dtype),
        "arange": products.arange,
        "scalar_tensor": lambda value, dtype=None: products.full((), value, dtype),
    }


def _numbers() -> dict[str, Rule]:
    """What is computed of sizes, and picks one of several results."""
    names = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "eq", "ne", "lt", "le", "gt", "ge")
    return {
        **{f"operator.{name}": _of_numbers(getattr(operator, name)) for name in names},
        "operator.getitem": lambda parts, place: tuple(parts)[operator.index(place)],
        "sym_size": lambda x, axis: x.shape[axis],
        "sym_float": float,
    }


def _of_numbers(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Of sizes alone: texts and lists would be repeated, and powers of any size computed."""

    def rule(*numbers: float) -> Any:
        if not all(isinstance(number, int | float) and abs(number) < 2**63 for number in numbers):
            raise TypeError(f"numbers of up to 63 bits are needed, not {numbers!r:.100}")
        if fn is operator.pow and isinstance(numbers[1], int) and abs(numbers[1]) > 63:
            raise ValueError(f"a power of {numbers[1]} is not one of a size")
        return fn(*numbers)

    return rule
