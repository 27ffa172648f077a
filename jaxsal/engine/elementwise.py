"""Which operations work element by element."""

from typing import Any

from jaxsal.jaxpr import computed

_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "log2",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "one_minus_square", "optimization_barrier", "or",
    "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh",
))  # fmt: skip


def is_elementwise(eqn: Any) -> bool:
    """Whether every value that an operation computes depends on its operands' values at the same place only.

    A call does, if all that it is made of does; how it is differentiated is another question.

    Example:
        >>> import jax
        >>> [is_elementwise(eqn) for eqn in jax.make_jaxpr(lambda x: jax.nn.silu(x).sum())(jax.numpy.ones(2)).eqns]
        [True, False]
    """
    if eqn.primitive.name in _ELEMENTWISE:
        return True
    body = computed(eqn)
    return body is not None and all(
        _spreads_a_number(inner)
        or (is_elementwise(inner) and all(tuple(v.aval.shape) in ((), tuple(out.aval.shape)) for v in inner.invars))
        for inner in body[0].eqns
        for out in inner.outvars[:1]
    )


def _spreads_a_number(eqn: Any) -> bool:
    return eqn.primitive.name == "broadcast_in_dim" and eqn.invars[0].aval.shape == ()
