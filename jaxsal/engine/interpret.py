"""Run a program with a rule at every site."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.engine.lower import lower
from jaxsal.engine.program import Given, Program, Ref, Step, line
from jaxsal.engine.sites import Composite, Pool, Rule, Site, gradient, linear, shared
from jaxsal.engine.values import Affine, Linear, Pointwise, Unit, Value

# what puts values at other places, leaves them out or repeats them
_MOVES = frozenset((
    "broadcast_in_dim", "concatenate", "convert_element_type", "dynamic_slice", "dynamic_update_slice", "expand_dims",
    "gather", "index", "pad", "reduce_precision", "reshape", "rev", "select_n", "slice", "split", "squeeze", "stack",
    "transpose",
))  # fmt: skip
_SAME = frozenset(("copy", "copy_p", "name", "optimization_barrier"))
_WEIGHTED = {"conv_general_dilated": "convolution", "dot_general": "dense"}
_SUMS = frozenset(("reduce_sum", "reduce_window_sum", "cumsum"))
_AFFINE = frozenset(("add", "add_any", "sub", "mul", "div", "neg"))
_MAXIMA = frozenset(("reduce_window_max", "reduce_window_min", "reduce_max", "reduce_min"))
_NONNEGATIVE = frozenset(("relu", "relu6", "exp", "exp2", "logistic", "abs", "sqrt", "square", "softplus"))


class _Known(NamedTuple):
    """A value that does not depend on the image, or is taken for one that does not.

    Attributes:
        value: of it.
        name: of the layer whose weight it is or was made of.
        learned: whether a weight of the network went into it.
        counted: whether positions did, as into the weights of an interpolation.
        follows: whether it was computed from the image all the same.
        compact: the same with the axes along which it repeats of size 1, where that is known.
        gate: whether it is a gate, held constant.
    """

    value: Any
    name: str = ""
    learned: bool = False
    counted: bool = False
    follows: bool = False
    compact: Any = None
    gate: bool = False


def interpret(
    code: Program,
    weights: Sequence[tuple[str, Any]],
    x: jax.Array,
    composite: Composite,
    offsets: Mapping[int, jax.Array],
) -> tuple[jax.Array, tuple[tuple[Site, Rule], ...], Mapping[int, jax.Array]]:
    """Run a program of weights and an image.

    Args:
        code: arguments are the weights in order, then the image.
        weights: name of the layer and array.
        x: the image.
        composite: ``site -> rule``.
        offsets: added to the outputs of sites, by index.

    Returns:
        The result; the sites that relevance can reach, with their rules; the values there.
    """
    run = _Run(composite, offsets, code.readers)
    *numbers, image = code.inputs
    for number, (name, value) in zip(numbers, weights, strict=True):
        run.env[number] = _Known(value, name, learned=True)
    run.env[image] = run.unit(x)
    for step in code.steps:
        run.step(step)
    result = run.read(code.outputs[0])
    if isinstance(result, _Known):
        raise ValueError("The output of the model does not depend on its input: there is nothing to explain.")
    unit = run.force(result)
    reached = run.reached(unit)
    return unit.value, tuple(run.sites[i] for i in reached), {i: run.values[i] for i in reached}


class _Run:
    """One passage through a program: what has been computed, and the sites met on the way."""

    def __init__(self, composite: Composite, offsets: Mapping[int, jax.Array], readers: Mapping[int, int]):
        self.composite, self.offsets, self.readers = composite, offsets, readers
        self.env: dict[int, _Known | Value] = {}
        self.sites: list[tuple[Site, Rule]] = []
        self.values: dict[int, jax.Array] = {}
        self.units = 0

    def read(self, ref: Ref) -> "_Known | Value":
        return _Known(ref.value, learned=ref.learned) if isinstance(ref, Given) else self.env[ref]

    def step(self, step: Step) -> None:
        operands = [self.read(ref) for ref in step.inputs]
        for number, result in zip(step.outputs, self._results(step, operands), strict=True):
            # what is read twice is computed once, whatever follows
            several = not isinstance(result, _Known) and self.readers.get(number, 0) > 1
            self.env[number] = self.force(result) if several else result  # type: ignore[arg-type]

    def _results(self, step: Step, operands: list[Any]) -> Sequence["_Known | Value"]:
        values = [operand for operand in operands if not isinstance(operand, _Known)]
        if not values:
            return self._known(step, operands, False)
        if step.name == "stop_gradient" or not any(_is_float(aval) for aval in step.avals):
            return self._known(step, operands, True)
        if step.name in _SAME:
            return operands
        if step.elementwise and step.name != "convert_element_type" and len(step.outputs) == 1:
            return [self._elementwise(step, operands)]
        if len(values) == 1:
            if step.name in _WEIGHTED:
                return [self._weighted(step, operands)]
            if step.name in _SUMS:
                return [self._sum_over_axes(step, operands[0])]
            if step.name in _MAXIMA:
                return [self._maximum(step, operands[0])]
        elif step.name in _WEIGHTED:
            return [self._product(step, operands)]
        if step.name in _MOVES:
            return self._moved(step, operands)
        raise self._unknown(step, operands)

    def _known(self, step: Step, operands: list[Any], follows: bool) -> list[_Known]:
        results = step.call(*map(self._constant, operands))
        known = [operand for operand in operands if isinstance(operand, _Known)]
        name = next((operand.name for operand in known if operand.name), "")
        learned = any(operand.learned for operand in known)
        follows = follows or any(operand.follows for operand in known)
        # the same along an axis: that makes a scale one per channel
        compact = _unbroadcast(step, known[0].value) if step.name == "broadcast_in_dim" and known else None
        counted = step.name == "iota" or any(operand.counted for operand in known)
        return [_Known(result, name, learned, counted, follows, compact) for result in results]

    def _constant(self, operand: "_Known | Value") -> Any:
        return operand.value if isinstance(operand, _Known) else lax.stop_gradient(self._plain(operand)[1])

    # element by element

    def _elementwise(self, step: Step, operands: list[Any]) -> Value:
        shape = step.avals[0].shape
        operands = [self._hold_statistic(step, operands, i) for i in range(len(operands))]
        values = [operand for operand in operands if not isinstance(operand, _Known)]
        if len(values) == 1 and step.name in _AFFINE and not (step.name == "div" and values[0] is operands[1]):
            return self._affine(step, operands, values[0])
        if step.name == "select_n" and not operands[0].follows:
            return self._moved(step, operands)[0]
        if len({id(self._plain(value)[0]) for value in values}) == 1 and all(_shape(v) == shape for v in values):
            return self._pointwise(step, operands, values)
        operands = [self._broadcast(operand, step) for operand in operands]
        if step.name in ("add", "add_any", "sub"):
            return self._total(step, operands)
        if step.name in ("mul", "div"):
            return self._product(step, operands)
        if step.name in ("max", "min"):
            return self._winner(step, operands)
        if step.name == "select_n":
            return self._moved(step, operands)[0]
        raise self._unknown(step, operands)

    def _affine(self, step: Step, operands: list[Any], value: Value) -> Affine:
        if _shape(value) != step.avals[0].shape:
            value = self._broadcast(value, step)
        known = next((operand for operand in operands if isinstance(operand, _Known)), _Known(None))
        number = known.value if known.compact is None else known.compact
        scale, shift = _scale_and_shift(step.name, number, operands[0] is value or len(operands) == 1, value)
        if isinstance(value, Affine) and value.unit is None:
            weights = value.weights if scale is None else value.linear.fold(value.weights, scale)
            if weights is not None:
                bias = value.bias if scale is None or value.bias is None else value.bias * scale
                bias = shift if bias is None else bias if shift is None else bias + shift
                name = value.name or known.name
                return Affine(value.source, value.linear, weights, bias, value.shape, name, value.step, value.gate)
            value = self.force(value)
        weights = jnp.ones((), step.avals[0].dtype) if scale is None else jnp.asarray(scale)
        gate = getattr(value, "gate", False) or (step.name == "div" and getattr(value, "exponential", False))
        return Affine(value, _DIAGONAL, weights, shift, step.avals[0].shape, known.name, step, gate)

    def _pointwise(self, step: Step, operands: list[Any], values: list[Value]) -> Pointwise:
        chain = len(values) == 1
        if chain and isinstance(values[0], Affine) and not values[0].diagonal:
            values = [self.force(values[0])]
            operands = [operand if isinstance(operand, _Known) else values[0] for operand in operands]
        root = self._plain(values[0])[0]
        arrays = [operand.value if isinstance(operand, _Known) else self._plain(operand)[1] for operand in operands]
        value = step.call(*arrays)[0]
        before, replay = None, None
        if chain:
            apply = _at(step.call, operands, values[0])
            if isinstance(values[0], Affine):
                before, replay = values[0], apply
            elif isinstance(values[0], Pointwise) and values[0].before is not None:
                before, replay = values[0].before, _after(values[0].replay, apply)
        name = _operation(step, operands)
        steps = (*(n for v in values for n in getattr(v, "steps", ())), name)
        return Pointwise(root, value, before, replay, step, steps, name in _NONNEGATIVE)

    def _hold_statistic(self, step: Step, operands: list[Any], i: int) -> Any:
        """The operand, or where it is a statistic of the other one and to be held, its value."""
        operand = operands[i]
        if isinstance(operand, _Known) or len(operands) != 2 or step.name not in ("sub", "mul", "div"):
            return operand
        other = operands[1 - i]
        if isinstance(other, _Known) or not (_statistics(operand) & _origins(other)):
            return operand
        if (step.name, i) in (("sub", 0), ("div", 0)):
            return operand
        rule = self._rule("statistic", step, "", _shape(operand), False)[1]
        return operand if rule is gradient else _Known(self._constant(operand))

    def _total(self, step: Step, operands: list[Any]) -> Unit:
        if step.name == "sub":
            shape = step.avals[0].shape
            minus = jnp.asarray(-1, step.avals[0].dtype)
            operands = [operands[0], Affine(operands[1], _DIAGONAL, minus, None, shape, "", step)]
        parts = [self.force(operand) for operand in operands]
        index, rule = self._rule("sum", step, "", step.avals[0].shape, _first(*parts))
        arrays = [part.value for part in parts]
        value = arrays[0] + arrays[1] if rule is gradient else shared(arrays, rule)
        return self.unit(value, *parts, site=index, nonnegative=all(part.nonnegative for part in parts))

    def _winner(self, step: Step, operands: list[Any]) -> Unit:
        a, b = (self.force(operand) for operand in operands)
        # the first where they are equal, not half of it to each
        ahead = a.value >= b.value if step.name == "max" else a.value <= b.value
        return self.unit(jnp.where(ahead, a.value, b.value), a, b)

    def _product(self, step: Step, operands: list[Any]) -> Value:
        name = next((operand.name for operand in operands if isinstance(operand, _Known)), "")
        factors = [operand for operand in operands if not isinstance(operand, _Known)]
        index, rule = self._rule("product", step, name, step.avals[0].shape, False)
        gates = [getattr(factor, "gate", False) or _is_gate(factor) for factor in factors]
        if rule is not gradient and sum(gates) == 1:
            (gate,) = (factor for factor, is_gate in zip(factors, gates, strict=True) if is_gate)
            held = [_Known(self._constant(operand), gate=True) if operand is gate else operand for operand in operands]
            return (self._weighted if step.name in _WEIGHTED else self._elementwise)(step, held)
        units = [self.force(factor) for factor in factors]
        forward = lambda *arrays: step.call(*arrays)[0]  # noqa: E731
        arrays = [unit.value for unit in units]
        value = forward(*arrays) if rule is gradient else rule(forward, *arrays)
        return self.unit(value, *units, site=index, weighted=step.name in _WEIGHTED)

    # linear operations

    def _weighted(self, step: Step, operands: list[Any]) -> Affine:
        place = next(i for i, operand in enumerate(operands) if not isinstance(operand, _Known))
        known = operands[1 - place]
        call = (lambda a, w: step.call(a, w)[0]) if place == 0 else (lambda a, w: step.call(w, a)[0])
        # an interpolation is no layer: its weights are made of positions, not learned
        kind = "average" if (known.counted and not known.learned) or known.gate else _WEIGHTED[step.name]
        fold = functools.partial(_fold, *_channel(step, place, np.ndim(known.value)), len(step.avals[0].shape))
        operation = Linear(kind, step.name, lower(call), fold)
        source = self.force(operands[place])
        return Affine(source, operation, jnp.asarray(known.value), None, step.avals[0].shape, known.name, step)

    def _sum_over_axes(self, step: Step, value: Value) -> Affine:
        call = lower(lambda a: step.call(a)[0])
        operation = Linear("average", step.name, lambda a, w: call(a) * w, operator.mul, step.name == "reduce_sum")
        one = jnp.ones((), step.avals[0].dtype)
        return Affine(self.force(value), operation, one, None, step.avals[0].shape, "", step)

    def _maximum(self, step: Step, value: Value) -> Unit:
        source = self.force(value)
        pool = _pool(step, source.value.shape)
        index, rule = self._rule("pool", step, "", step.avals[0].shape, _first(source))
        out = pool.forward(source.value) if rule is gradient else rule(pool, source.value)
        statistics = source.origins | source.statistics if step.name in ("reduce_max", "reduce_min") else None
        return self.unit(out, source, site=index, nonnegative=source.nonnegative, statistics=statistics)

    def _moved(self, step: Step, operands: list[Any]) -> list[Unit]:
        units = [self.force(operand) for operand in operands if not isinstance(operand, _Known)]
        results = step.call(*(o.value if isinstance(o, _Known) else self.force(o).value for o in operands))
        alone = len(units) == len(operands) or step.name in ("gather", "dynamic_slice")
        zeros = step.name == "pad" and _is_zero(operands[1])
        return [
            self.unit(
                result,
                *units,
                nonnegative=(alone or zeros) and all(unit.nonnegative for unit in units),
                gate=len(units) == 1 and units[0].gate,
                exponential=len(units) == 1 and units[0].exponential,
            )
            for result in results
        ]

    # what is asked for

    def force(self, value: Value) -> Unit:
        """The value as an array, its site's rule attached."""
        if isinstance(value, Unit):
            return value
        if value.unit is None:
            value.unit = self._force_affine(value) if isinstance(value, Affine) else self._force_pointwise(value)
        return value.unit

    def _force_affine(self, value: Affine) -> Unit:
        source = self.force(value.source)
        kind = value.linear.kind
        index, rule = self._rule(kind, value.step, value.name, value.shape, _first(source), value.linear.operation)
        bias = jnp.zeros((), source.value.dtype) if value.bias is None else jnp.asarray(value.bias)
        if rule is gradient:
            out = value.linear.forward(source.value, value.weights) + bias
        else:
            out = linear(rule, value.linear.forward, source.nonnegative)(source.value, value.weights, bias)
        moved = kind in ("affine", "average")
        return self.unit(
            out,
            source,
            site=index,
            weighted=kind in ("convolution", "dense"),
            gate=value.gate,
            origins=source.origins if moved and not value.linear.reduces else frozenset(),
            statistics=_statistics(value),
        )

    def _force_pointwise(self, value: Pointwise) -> Unit:
        root, array = value.root, value.value
        if value.before is not None and value.replay is not None:
            root = self.force(value.before)
            array = value.replay(root.value)
        operation = " ".join(dict.fromkeys(value.steps))
        index, rule = self._rule("activation", value.step, "", array.shape, _first(root), operation)
        out = array if rule is gradient else rule(root.value, array)
        return self.unit(
            out,
            root,
            site=index,
            nonnegative=value.nonnegative,
            gate=value.steps[-1] == "logistic",
            exponential=value.steps[-1] == "exp",
        )

    def _plain(self, value: Value) -> tuple[Unit, jax.Array]:
        """The unit that a value comes from element by element, and the value with its own derivative by that."""
        if not isinstance(value, Unit) and value.unit is not None:
            value = value.unit
        if isinstance(value, Affine) and value.diagonal:
            root, array = self._plain(value.source)
            array = array * value.weights
            return root, array if value.bias is None else array + value.bias
        if isinstance(value, Pointwise):
            return value.root, value.value
        unit = self.force(value)
        return unit, unit.value

    def unit(
        self,
        value: jax.Array,
        *parents: Unit,
        site: int | None = None,
        origins: frozenset[int] | None = None,
        statistics: frozenset[int] | None = None,
        weighted: bool = False,
        **known: bool,
    ) -> Unit:
        """A computed value; unless told otherwise it comes from what all its parents come from."""
        if site is not None:
            self.values[site] = value
            if site in self.offsets:
                value = value + self.offsets[site]
        if origins is None:
            origins = functools.reduce(operator.and_, (p.origins for p in parents)) if parents else frozenset()
            if statistics is not None:
                origins = frozenset()
        if statistics is None:
            statistics = frozenset().union(*(parent.statistics for parent in parents))
        self.units += 1
        return Unit(
            value,
            parents,
            origins | {self.units},
            statistics,
            weighted or any(parent.weighted for parent in parents),
            site=site,
            **known,
        )

    def reached(self, unit: Unit) -> list[int]:
        """Indices of the sites that relevance from a unit comes to."""
        seen: set[int] = set()
        found, waiting = set(), [unit]
        while waiting:
            here = waiting.pop()
            if id(here) not in seen:
                seen.add(id(here))
                found |= set() if here.site is None else {here.site}
                waiting += here.parents
        return sorted(found)

    def _rule(
        self, kind: Any, step: Step, name: str, shape: tuple[int, ...], first: bool, operation: str = ""
    ) -> tuple[int, Rule]:
        site = Site(len(self.sites), kind, name, operation or step.name, tuple(shape), first, line(step.source))
        rule = self.composite(site)
        if rule is None:
            raise ValueError(f"The composite has no rule for the {kind} site {site}: return one for every site.")
        self.sites.append((site, rule))
        return site.index, rule

    def _broadcast(self, operand: Any, step: Step) -> Any:
        shape = step.avals[0].shape
        if isinstance(operand, _Known) or _shape(operand) == shape or step.name == "select_n":
            return operand
        unit = self.force(operand)
        return self.unit(jnp.broadcast_to(unit.value, shape), unit, nonnegative=unit.nonnegative, gate=unit.gate)

    def _unknown(self, step: Step, operands: list[Any]) -> Exception:
        shapes = ", ".join(str(tuple(np.shape(o.value) if isinstance(o, _Known) else _shape(o))) for o in operands)
        where = line(step.source)
        return NotImplementedError(
            f"There is no rule for the operation {step.name!r} on values of the image, of shapes {shapes}"
            f"{f', at {where}' if where else ''}. Write it with operations that there are rules for; or, where it "
            "works element by element, wrap it in jax.custom_jvp, so that it is taken for an activation; or hold its "
            "result constant with jax.lax.stop_gradient; or split the network behind it (jaxsal.split) and explain the "
            "tail."
        )


_DIAGONAL = Linear("affine", "scale and shift", operator.mul, operator.mul)


def _shape(value: Value) -> tuple[int, ...]:
    return value.shape if isinstance(value, Affine) else value.value.shape


def _origins(value: Value) -> frozenset[int]:
    if isinstance(value, Unit):
        return value.origins
    if value.unit is not None:
        return value.unit.origins
    if isinstance(value, Affine):
        return _origins(value.source) if value.diagonal else frozenset()
    return value.root.origins


def _statistics(value: Value) -> frozenset[int]:
    if isinstance(value, Unit):
        return value.statistics
    if isinstance(value, Pointwise):
        return value.root.statistics
    if value.linear.kind not in ("affine", "average"):
        return frozenset()
    below = _statistics(value.source)
    return below | _origins(value.source) if value.linear.reduces else below


def _is_gate(value: Value) -> bool:
    return isinstance(value, Pointwise) and value.steps[-1] == "logistic"


def _first(*units: Unit) -> bool:
    return not any(unit.weighted for unit in units)


def _is_float(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _is_zero(operand: Any) -> bool:
    return isinstance(operand, _Known) and _literal(operand) == 0


def _literal(known: _Known) -> float | None:
    """A single number that is written into the program."""
    value = known.value
    if isinstance(value, jax.core.Tracer) or np.ndim(value) != 0:
        return None
    return float(value)


def _operation(step: Step, operands: Sequence[Any]) -> str:
    """Of an element-wise operation, its name; a maximum with 0 is a ReLU, however it is written."""
    known = [operand for operand in operands if isinstance(operand, _Known)]
    if step.name == "max" and any(_literal(operand) == 0 for operand in known):
        return "relu"
    return step.name


def _at(call: Callable[..., list[Any]], operands: Sequence[Any], value: Value) -> Callable[[jax.Array], jax.Array]:
    """An operation as a function of one of its operands."""
    return lambda array: call(*(array if operand is value else operand.value for operand in operands))[0]


def _after(before: Any, apply: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda array: apply(before(array))


def _scale_and_shift(name: str, known: Any, leads: bool, value: Value) -> tuple[Any, Any]:
    """What an affine operation multiplies with and then adds; None for nothing."""
    if name == "neg":
        return jnp.asarray(-1, _dtype(value)), None
    known = jnp.asarray(known)
    if name == "mul":
        return known, None
    if name == "div":
        return 1 / known, None
    if name == "sub":
        return (None, -known) if leads else (jnp.asarray(-1, known.dtype), known)
    return None, known


def _dtype(value: Value) -> Any:
    return _dtype(value.source) if isinstance(value, Affine) else value.value.dtype


def _unbroadcast(step: Step, value: Any) -> jax.Array:
    """An array brought to a rank, with the axes along which it would repeat of size 1."""
    shape = [1] * len(step.avals[0].shape)
    for axis, size in zip(step.params["broadcast_dimensions"], np.shape(value), strict=True):
        shape[axis] = size
    return jnp.asarray(value).reshape(shape)


def _channel(step: Step, place: int, rank: int) -> tuple[int | None, int | None]:
    """The axis of the weights that is the outputs' channel, and that axis of the output."""
    if step.name == "conv_general_dilated":
        if place == 1 or step.params["batch_group_count"] != 1:
            return None, None
        dims = step.params["dimension_numbers"]
        return dims.rhs_spec[0], dims.out_spec[1]
    (contracted, batch) = ([*map(tuple, pair)] for pair in step.params["dimension_numbers"])
    free = [axis for axis in range(rank) if axis not in (*contracted[1 - place], *batch[1 - place])]
    if len(free) != 1:
        return None, None
    return free[0], len(step.avals[0].shape) - 1 if place == 0 else len(batch[0])


def _fold(weight_axis: int | None, axis: int | None, rank: int, weights: jax.Array, scale: jax.Array) -> Any:
    """Weights with a scale of the output multiplied in, or None where that is not possible."""
    shape = np.shape(scale)
    if shape == ():
        return weights * scale
    if weight_axis is None or axis is None or len(shape) != rank:
        return None
    if any(size != 1 for i, size in enumerate(shape) if i != axis):
        return None
    aligned = [1] * weights.ndim
    aligned[weight_axis] = shape[axis]
    return weights * scale.reshape(aligned)


def _pool(step: Step, shape: tuple[int, ...]) -> Pool:
    p = step.params
    if step.name in ("reduce_max", "reduce_min"):
        axes = tuple(p["axes"])
        window = tuple(n if axis in axes else 1 for axis, n in enumerate(shape))
        forward = functools.partial(_first_extreme, axes, jnp.argmax if step.name == "reduce_max" else jnp.argmin)
        return Pool(forward, window, window, ((0, 0),) * len(shape))
    forward = lower(lambda x: step.call(x)[0])
    return Pool(forward, tuple(p["window_dimensions"]), tuple(p["window_strides"]), tuple(map(tuple, p["padding"])))


def _first_extreme(axes: tuple[int, ...], where: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """The maximum or minimum over some axes, its gradient to the first one alone."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    return jnp.take_along_axis(flat, where(flat, axis=-1, keepdims=True), axis=-1)[..., 0]
