"""Run a program with a rule at every site."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.engine.folding import (
    DIAGONAL,
    channel_axes,
    fold,
    folded,
    move_of,
    moved,
    scale_and_shift,
    scaled,
    unbroadcast,
)
from jaxsal.engine.lower import lower
from jaxsal.engine.maxima import MAXIMA, pool_of, pool_of_two
from jaxsal.engine.program import Given, Program, Ref, Step, line
from jaxsal.engine.recognise import (
    compared,
    ends_rectified,
    is_exponential,
    is_gate,
    is_nonnegative,
    number_of,
    operation,
    rectifier,
)
from jaxsal.engine.sites import Composite, Rule, Site, gradient, linear, shared
from jaxsal.engine.values import (
    Affine,
    Known,
    Linear,
    Pointwise,
    Unit,
    Value,
    dtype_of,
    origins_of,
    shape_of,
    statistics_of,
)

# what puts values at other places, leaves them out or repeats them
_MOVES = frozenset((
    "broadcast_in_dim", "concatenate", "convert_element_type", "dynamic_slice", "dynamic_update_slice", "expand_dims",
    "gather", "index", "pad", "reduce_precision", "reshape", "rev", "scatter", "select_n", "slice", "split", "squeeze",
    "stack", "tile", "transpose", "unstack",
))  # fmt: skip
_SAME = frozenset(("copy", "copy_p", "mesh_cast", "name", "optimization_barrier", "reshard", "sharding_constraint"))
_WEIGHTED = {"conv_general_dilated": "convolution", "dot_general": "dense"}
_SUMS = frozenset(("reduce_sum", "reduce_window_sum", "cumsum"))
_SUMS_OF_TWO = frozenset(("add", "add_any", "sub"))
_AFFINE = _SUMS_OF_TWO | {"mul", "div", "neg"}
# what leaves a single number, written into the program, what it is
_SAME_NUMBER = frozenset(("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", *_SAME))


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
        run.env[number] = Known(value, name, learned=True)
    run.env[image] = run.unit(x)
    for step in code.steps:
        run.step(step)
    result = run.read(code.outputs[0])
    if isinstance(result, Known):
        raise ValueError("The output of the model does not depend on its input: there is nothing to explain.")
    unit = run.force(result)
    reached = run.reached(unit)
    return unit.value, tuple(run.sites[i] for i in reached), {i: run.values[i] for i in reached}


class _Run:
    """One passage through a program: what has been computed, and the sites met on the way."""

    def __init__(self, composite: Composite, offsets: Mapping[int, jax.Array], readers: Mapping[int, int]):
        self.composite, self.offsets, self.readers = composite, offsets, readers
        self.env: dict[int, Known | Value] = {}
        self.sites: list[tuple[Site, Rule]] = []
        self.values: dict[int, jax.Array] = {}
        self.units = 0

    def read(self, ref: Ref) -> Known | Value:
        if not isinstance(ref, Given):
            return self.env[ref]
        return Known(ref.value, learned=ref.learned, number=None if ref.learned else number_of(ref.value))

    def step(self, step: Step) -> None:
        operands = [self.read(ref) for ref in step.inputs]
        for number, result in zip(step.outputs, self._results(step, operands), strict=True):
            # what is read twice is computed once, whatever follows
            several = not isinstance(result, Known) and self.readers.get(number, 0) > 1
            self.env[number] = self.force(result) if several else result  # type: ignore[arg-type]

    def _results(self, step: Step, operands: list[Any]) -> Sequence[Known | Value]:
        values = [operand for operand in operands if not isinstance(operand, Known)]
        if not values:
            return self._known(step, operands, False)
        if step.name == "stop_gradient" or not any(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in step.avals):
            return self._known(step, operands, True)
        if step.name in _SAME or (step.name == "convert_element_type" and step.avals[0].dtype == dtype_of(operands[0])):
            return operands
        if step.elementwise and step.name != "convert_element_type" and len(step.outputs) == 1:
            return [self._elementwise(step, operands)]
        if len(values) == 1:
            if step.name in _WEIGHTED:
                return [self._weighted(step, operands)]
            if step.name in _SUMS:
                return [self._sum_over_axes(step, operands[0])]
            if step.name in MAXIMA:
                return [self._maximum(step, operands[0])]
        elif step.name in _WEIGHTED:
            return [self._product(step, operands)]
        if step.name in _MOVES:
            return self._moved(step, operands)
        raise self._unknown(step, operands)

    def _known(self, step: Step, operands: list[Any], follows: bool) -> list[Known]:
        results = step.call(*map(self._constant, operands))
        known = [operand for operand in operands if isinstance(operand, Known)]
        name = next((operand.name for operand in known if operand.name), "")
        learned = any(operand.learned for operand in known)
        follows = follows or any(operand.follows for operand in known)
        # the same along an axis: that makes a scale one per channel
        compact = unbroadcast(step, known[0].value) if step.name == "broadcast_in_dim" and known else None
        counted = step.name == "iota" or any(operand.counted for operand in known)
        same = operands[0] if len(operands) == 1 and step.name in _SAME_NUMBER and known else Known(None)
        above = compared(step, operands) or same.above
        root = self._followed(step, operands)
        return [
            Known(result, name, learned, counted, follows, compact, number=same.number, above=above, root=root)
            for result in results
        ]

    def _followed(self, step: Step, operands: list[Any]) -> Unit | None:
        """The unit whose values at the same places alone something known is computed from."""
        if not step.elementwise or step.name == "stop_gradient":
            return None
        roots = {
            operand.root if isinstance(operand, Known) else self._plain(operand)[0]
            for operand in operands
            if not isinstance(operand, Known) or operand.follows
        }
        return roots.pop() if len(roots) == 1 else None

    def _constant(self, operand: Known | Value) -> Any:
        return operand.value if isinstance(operand, Known) else lax.stop_gradient(self._plain(operand)[1])

    # element by element

    def _elementwise(self, step: Step, operands: list[Any]) -> Value:
        shape = step.avals[0].shape
        operands = [self._hold_statistic(step, operands, i) for i in range(len(operands))]
        operands = [self._broadcast(operand, step) for operand in operands]
        values = [operand for operand in operands if not isinstance(operand, Known)]
        if len(values) == 2 and step.name in _SUMS_OF_TWO:
            # where a ReLU is added to what it came from it stays an activation of its own
            operands = values = [self.force(value) if ends_rectified(value) else value for value in values]
        relu = rectifier(step, operands)
        if relu is not None:
            return self._pointwise(relu, operands, values, "relu")
        if len(values) == 1 and step.name in _AFFINE and not (step.name == "div" and values[0] is operands[1]):
            known = next((operand for operand in operands if isinstance(operand, Known)), Known(None))
            # scaled by what it is itself, as a leaky ReLU may be written, it is an activation
            if known.root is None or known.root is not self._plain(values[0])[0]:
                return self._affine(step, operands, values[0], known)
        if step.name == "select_n" and not operands[0].follows:
            return self._moved(step, operands)[0]
        if len({id(self._plain(value)[0]) for value in values}) == 1 and all(shape_of(v) == shape for v in values):
            return self._pointwise(step, operands, values, operation(step, operands))
        if step.name in _SUMS_OF_TWO:
            return self._total(step, operands)
        if step.name in ("mul", "div"):
            return self._product(step, operands)
        if step.name in ("max", "min"):
            return self._winner(step, operands)
        if step.name == "select_n":
            return self._moved(step, operands)[0]
        raise self._unknown(step, operands)

    def _affine(self, step: Step, operands: list[Any], value: Value, known: Known) -> Affine:
        number = known.value if known.compact is None else known.compact
        scale, shift = scale_and_shift(step.name, number, operands[0] is value, dtype_of(value))
        statistics = () if known.statistic is None else (known.statistic,)
        if isinstance(value, Affine) and value.unit is None and (value.diagonal or not known.follows):
            whole = folded(value, scale, shift)
            if whole is not None:
                return replace(whole, name=value.name or known.name, statistics=(*value.statistics, *statistics))
        if isinstance(value, Affine):
            value = self.force(value)
        weights = jnp.ones((), step.avals[0].dtype) if scale is None else jnp.asarray(scale)
        gate = is_gate(value) or (is_exponential(value) and (step.name == "div" or known.gate))
        return Affine(value, DIAGONAL, weights, shift, step.avals[0], known.name, step, gate, statistics)

    def _pointwise(self, step: Step, operands: list[Any], values: list[Value], name: str) -> Pointwise:
        chain = len(values) == 1
        # a ReLU is an activation of its own, whatever comes before it and after
        apart = isinstance(values[0], Pointwise) and "relu" in (name, values[0].steps[-1])
        if chain and (apart or (isinstance(values[0], Affine) and not values[0].diagonal)):
            values = [self.force(values[0])]
            operands = [operand if isinstance(operand, Known) else values[0] for operand in operands]
        root = self._plain(values[0])[0]
        arrays = [operand.value if isinstance(operand, Known) else self._plain(operand)[1] for operand in operands]
        value = step.call(*arrays)[0]
        before, replay = None, None
        if chain:
            apply = _at(step.call, operands, values[0])
            if isinstance(values[0], Affine):
                before, replay = values[0], apply
            elif isinstance(values[0], Pointwise) and values[0].before is not None:
                before, replay = values[0].before, _after(values[0].replay, apply)
        steps = (*(n for v in values for n in getattr(v, "steps", ())), name)
        return Pointwise(root, value, before, replay, step, steps, is_nonnegative(name))

    def _hold_statistic(self, step: Step, operands: list[Any], i: int) -> Any:
        """The operand, or where it is a statistic of the other one and to be held, its value."""
        operand = operands[i]
        if isinstance(operand, Known) or len(operands) != 2 or step.name not in ("sub", "mul", "div"):
            return operand
        other = operands[1 - i]
        if isinstance(other, Known) or not (statistics_of(operand) & origins_of(other)):
            return operand
        if (step.name, i) in (("sub", 0), ("div", 0)):
            return operand
        return self._held(step, operand, is_gate(operand)) or operand

    def _held(self, step: Step, operand: Any, gate: bool = False) -> Known | None:
        """A value as the composite holds it, of which another one is scaled or shifted; None where it does not."""
        index, rule = self._rule("statistic", step, "", shape_of(operand), False)
        if rule is gradient:
            return None
        site = self.unit(rule(self._plain(operand)[1]), site=index)
        return Known(site.value, follows=True, gate=gate, statistic=site)

    def _total(self, step: Step, operands: list[Any]) -> Unit:
        if step.name == "sub":
            minus = jnp.asarray(-1, step.avals[0].dtype)
            operands = [operands[0], Affine(operands[1], DIAGONAL, minus, None, step.avals[0], "", step)]
        parts = [self.force(operand) for operand in operands]
        index, rule = self._rule("sum", step, "", step.avals[0].shape, _first(*parts))
        arrays = [part.value for part in parts]
        value = arrays[0] + arrays[1] if rule is gradient else shared(arrays, rule)
        return self.unit(value, *parts, site=index, nonnegative=all(part.nonnegative for part in parts))

    def _winner(self, step: Step, operands: list[Any]) -> Unit:
        a, b = (self.force(operand) for operand in operands)
        # stacked: the first where they are equal, not half of it to each
        both = jnp.stack([a.value, b.value], -1)
        pool = pool_of_two(step, a.value.shape)
        index, rule = self._rule("pool", step, "", step.avals[0].shape, _first(a, b))
        value = pool.forward(both) if rule is gradient else rule(pool, both)
        least = any if step.name == "max" else all
        return self.unit(value, a, b, site=index, nonnegative=least((a.nonnegative, b.nonnegative)))

    def _product(self, step: Step, operands: list[Any]) -> Value:
        name = next((operand.name for operand in operands if isinstance(operand, Known)), "")
        factors = [operand for operand in operands if not isinstance(operand, Known)]
        units = [self.force(factor) for factor in factors]
        gates = [factor for factor, unit in zip(factors, units, strict=True) if unit.gate]
        weighing = factors[1:] if step.name == "div" else gates
        if len(weighing) == 1:
            held = self._held(step, weighing[0], gate=True)
            if held is not None:
                operands = [held if operand is weighing[0] else operand for operand in operands]
                return (self._weighted if step.name in _WEIGHTED else self._elementwise)(step, operands)
        index, rule = self._rule("product", step, name, step.avals[0].shape, False)
        forward = _only(step.call)
        arrays = [unit.value for unit in units]
        value = forward(*arrays) if rule is gradient else rule(forward, *arrays)
        return self.unit(value, *units, site=index, weighted=step.name in _WEIGHTED)

    # linear operations

    def _weighted(self, step: Step, operands: list[Any]) -> Affine:
        place = next(i for i, operand in enumerate(operands) if not isinstance(operand, Known))
        known = operands[1 - place]
        call = (lambda a, w: step.call(a, w)[0]) if place == 0 else (lambda a, w: step.call(w, a)[0])
        if step.name == "conv_general_dilated":
            call = lower(call)
        # an interpolation is no layer: its weights are made of positions, not learned
        kind = "average" if (known.counted and not known.learned) or known.gate else _WEIGHTED[step.name]
        axes = channel_axes(step, place, np.ndim(known.value))
        weighted = Linear(kind, step.name, call, functools.partial(fold, *axes, len(step.avals[0].shape)))
        source = self.force(operands[place])
        statistics = () if known.statistic is None else (known.statistic,)
        weights = jnp.asarray(known.value)
        return Affine(source, weighted, weights, None, step.avals[0], known.name, step, statistics=statistics)

    def _sum_over_axes(self, step: Step, value: Value) -> Affine:
        call = _only(step.call)
        if step.name == "reduce_window_sum":
            call = lower(call)
        average = Linear("average", step.name, lambda a, w: call(a) * w, scaled, step.name == "reduce_sum")
        one = jnp.ones((), step.avals[0].dtype)
        return Affine(self.force(value), average, one, None, step.avals[0], "", step)

    def _maximum(self, step: Step, value: Value) -> Unit:
        source = self.force(value)
        pool = pool_of(step, source.value.shape)
        index, rule = self._rule("pool", step, "", step.avals[0].shape, _first(source))
        out = pool.forward(source.value) if rule is gradient else rule(pool, source.value)
        statistics = source.origins | source.statistics if step.name in ("reduce_max", "reduce_min") else None
        return self.unit(out, source, site=index, nonnegative=source.nonnegative, statistics=statistics)

    def _moved(self, step: Step, operands: list[Any]) -> list[Any]:
        value = operands[0]
        if isinstance(value, Affine) and value.unit is None and not value.diagonal:
            move = move_of(step, value.aval.shape)
            if move is not None:
                return [moved(value, move, step.avals[0])]
        units = [self.force(operand) for operand in operands if not isinstance(operand, Known)]
        results = step.call(*(o.value if isinstance(o, Known) else self.force(o).value for o in operands))
        alone = len(units) == len(operands) or step.name in ("gather", "dynamic_slice")
        zeros = step.name == "pad" and operands[1].number == 0
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
        index, rule = self._rule(kind, value.step, value.name, value.aval.shape, _first(source), value.linear.operation)
        bias = jnp.zeros((), value.aval.dtype) if value.bias is None else jnp.asarray(value.bias)
        if rule is gradient:
            out = value.linear.forward(source.value, value.weights) + bias
        else:
            out = linear(rule, value.linear.forward, source.nonnegative)(source.value, value.weights, bias)
        moved = kind in ("affine", "average")
        return self.unit(
            out,
            source,
            *value.statistics,
            site=index,
            weighted=kind in ("convolution", "dense"),
            gate=value.gate,
            origins=source.origins if moved and not value.linear.reduces else frozenset(),
            statistics=statistics_of(value),
        )

    def _force_pointwise(self, value: Pointwise) -> Unit:
        root, array = value.root, value.value
        if value.before is not None and value.replay is not None:
            root = self.force(value.before)
            array = value.replay(root.value)
        done = " ".join(dict.fromkeys(value.steps))
        index, rule = self._rule("activation", value.step, "", array.shape, _first(root), done)
        out = array if rule is gradient else rule(root.value, array)
        return self.unit(
            out,
            root,
            site=index,
            nonnegative=value.nonnegative,
            gate=is_gate(value),
            exponential=is_exponential(value),
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
        if isinstance(operand, Known) or shape_of(operand) == shape or step.name == "select_n":
            return operand
        unit = self.force(operand)
        return self.unit(jnp.broadcast_to(unit.value, shape), unit, nonnegative=unit.nonnegative, gate=unit.gate)

    def _unknown(self, step: Step, operands: list[Any]) -> Exception:
        shapes = ", ".join(str(tuple(np.shape(o.value) if isinstance(o, Known) else shape_of(o))) for o in operands)
        where = line(step.source)
        return NotImplementedError(
            f"There is no rule for the operation {step.name!r} on values of the image, of shapes {shapes}"
            f"{f', at {where}' if where else ''}. Write it with operations that there are rules for; or, where it "
            "works element by element, wrap it in jax.custom_jvp, so that it is taken for an activation; or hold its "
            "result constant with jax.lax.stop_gradient; or split the network behind it (jaxsal.split) and explain the "
            "tail."
        )


def _first(*units: Unit) -> bool:
    return not any(unit.weighted for unit in units)


def _only(call: Callable[..., list[Any]]) -> Callable[..., jax.Array]:
    """An operation of one result."""
    return lambda *arrays: call(*arrays)[0]


def _at(call: Callable[..., list[Any]], operands: Sequence[Any], value: Value) -> Callable[[jax.Array], jax.Array]:
    """An operation as a function of one of its operands."""
    return lambda array: call(*(array if operand is value else operand.value for operand in operands))[0]


def _after(before: Any, apply: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda array: apply(before(array))
