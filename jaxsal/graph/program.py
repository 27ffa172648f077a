"""A network as a list of operations that can be written as JSON, and the run of it."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


class Node(NamedTuple):
    """One operation.

    Attributes:
        name: of its result, unique.
        op: what computes it, by the name that the dialect has for it.
        args: operands: ``{"node": name}``, ``{"weight": path}``, ``{"dtype": name}``, ``{"number": "inf"}``, numbers,
            texts, None, and lists of these.
        kwargs: likewise, by keyword.
        tags: layers that end with it, the innermost first.
    """

    name: str
    op: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    tags: tuple[str, ...] = ()


class Dialect(NamedTuple):
    """What a framework's operations mean.

    Attributes:
        rule: of an operation's name the function that computes it, or None.
        enter: of the image ``[b, *space, c]``, or of a weight's array, what rules take.
        weight: likewise of a weight.
        leave: of what rules give, an array, channels last where there are any.
        tagged: ``(value, mark)``: a value, its array marked.
    """

    rule: Callable[[str], Callable[..., Any] | None]
    enter: Callable[[jax.Array], Any]
    weight: Callable[[jax.Array], Any]
    leave: Callable[[Any], jax.Array]
    tagged: Callable[[Any, Callable[[jax.Array], jax.Array]], Any]


@dataclass(frozen=True)
class Program:
    """Operations in order, as text, so that two alike are equal and a compiled call serves both.

    Attributes:
        text: JSON: ``dialect``, ``input``, ``nodes`` and ``output``.
    """

    text: str

    @functools.cached_property
    def content(self) -> Mapping[str, Any]:
        """What the text says."""
        return json.loads(self.text)

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The operations."""
        return tuple(_node(each) for each in self.content["nodes"])

    @functools.cached_property
    def dialect(self) -> Dialect:
        """What they mean."""
        return dialect(self.content["dialect"])


def write(name: str, image: str, nodes: Sequence[Node], output: Any) -> dict[str, Any]:
    """A program as a dictionary for JSON.

    Args:
        name: of the dialect.
        image: what operands call the image.
        nodes: the operations, each after those that it reads.
        output: the result, as an operand.
    """
    listed = []
    for node in nodes:
        entry: dict[str, Any] = {"name": node.name, "op": node.op}
        entry |= {"args": list(node.args)} if node.args else {}
        entry |= {"kwargs": dict(node.kwargs)} if node.kwargs else {}
        entry |= {"tags": list(node.tags)} if node.tags else {}
        listed.append(entry)
    return {"dialect": name, "input": image, "nodes": listed, "output": output}


def read(content: Mapping[str, Any], weights: Sequence[str]) -> Program:
    """A program from what :func:`write` gave, checked; operations are looked up by name, no code is run.

    Raises:
        ValueError: if it is of an unknown dialect, or names operations, values or weights that do not exist; all are
            listed.
    """
    try:
        program = Program(json.dumps(content, sort_keys=True, separators=(",", ":")))
        known, problems = {program.content["input"]}, []
        rule = program.dialect.rule
        for node in program.nodes:
            if rule(node.op) is None:
                problems.append(f"operation {node.op!r} is unknown")
            problems += _unknown([node.args, dict(node.kwargs)], known, weights)
            known.add(node.name)
        problems += _unknown(program.content["output"], known, weights)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"This is no network graph: {type(error).__name__}: {error}.") from None
    if problems:
        raise ValueError(
            f"The network graph cannot be run: {'; '.join(dict.fromkeys(problems))}. It is damaged, or was written by "
            "a newer jaxsal: convert the network again, or upgrade jaxsal."
        )
    return program


def run(program: Program, weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """The network's output for an image.

    Args:
        program: the operations.
        weights: by path.
        x: ``[b, *space, c]``.

    Returns:
        ``y[b, k]``, or ``[b, *space, k]``.
    """
    means = program.dialect
    env: dict[str, Any] = {program.content["input"]: means.enter(x)}
    for node in program.nodes:
        rule = means.rule(node.op)
        assert rule is not None  # read() has seen to it
        args = [_operand(arg, env, weights, means) for arg in node.args]
        value = rule(*args, **{key: _operand(arg, env, weights, means) for key, arg in node.kwargs})
        for tag in node.tags:
            value = means.tagged(value, functools.partial(checkpoint_name, name=tag))
        env[node.name] = value
    return means.leave(_operand(program.content["output"], env, weights, means))


def dialect(name: str) -> Dialect:
    """A framework's operations.

    Raises:
        ValueError: if it is unknown.
    """
    known = {"aten": _aten, "keras": _keras}
    if name in known:
        return known[name]()
    raise ValueError(f"The network graph is written in operations of {name!r}, known are: {', '.join(known)}.")


@functools.cache
def _aten() -> Dialect:
    from jaxsal.graph.aten.rules import rule_of, rules
    from jaxsal.graph.laid import Laid, channel_last, channel_last_order, from_channel_last, plain, relaid

    def tagged(value: Any, mark: Callable[[jax.Array], jax.Array]) -> Any:
        if not isinstance(value, Laid):
            return (tagged(value[0], mark), *value[1:])
        order = channel_last_order(value.ndim)
        return Laid(mark(relaid(value, order)), order)

    return Dialect(functools.partial(rule_of, rules()), from_channel_last, plain, channel_last, tagged)


@functools.cache
def _keras() -> Dialect:
    from jaxsal.graph.keras.rules import rules

    def as_it_is(value: Any) -> Any:
        return value

    def tagged(value: Any, mark: Callable[[jax.Array], jax.Array]) -> Any:
        return mark(value)

    return Dialect(rules().get, as_it_is, as_it_is, as_it_is, tagged)


def _node(entry: Mapping[str, Any]) -> Node:
    kwargs = tuple(entry.get("kwargs", {}).items())
    return Node(entry["name"], entry["op"], tuple(entry.get("args", ())), kwargs, tuple(entry.get("tags", ())))


def _operand(arg: Any, env: Mapping[str, Any], weights: Mapping[str, jax.Array], means: Dialect) -> Any:
    if isinstance(arg, list):
        return [_operand(each, env, weights, means) for each in arg]
    if not isinstance(arg, dict):
        return arg
    ((kind, value),) = arg.items()
    if kind == "node":
        return env[value]
    if kind == "weight":
        return means.weight(weights[value])
    if kind == "dtype":
        return jax.dtypes.canonicalize_dtype(value)
    return float(value)


def _unknown(arg: Any, known: set[str], weights: Sequence[str]) -> list[str]:
    if isinstance(arg, list | tuple):
        return [problem for each in arg for problem in _unknown(each, known, weights)]
    if not isinstance(arg, dict):
        return []
    if len(arg) == 1 and isinstance(next(iter(arg.values())), str):
        ((kind, value),) = arg.items()
        if kind == "node":
            return [] if value in known else [f"value {value!r} is read before it is computed"]
        if kind == "weight":
            return [] if value in weights else [f"weight {value!r} is missing"]
        if kind == "number":
            return [] if math.isinf(float(value)) or math.isnan(float(value)) else [f"number {value!r}"]
        if kind == "dtype":
            return [] if hasattr(jnp, value) else [f"dtype {value!r} is unknown"]
    return [problem for each in arg.values() for problem in _unknown(each, known, weights)]
