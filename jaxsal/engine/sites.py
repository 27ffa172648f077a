"""What the rules of a modified backward pass get to see: sites, and linear layers at them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax

Kind = Literal["convolution", "dense", "affine", "average", "sum", "activation", "pool", "product", "statistic"]


class Site(NamedTuple):
    """A place of a network where a rule says how relevance goes backward.

    Attributes:
        index: position in the order of computation, from 0.
        kind: ``"convolution"``; ``"dense"``, any other product with weights; ``"affine"``, a scale and a shift for each
            channel or value that stand on their own, such as BatchNorm behind a ReLU; ``"average"``, sums and means
            over an axis or a window; ``"sum"`` of two values that both depend on the image; ``"activation"``;
            ``"pool"``, a maximum over a window, over whole axes or of two values; ``"product"`` of two values that both
            depend on the image; ``"statistic"``, what a value is only scaled or shifted by: what normalises it and was
            computed from it, a gate, a denominator.
        name: of the layer, from the path of its weights in the model; empty where it has none.
        operation: what computes it, in JAX's words.
        shape: of its output.
        first: whether the image reaches it without passing another convolution or dense site.
        source: ``file:line`` in the user's code.
    """

    index: int
    kind: Kind
    name: str
    operation: str
    shape: tuple[int, ...]
    first: bool
    source: str

    @property
    def weighted(self) -> bool:
        """Whether it is a layer with learned products: a convolution, or a dense one."""
        return self.kind in ("convolution", "dense")

    @property
    def linear(self) -> bool:
        """Whether its rule sees a :class:`Layer`: a weighted one, a scale and shift, or an average."""
        return self.weighted or self.kind in ("affine", "average")


Rule = Callable[..., Any]
Composite = Callable[[Site], Rule]


def gradient(*_: Any) -> Any:
    """The rule, for a site of any kind, to be differentiated as it is written."""
    raise TypeError(
        "gradient is a mark for the engine, which differentiates the site itself: return it, do not call it."
    )


class Pool(NamedTuple):
    """A max-pool as its rule ``(pool, x) -> out`` sees it.

    Attributes:
        forward: ``x -> out``; the first maximum of a window has its whole gradient.
        window: sizes, one per axis of ``x``; whole axes for a maximum over them.
        strides: one per axis.
        padding: (before, after) per axis.
        dilation: of the window, one per axis.
    """

    forward: Callable[[jax.Array], jax.Array]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


class Layer(NamedTuple):
    """A linear site as its rule sees it, ``z = forward(a, weights) + bias``.

    Attributes:
        a: the input, batch first.
        weights: with the scale of a BatchNorm that follows multiplied in.
        bias: its shift included; broadcasts to ``z``; 0 where there is none.
        z: the output.
        forward: ``(a, weights) -> z``, linear in both, without bias.
        nonnegative: whether the input cannot be below 0, because it comes from a ReLU.
    """

    a: jax.Array
    weights: Any
    bias: jax.Array
    z: jax.Array
    forward: Callable[[jax.Array, Any], jax.Array]
    nonnegative: bool

    def back(self, weights: Any, s: jax.Array) -> jax.Array:
        """What outputs give to inputs, ``forward(., weights)`` transposed: shaped like ``a``."""
        return jax.vjp(lambda a: self.forward(a, weights), self.a)[1](s)[0]


class Passage(NamedTuple):
    """A rule of a linear layer that is, like those of other sites, a function with a backward pass of its own.

    Attributes:
        fn: ``(forward, a, weights, bias) -> z``, see :class:`Layer`; ``z`` need not be what the network computes.
    """

    fn: Callable[..., jax.Array]

    def __call__(self, *given: Any) -> jax.Array:
        """Pass through the layer."""
        return self.fn(*given)


def linear(rule: Rule, forward: Callable[[jax.Array, Any], jax.Array], nonnegative: bool) -> Callable[..., jax.Array]:
    """A linear layer whose backward pass is a rule.

    Args:
        rule: ``(layer, r) -> r_in``: of the outputs' relevance, shaped like ``z``, the inputs', shaped like ``a``; or a
            :class:`Passage`.
        forward: ``(a, weights) -> z``.
        nonnegative: whether ``a`` is.

    Returns:
        ``(a, weights, bias) -> z``.
    """
    if isinstance(rule, Passage):
        return functools.partial(rule, forward)

    @jax.custom_vjp
    def call(a: jax.Array, weights: Any, bias: jax.Array) -> jax.Array:
        return forward(a, weights) + bias

    def fwd(a: jax.Array, weights: Any, bias: jax.Array):
        # not the function itself: what differentiates the relevance wants its derivative
        z = forward(a, weights) + bias
        return z, (a, weights, bias, z)

    def bwd(saved: Any, r: jax.Array):
        a, weights, bias, z = saved
        back = rule(Layer(a, weights, bias, z, forward, nonnegative), r)
        # weights have no relevance; nobody asks for it
        return back, None, None

    call.defvjp(fwd, bwd)
    return call


def hand_over(root: jax.Array, value: jax.Array, mend: Callable[[jax.Array], jax.Array] = lambda r: r) -> jax.Array:
    """``value``, whose relevance goes to ``root`` as it is, or mended, whatever computed one from the other.

    Example:
        >>> jax.grad(lambda z: hand_over(z, jax.numpy.tanh(z)))(3.0).item()
        1.0
    """

    @jax.custom_vjp
    def call(root: jax.Array, value: jax.Array) -> jax.Array:
        return value

    # nothing at all to the value: a product of 0 with its derivative may be no number
    call.defvjp(lambda root, value: (value, None), lambda _, r: (mend(r), None))
    return call(root, value)


def constant(value: jax.Array) -> jax.Array:
    """``value``, through which no relevance goes; a derivative of the relevance does.

    Example:
        >>> relevance = jax.grad(lambda x: x * constant(x))
        >>> relevance(3.0).item(), jax.grad(relevance)(3.0).item()
        (3.0, 1.0)
    """

    @jax.custom_vjp
    def call(value: jax.Array) -> jax.Array:
        return value

    call.defvjp(lambda value: (value, None), lambda _, r: (None,))
    return call(value)


def mended(value: jax.Array, mend: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """``value``, whose relevance is mended before it goes on along the derivative.

    Example:
        >>> jax.grad(lambda x: -2 * mended(x, jax.nn.relu))(1.0).item()
        0.0
    """

    @jax.custom_vjp
    def call(value: jax.Array) -> jax.Array:
        return value

    call.defvjp(lambda value: (value, None), lambda _, r: (mend(r),))
    return call(value)


def shared(parts: Sequence[jax.Array], share: Callable[..., Sequence[jax.Array]]) -> jax.Array:
    """The sum of some arrays, whose relevance a function shares between them.

    Args:
        parts: of one shape.
        share: ``(parts, total, r) -> relevances``, one for each part.

    Example:
        >>> def all_to_the_first(parts, total, r):
        ...     return r, 0 * r
        >>> [r.item() for r in jax.grad(lambda a: shared(a, all_to_the_first))([1.0, 2.0])]
        [1.0, 0.0]
    """

    def added(parts: Sequence[jax.Array]) -> jax.Array:
        return sum(parts[1:], start=parts[0])

    call = jax.custom_vjp(added)

    def fwd(parts: Sequence[jax.Array]):
        total = added(parts)
        return total, (parts, total)

    call.defvjp(fwd, lambda saved, r: (list(share(*saved, r)),))
    return call(list(parts))
