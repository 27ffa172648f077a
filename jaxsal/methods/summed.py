"""Methods that give a map and nothing else: what a map tells by its numbers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxsal.methods.masked import numbers
from jaxsal.methods.record import Column, Found, Task
from jaxsal.methods.wording import quantity

if TYPE_CHECKING:
    import jax

# a completeness error above this is told
_OFF = 0.05
# a few voxels at edges are far larger than all others: the percentile that has the strongest colour
BRIGHTEST = 99.5
# captions of the report's table
SUMMED = "What the network predicts, and what its map adds up to"
SIGNED = "What the network predicts, and the signs of its map"

POSITIVE = Column("positive", "Share of the map's absolute sum that lies on positive values", "share", "Positive", True)
SUM = Column("sum", "Of the map over all voxels", "number", "Sum of the map", brief=True)
COLUMNS = (SUM, POSITIVE)
COMPLETE_COLUMNS = (
    Column("sum", "Of the map over all voxels, on the network's grid", "quantity", "Sum of the map", brief=True),
    Column("total", "What a complete map adds up to", "quantity", "To be explained"),
    Column("completeness_error", "|sum - total| / |total|", "share", "Missed", brief=True),
    POSITIVE,
)


class Maps(NamedTuple):
    """Signed maps, and what they are maps of.

    Attributes:
        maps: ``[o, b, *space]``.
        prediction: of the network, ``[o, b]``.
        total: what each map should add up to, ``[o, b]``; None where nothing is promised.
        about: the run in a few words.
    """

    maps: Any
    prediction: Any
    total: Any = None
    about: str = ""


def maps_by(
    function: Callable[[Task], Any], total: Callable[[Task, "jax.Array"], "jax.Array"] | None = None
) -> Callable[[Task], Maps]:
    """A method's ``run`` from a function that returns its maps.

    Args:
        function: ``task -> maps``, ``[o, b, *space]``, or ``[o, b, *space, c]``, which is summed over the channels.
        total: ``(task, prediction[o, b]) -> [o, b]``: what the maps of a complete method add up to.

    Returns:
        ``task -> Maps``, for methods whose ``tell`` is :func:`tell`.
    """

    def run(task: Task) -> Maps:
        maps = function(task)
        expected = (len(task.outputs), *task.x.shape[:-1])
        if maps.shape == (len(task.outputs), *task.x.shape):
            maps = maps.sum(-1)
        if maps.shape != expected:
            raise ValueError(
                f"The method returned maps of shape {tuple(maps.shape)} for {expected[0]} outputs of images "
                f"{task.x.shape}: [outputs, *images] is needed, {expected}, or the same with channels at the end."
            )
        prediction = predicted(task, task.x)
        return Maps(maps, prediction, None if total is None else total(task, prediction))

    return run


def predicted(task: Task, x: "jax.Array") -> "jax.Array":
    """The outputs that are explained, of images ``x[b, *space, c]``, ``[o, b]``."""
    import jax.numpy as jnp

    from jaxsal.masks.targets import predictions
    from jaxsal.model import as_pytree

    return predictions(as_pytree(task.model), x, len(x))[:, jnp.asarray(task.outputs)].T


def from_baseline(task: Task, prediction: "jax.Array") -> "jax.Array":
    """What the maps of a method add up to that compares images with one of the intensity ``options.baseline``."""
    import jax.numpy as jnp

    return prediction - predicted(task, jnp.full_like(task.x, task.options.baseline))


def tell(result: Maps) -> Found:
    """What such maps tell."""
    import numpy as np

    shape = result.maps.shape[:2]
    names = ("sum", "positive") if result.total is None else ("sum", "total", "completeness_error", "positive")
    columns = {name: np.full(shape, np.nan) for name in names}
    remarks: list[list[list[str]]] = [[[] for _ in range(shape[1])] for _ in range(shape[0])]
    for o, b in np.ndindex(*shape):  # one at a time: all maps of a scan in double precision are too many
        values = numbers(result.maps[o, b])
        told = _told(values) if result.total is None else _told(values, float(result.total[o, b]))
        for name, value in told.items():
            columns[name][o, b] = value
        remarks[o][b] = _remarks(values, told)
    return Found(result.maps, result.prediction, columns, remarks, result.about)


def tell_signs(result: Maps) -> Found:
    """What maps tell whose sum means nothing: columns ``(POSITIVE,)``."""
    found = tell(result)
    return found._replace(columns={"positive": found.columns["positive"]})


def _told(values: Any, total: float | None = None) -> dict[str, float]:
    import numpy as np

    found, size = float(values.sum()), float(np.abs(values).sum())
    told = {"sum": found, "positive": float(np.maximum(values, 0).sum()) / size if size else np.nan}
    if total is None:
        return told
    return told | {"total": total, "completeness_error": abs(found - total) / abs(total) if total else np.nan}


def _remarks(values: Any, told: dict[str, float]) -> list[str]:
    import numpy as np

    bad = int((~np.isfinite(values)).sum())
    if bad:
        return [f"{bad} of the map's {values.size} values are NaN or infinite. Do not interpret the map."]
    if not values.any():
        return ["The map is empty: it is zero everywhere, so no place stands out."]
    if told.get("completeness_error", 0.0) > _OFF:
        return [
            f"The map adds up to {quantity(told['sum'])}, and {quantity(told['total'])} was to be explained: take "
            "more steps or samples."
        ]
    return []
