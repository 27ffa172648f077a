"""A traced function as one straight list of operations, calls and loops written out."""

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal import jaxpr as tracing
from jaxsal.engine.elementwise import is_elementwise
from jaxsal.jaxpr import Traced, bind, computed, inner, is_literal

# a loop of more iterations than this is not a stack of layers, and would take minutes to compile
_MOST_ITERATIONS = 200

# plain calls that are kept as one operation, so that what they compute has a name
_ACTIVATIONS = frozenset((
    "celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid", "mish",
    "relu6", "selu", "silu", "soft_sign", "softplus", "sparse_plus", "squareplus", "swish",
))  # fmt: skip


class Given(NamedTuple):
    """A value that is known before the program runs.

    Attributes:
        value: of it.
        learned: whether it may be a weight: the function closed over it. What is written into the program is not.
    """

    value: Any
    learned: bool


Ref = int | Given


class Step(NamedTuple):
    """One operation.

    Attributes:
        name: of the primitive; of a call that is kept, the name of the function of JAX that was called, or ``relu``
            where that is what it computes. Functions of the user's have longer names.
        params: of the primitive.
        call: runs it: ``(*operands) -> list of results``.
        inputs: operands, by number or given.
        outputs: numbers of the results.
        avals: their shapes and dtypes.
        elementwise: whether every value of its results depends on the operands at the same place only.
        source: where in the user's code it stands, for :func:`line`.
    """

    name: str
    params: Mapping[str, Any]
    call: Callable[..., list[Any]]
    inputs: tuple[Ref, ...]
    outputs: tuple[int, ...]
    avals: tuple[Any, ...]
    elementwise: bool
    source: Any


class Program(NamedTuple):
    """Operations in order; those that the results do not depend on are left out.

    Attributes:
        inputs: numbers of the arguments.
        steps: the operations.
        outputs: the results, by number or given.
        readers: how many times each number is read, by an operation or as a result.
    """

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
    readers: Mapping[int, int]


def program(traced: Traced) -> Program:
    """Write out a traced function.

    Calls (``jit``, ``jax.checkpoint``, ``custom_jvp``, ``custom_vjp``) are replaced by what they compute, except those
    with a derivative of their own that work element by element, such as ``jax.nn.relu``, and the activations of
    ``jax.nn``; ``scan`` over layers is unrolled.

    Raises:
        NotImplementedError: if a ``scan`` has more than 200 iterations.

    Example:
        >>> from jaxsal.jaxpr import trace
        >>> [step.name for step in program(trace(lambda x: jax.nn.silu(jax.nn.relu(x)), 1.0)).steps]
        ['relu', 'silu']
    """
    writer = _Writer()
    numbers = writer.new(len(traced.jaxpr.invars))
    consts = [Given(value, learned=True) for value in traced.consts]
    outputs = tuple(writer.write(traced.jaxpr, [*consts], [*numbers]))
    steps, readers = _live(writer.steps, outputs)
    return Program(numbers, steps, outputs, readers)


class _Writer:
    """Collects operations under numbers that are never used twice."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.count = 0

    def new(self, count: int) -> tuple[int, ...]:
        first, self.count = self.count, self.count + count
        return tuple(range(first, self.count))

    def write(self, jaxpr: Any, consts: Sequence[Ref], args: Sequence[Ref], called_at: Any = None) -> list[Ref]:
        """Add a list of operations.

        Args:
            jaxpr: the operations.
            consts: what it closes over.
            args: what it is called with.
            called_at: where a library's function is called. JAX keeps such functions traced, with the first place that
                they were called from.
        """
        env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Ref:
            return Given(atom.val, learned=False) if is_literal(atom) else env[atom]

        for eqn in jaxpr.eqns:
            env.update(
                zip(eqn.outvars, self._write_one(jaxpr, eqn, tuple(map(read, eqn.invars)), called_at), strict=True)
            )
        return [read(atom) for atom in jaxpr.outvars]

    def _write_one(self, jaxpr: Any, eqn: Any, inputs: tuple[Ref, ...], called_at: Any) -> Sequence[Ref]:
        if eqn.primitive.name == "scan":
            return self._unroll(eqn, inputs)
        source = called_at or eqn.source_info
        body = computed(eqn)
        if body is not None and not _is_activation(eqn):
            consts = [Given(value, learned=True) for value in body[1]]
            return self.write(body[0], consts, inputs, called_at or (source if _of_library(body[0]) else None))
        return self._add(
            eqn.primitive.name if body is None else _called(eqn),
            eqn.params,
            functools.partial(_run, jaxpr, eqn),
            inputs,
            [var.aval for var in eqn.outvars],
            is_elementwise(eqn),
            source,
        )

    def _add(
        self,
        name: str,
        params: Mapping[str, Any],
        call: Callable[..., list[Any]],
        inputs: tuple[Ref, ...],
        avals: Sequence[Any],
        elementwise: bool,
        source: Any,
    ) -> tuple[int, ...]:
        outputs = self.new(len(avals))
        self.steps.append(Step(name, params, call, inputs, outputs, tuple(avals), elementwise, source))
        return outputs

    def _unroll(self, eqn: Any, inputs: tuple[Ref, ...]) -> Sequence[Ref]:
        p = eqn.params
        length = p["length"]
        if length > _MOST_ITERATIONS:
            raise NotImplementedError(
                f"A scan of {length} iterations at {line(eqn.source_info)} is too long to be written out as layers "
                f"(at most {_MOST_ITERATIONS}): scan over fewer, larger steps."
            )
        body = getattr(p["jaxpr"], "jaxpr", p["jaxpr"])
        consts = [Given(value, learned=True) for value in getattr(p["jaxpr"], "consts", ())]
        # told from the shapes, which every version of JAX has: what is scanned over has an axis more than its slices
        carried = sum(var.aval.shape == out.aval.shape for var, out in zip(body.outvars, eqn.outvars, strict=True))
        kept = sum(var.aval.shape == atom.aval.shape for var, atom in zip(body.invars, eqn.invars, strict=True))
        split = kept - carried, kept
        shared, carry, xs = inputs[: split[0]], list(inputs[split[0] : split[1]]), inputs[split[1] :]
        collected: list[list[Ref]] = []
        order = range(length - 1, -1, -1) if p["reverse"] else range(length)
        for i in order:
            here = [self._index(ref, aval, i, eqn) for ref, aval in zip(xs, _avals(body, split[1]), strict=True)]
            out = self.write(body, consts, [*shared, *carry, *here])
            carry, ys = out[:carried], out[carried:]
            collected.append(ys)
        if p["reverse"]:
            collected.reverse()
        stacked = [self._stack(refs, var.aval, eqn) for refs, var in zip(
            zip(*collected, strict=True) if collected else ((),) * (len(eqn.outvars) - carried),
            eqn.outvars[carried:], strict=True)]  # fmt: skip
        return [*carry, *stacked]

    def _index(self, ref: Ref, aval: Any, i: int, eqn: Any) -> Ref:
        if isinstance(ref, Given):
            return ref._replace(value=jnp.asarray(ref.value)[i])
        return self._add("index", {}, functools.partial(_indexed, i), (ref,), [aval], False, eqn.source_info)[0]

    def _stack(self, refs: Sequence[Ref], aval: Any, eqn: Any) -> Ref:
        if not refs:
            return Given(jnp.zeros(aval.shape, aval.dtype), learned=False)
        return self._add("stack", {}, _stacked, tuple(refs), [aval], False, eqn.source_info)[0]


def _is_activation(eqn: Any) -> bool:
    """Whether a call is kept: it works element by element, and has a derivative of its own or is one of JAX's."""
    plain = inner(eqn)
    if plain is not None:
        return eqn.params.get("name") in _ACTIVATIONS and _of_library(plain[0]) and is_elementwise(eqn)
    return eqn.primitive.name.startswith("custom_") and is_elementwise(eqn)


def _called(eqn: Any) -> str:
    """What a call computes, where that is known, not what it calls itself: ``relu``, or a function of JAX.

    What a function of the user's contains is not the function, unless it is all there is.
    """
    call, body = eqn, computed(eqn)
    while body is not None:
        if _of_library(body[0]):
            return call.params.get("name") or _defined(body[0])[0]
        if len(body[0].eqns) != 1 or list(body[0].outvars) != list(body[0].eqns[0].outvars):
            break
        call = body[0].eqns[0]
        body = computed(call)
    if call.primitive.name == "max" and any(is_literal(atom) and not np.any(atom.val) for atom in call.invars):
        return "relu"
    return f"{eqn.primitive.name} {_defined(computed(eqn)[0])[0]}".strip()  # type: ignore[index]


def _indexed(i: int, x: jax.Array) -> list[jax.Array]:
    return [lax.index_in_dim(x, i, keepdims=False)]


def _stacked(*parts: jax.Array) -> list[jax.Array]:
    return [jnp.stack(parts)]


def _avals(body: Any, first: int) -> list[Any]:
    return [var.aval for var in body.invars[first:]]


def _run(jaxpr: Any, eqn: Any, *operands: Any) -> list[Any]:
    given = zip(eqn.invars, operands, strict=True)
    return bind(jaxpr, eqn, {atom: operand for atom, operand in given if not is_literal(atom)})


def _live(steps: Sequence[Step], outputs: Sequence[Ref]) -> tuple[tuple[Step, ...], Mapping[int, int]]:
    readers: dict[int, int] = {}

    def note(refs: Sequence[Ref]) -> None:
        for ref in refs:
            if not isinstance(ref, Given):
                readers[ref] = readers.get(ref, 0) + 1

    note(outputs)
    kept = []
    for step in reversed(steps):
        if any(number in readers for number in step.outputs):
            kept.append(step)
            note(step.inputs)
    return tuple(reversed(kept)), readers


def _defined(body: Any) -> tuple[str, str]:
    """Name of the function that operations were traced from, and ``file:line`` where it stands; empty if unknown."""
    name, _, place = (body.debug_info.func_src_info or "").partition(" at ")
    return name, place


def _of_library(body: Any) -> bool:
    return _defined(body)[1].startswith(_libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Folders of the libraries that a network is written with."""
    found = (importlib.util.find_spec(name) for name in ("jax", "flax"))
    folders = (folder for spec in found if spec for folder in spec.submodule_search_locations or ())
    return tuple(folder + os.sep for folder in folders)


def line(source: Any) -> str:
    """Where in the user's code an operation stands: ``file:line``, or an empty text where that is not known."""
    frames = getattr(getattr(source, "traceback", None), "frames", ())
    others = (*_libraries(), str(Path(__file__).parent) + os.sep, tracing.__file__)
    for frame in frames:
        if not frame.file_name.startswith(others):
            return f"{frame.file_name}:{frame.line_num}"
    return ""
