"""What element-wise operations amount to, however they are written: ReLUs, gates, reciprocals."""

from collections.abc import Sequence
from typing import Any

import jax.core
import jax.numpy as jnp

from jaxsal.engine.program import Step
from jaxsal.engine.values import Affine, Known, Pointwise, Unit, Value, shape_of

_GATES = frozenset(("logistic", "hard_sigmoid", "reciprocal", "rsqrt"))
_NONNEGATIVE = frozenset(
    ("relu", "relu6", "exp", "exp2", "logistic", "abs", "sqrt", "square", "softplus", "hard_sigmoid")
)


def compared(step: Step, operands: Sequence[Any]) -> Value | None:
    """The value of the image that a comparison finds above 0, or 0 and above."""
    if step.name in ("gt", "ge") and getattr(operands[1], "number", None) == 0:
        return operands[0]
    if step.name in ("lt", "le") and getattr(operands[0], "number", None) == 0:
        return operands[1]
    return None


def rectifier(step: Step, operands: Sequence[Any]) -> Step | None:
    """An operation that is a ReLU, a maximum with 0, or a choice or a product by the sign, as JAX's; None for others.

    JAX's has the derivative 0 at 0, where those have 1/2 or 1.
    """
    known = [operand for operand in operands if isinstance(operand, Known)]
    values = [operand for operand in operands if not isinstance(operand, Known)]
    if len(values) != 1 or step.avals[0].shape != shape_of(values[0]):
        return None
    if step.name == "max":
        rectifies = known[0].number == 0
    elif step.name == "mul":
        rectifies = known[0].above is values[0]
    else:
        rectifies = step.name == "select_n" and known[0].above is values[0] is operands[-1] and known[1].number == 0
    place = next(i for i, operand in enumerate(operands) if operand is values[0])
    return step._replace(call=lambda *arrays: [jax.nn.relu(arrays[place])]) if rectifies else None


def operation(step: Step, operands: Sequence[Any]) -> str:
    """Name of an element-wise operation; what is cut off is a ReLU6, and what is divided by a reciprocal."""
    numbers = [getattr(operand, "number", None) for operand in operands]
    if step.name == "clamp" and numbers[0] == 0 and numbers[2] is not None:
        return "relu6"
    power = {"integer_pow": step.params.get("y"), "pow": numbers[-1]}.get(step.name)
    if (step.name == "div" and isinstance(operands[0], Known)) or (power is not None and power < 0):
        return "reciprocal"
    return step.name


def is_nonnegative(name: str) -> bool:
    """Whether what an operation gives cannot be below 0."""
    return name in _NONNEGATIVE


def is_gate(value: Value) -> bool:
    """Whether a value is a weight of something else: a sigmoid, a softmax, a reciprocal; also scaled and shifted."""
    return value.steps[-1] in _GATES if isinstance(value, Pointwise) else value.gate


def is_exponential(value: Value) -> bool:
    """Whether a value is an exponential, of which a softmax is made."""
    return value.steps[-1] == "exp" if isinstance(value, Pointwise) else isinstance(value, Unit) and value.exponential


def ends_rectified(value: Any) -> bool:
    """Whether the last that was done to a value was a ReLU, scales and shifts aside."""
    if isinstance(value, Affine) and value.diagonal and value.unit is None:
        return ends_rectified(value.source)
    return isinstance(value, Pointwise) and value.unit is None and value.steps[-1] == "relu"


def number_of(value: Any) -> float | None:
    """A single number that is written into the program."""
    return None if isinstance(value, jax.core.Tracer) or jnp.ndim(value) != 0 else float(value)
