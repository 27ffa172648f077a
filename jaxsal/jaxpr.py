"""The two things jaxsal does with a traced function: look inside, and run one operation of it."""

from typing import Any, NamedTuple

import jax
import jax.core


class Traced(NamedTuple):
    """A function written out as operations.

    Attributes:
        jaxpr: the operations.
        consts: values the function closed over, for ``jaxpr.constvars``.
        tree: structure of what the function returns.
    """

    jaxpr: Any
    consts: list[Any]
    tree: Any


def trace(fn: Any, *args: Any) -> Traced:
    """Write a function out as operations on flat arguments.

    Args:
        fn: any JAX function.
        *args: pytrees of arrays; only shapes and dtypes matter.

    Example:
        >>> [eqn.primitive.name for eqn in trace(lambda x: 2 * x + 1, 3.0).jaxpr.eqns]
        ['mul', 'add']
    """
    # a new function each time: JAX remembers by object what it traced, and a network may have new weights in place
    closed, out = jax.make_jaxpr(lambda *args: fn(*args), return_shape=True)(*args)
    return Traced(closed.jaxpr, list(closed.consts), jax.tree.structure(out))


def is_literal(atom: Any) -> bool:
    """Whether an operand is written into the operation rather than computed."""
    return hasattr(atom, "val")


# calls that are nothing but their operations
_PLAIN = frozenset(("jit", "pjit", "closed_call", "core_call"))
# calls that also say how to differentiate: the operations alone would lose that
_RULED = frozenset(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat", "remat2", "checkpoint"))


def inner(eqn: Any) -> tuple[Any, list[Any]] | None:
    """The operations that may stand in place of a call (``jit``), with its constants.

    Returns:
        ``(jaxpr, consts)`` of a call whose operands are, in order, the inner operands; None for any other
        operation, calls with a derivative of their own (``custom_jvp``, ``custom_vjp``, ``remat``) included.
    """
    return _body(eqn) if eqn.primitive.name in _PLAIN else None


def computed(eqn: Any) -> tuple[Any, list[Any]] | None:
    """The operations by which a call gets its values, however it is differentiated; else as :func:`inner`."""
    return _body(eqn) if eqn.primitive.name in _PLAIN | _RULED else None


def _body(eqn: Any) -> tuple[Any, list[Any]]:
    body = next(eqn.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in eqn.params)
    return getattr(body, "jaxpr", body), list(getattr(body, "consts", ()))


def read(env: dict[Any, Any], atom: Any) -> Any:
    """Value of an operand."""
    return atom.val if is_literal(atom) else env[atom]


def bind(jaxpr: Any, eqn: Any, env: dict[Any, Any]) -> list[Any]:
    """Run one operation unchanged, however its parameters are spelled in this version of JAX."""
    operands = list(dict.fromkeys(atom for atom in eqn.invars if not is_literal(atom)))
    single = jaxpr.replace(
        constvars=[],
        invars=operands,
        eqns=[eqn],
        outvars=list(eqn.outvars),
        debug_info=_anonymous(jaxpr, operands, eqn),
    )
    return jax.core.eval_jaxpr(single, (), *(env[atom] for atom in operands))


def _anonymous(jaxpr: Any, operands: list[Any], eqn: Any) -> Any:
    # argument and result names must match the new signature in number
    return jaxpr.debug_info._replace(arg_names=("",) * len(operands), result_paths=("",) * len(eqn.outvars))
