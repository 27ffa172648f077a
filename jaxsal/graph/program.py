"""A network as a list of operations that can be written as JSON, and the run of it."""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from pydantic import BaseModel, ConfigDict, ValidationError

# what weights and casts can be of
DTYPES = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
)  # fmt: skip
# values of one array, for one image, and of all weights: 16 GiB in float32
_MOST = 2**32


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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Entry(_Strict):
    """A node as it is written."""

    name: str
    op: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    tags: list[str] = []


class _Written(_Strict):
    """A program as it is written."""

    dialect: str
    input: str
    nodes: list[_Entry]
    output: Any


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
        ValueError: if it is of an unknown dialect, is not built as :func:`write` builds it, or names operations, values
            or weights that do not exist; all are listed.
    """
    try:
        _Written.model_validate(content)
        program = Program(json.dumps(content, sort_keys=True, separators=(",", ":")))
        problems = _problems(program, frozenset(weights))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise ValueError(f"This is no network graph: {told}.") from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"This is no network graph: {type(error).__name__}: {error}.") from None
    if problems:
        raise _not_to_be_run("; ".join(dict.fromkeys(problems)))
    return program


def check(program: Program, weights: Mapping[str, jax.ShapeDtypeStruct], shape: Sequence[int]) -> None:
    """Go through a program with shapes alone: nothing is computed, and nothing is allocated.

    Args:
        program: the operations.
        weights: shapes and dtypes by path.
        shape: of one image ``[*space, c]``.

    Raises:
        ValueError: if an operation does not take its operands, or gives more than any network has use for.
        NotImplementedError: if a rule does not know a setting; it says what to do.
    """
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        _check_size(image)
        if (total := sum(weight.size for weight in weights.values())) > _MOST:
            raise ValueError(f"weights of {total} values, at most {_MOST}")
        jax.eval_shape(functools.partial(run, program, look=_check_size), dict(weights), image)
    except NotImplementedError:
        raise
    except Exception as error:
        place = "".join(f" in {note}" for note in getattr(error, "__notes__", ())[:1])
        message = str(error).splitlines()
        raise _not_to_be_run(f"{type(error).__name__}{place}: {message[0] if message else ''}") from error


def run(
    program: Program,
    weights: Mapping[str, jax.Array],
    x: jax.Array,
    *,
    look: Callable[[Any], None] = lambda value: None,
) -> jax.Array:
    """The network's output for an image.

    Args:
        program: the operations.
        weights: by path.
        x: ``[b, *space, c]``.
        look: called with what each operation gives; it may raise.

    Returns:
        ``y[b, k]``, or ``[b, *space, k]``.
    """
    means = program.dialect
    env: dict[str, Any] = {program.content["input"]: means.enter(x)}
    for node in program.nodes:
        rule = means.rule(node.op)
        assert rule is not None  # read() has seen to it
        args = [_operand(arg, env, weights, means) for arg in node.args]
        try:
            value = rule(*args, **{key: _operand(arg, env, weights, means) for key, arg in node.kwargs})
            look(value)
        except Exception as error:
            error.add_note(f"{node.name!r} ({node.op})")
            raise
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


def _problems(program: Program, weights: Collection[str]) -> list[str]:
    """What of a program does not exist."""
    rule, known, problems = program.dialect.rule, {program.content["input"]}, []
    for node in program.nodes:
        if rule(node.op) is None:
            problems.append(f"operation {node.op!r} is unknown")
        problems += _unknown([*node.args, *(arg for _, arg in node.kwargs)], known, weights)
        if node.name in known:
            problems.append(f"the name {node.name!r} is given twice")
        known.add(node.name)
    return problems + _unknown(program.content["output"], known, weights)


def _unknown(arg: Any, known: Collection[str], weights: Collection[str]) -> list[str]:
    """What is wrong with an operand."""
    if isinstance(arg, list):
        return [problem for each in arg for problem in _unknown(each, known, weights)]
    if not isinstance(arg, dict):
        return [f"number {arg!r:.50}"] if isinstance(arg, int) and abs(arg) >= 2**63 else []
    match [*arg.items()]:
        case [("node", str(value))]:
            return [] if value in known else [f"value {value!r} is read before it is computed"]
        case [("weight", str(value))]:
            return [] if value in weights else [f"weight {value!r} is missing"]
        case [("number", "inf" | "-inf" | "nan")]:
            return []
        case [("dtype", str(value))]:
            return [] if value in DTYPES else [f"dtype {value!r} is unknown"]
    return [f"operand {arg!r:.100} is unknown"]


def _check_size(value: Any) -> None:
    """Refuse what no network needs, before it is allocated."""
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, int) and abs(leaf) >= 2**63:
            raise ValueError("a number of more than 63 bits")
        if not isinstance(leaf, int | float) and leaf.size > _MOST:
            raise ValueError(f"an array of {leaf.size} values ({' x '.join(map(str, leaf.shape))}), at most {_MOST}")


def _not_to_be_run(why: str) -> ValueError:
    return ValueError(
        f"The network graph cannot be run: {why}. It is damaged, or was written by a newer jaxsal: convert the network "
        "again, or upgrade jaxsal; if it was converted just now, report it."
    )
