"""What a program's values are known to be: constants, and values of the image as far as they have been computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax


class Known(NamedTuple):
    """A value that does not depend on the image, or is taken for one that does not.

    Attributes:
        value: of it.
        name: of the layer whose weight it is or was made of.
        learned: whether a weight of the network went into it.
        counted: whether positions did, as into the weights of an interpolation.
        follows: whether it was computed from the image all the same.
        compact: the same with the axes along which it repeats of size 1, where that is known.
        gate: whether it is a gate, held constant.
        number: what it is everywhere, where that is written into the program.
        above: the value of the image that it says of where it is above 0, or 0 and above.
        root: the unit that it follows from place by place, where it follows from no other.
        statistic: the site at which it is held.
    """

    value: Any
    name: str = ""
    learned: bool = False
    counted: bool = False
    follows: bool = False
    compact: Any = None
    gate: bool = False
    number: float | None = None
    above: Any = None
    root: Any = None
    statistic: Any = None


@dataclass(eq=False)
class Unit:
    """A value that has been computed, with the backward pass of its site attached.

    Attributes:
        value: the array.
        parents: units that relevance goes to from here.
        origins: units that nothing else but the program went into this value by element-wise operations, averages and
            moves.
        statistics: units that it is a statistic of: an average or a maximum over whole axes lies between.
        weighted: whether a convolution or a dense layer lies before it.
        nonnegative: whether it cannot be below 0.
        gate: whether it is a weight of something else, by a sigmoid, a softmax or a reciprocal.
        exponential: whether it is an exponential, of which a softmax is made.
        site: index of the site that computed it, or None.
    """

    value: jax.Array
    parents: tuple["Unit", ...] = ()
    origins: frozenset[int] = frozenset()
    statistics: frozenset[int] = frozenset()
    weighted: bool = False
    nonnegative: bool = False
    gate: bool = False
    exponential: bool = False
    site: int | None = None


@dataclass(frozen=True)
class Linear:
    """An operation that is linear in the image's part and in the weights.

    Attributes:
        kind: of its site.
        operation: in JAX's words.
        forward: ``(a, weights) -> z``, without bias.
        fold: ``(weights, scale) -> weights`` for a scale of the output, or None where it is not one per channel.
        reduces: whether it sums over whole axes.
    """

    kind: str
    operation: str
    forward: Callable[[jax.Array, Any], jax.Array]
    fold: Callable[[Any, jax.Array], Any]
    reduces: bool = False


@dataclass(eq=False)
class Affine:
    """A linear operation whose scale and shift are still being collected.

    Attributes:
        source: what it is applied to.
        linear: the operation.
        weights: of it, scales multiplied in.
        bias: shifts so far, or None.
        aval: shape and dtype of the output.
        name: of the layer, or empty.
        step: the operation in the program.
        gate: see :class:`Unit`.
        statistics: sites at which something was held that went into the weights and the bias.
        unit: the computed value, once it was asked for.
    """

    source: "Value"
    linear: Linear
    weights: Any
    bias: Any
    aval: Any
    name: str
    step: Any
    gate: bool = False
    statistics: tuple[Unit, ...] = ()
    unit: Unit | None = None

    @property
    def diagonal(self) -> bool:
        """Whether it works element by element."""
        return self.linear.kind == "affine"


@dataclass(eq=False)
class Pointwise:
    """Element-wise operations on one value, not yet an activation of its own.

    Attributes:
        root: the value.
        value: the result, with its plain derivative by the root's.
        before: what a chain of unary operations started from, and
        replay: these operations; None where operations met.
        step: the last operation in the program.
        steps: names of the non-linear operations so far.
        nonnegative: see :class:`Unit`.
        unit: the computed value, once it was asked for.
    """

    root: Unit
    value: jax.Array
    before: Affine | None
    replay: Callable[[jax.Array], jax.Array] | None
    step: Any
    steps: tuple[str, ...] = ()
    nonnegative: bool = False
    unit: Unit | None = field(default=None)


Value = Unit | Affine | Pointwise


def shape_of(value: Value) -> tuple[int, ...]:
    """Of the array, also where that is not computed yet."""
    return tuple(value.aval.shape) if isinstance(value, Affine) else value.value.shape


def dtype_of(value: Value) -> Any:
    """Of the array, also where that is not computed yet."""
    return value.aval.dtype if isinstance(value, Affine) else value.value.dtype


def origins_of(value: Value) -> frozenset[int]:
    """See :class:`Unit`."""
    if isinstance(value, Unit):
        return value.origins
    if value.unit is not None:
        return value.unit.origins
    if isinstance(value, Affine):
        return origins_of(value.source) if value.diagonal else frozenset()
    return value.root.origins


def statistics_of(value: Value) -> frozenset[int]:
    """See :class:`Unit`."""
    if isinstance(value, Unit):
        return value.statistics
    if isinstance(value, Pointwise):
        return value.root.statistics
    if value.linear.kind not in ("affine", "average"):
        return frozenset()
    below = statistics_of(value.source)
    return below | origins_of(value.source) if value.linear.reduces else below
