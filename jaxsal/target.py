"""Which of a network's outputs are explained."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def output_indices(outputs: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The outputs asked for, as positions.

    Args:
        outputs: ``"all"`` or a sequence of positions; negative ones count from the end.
        count: how many outputs the network has.

    Raises:
        ValueError: if one does not exist, or none was asked for.

    Example:
        >>> output_indices("all", 3), output_indices([0, -1], 3)
        ((0, 1, 2), (0, 2))
    """
    if isinstance(outputs, str):
        if outputs != "all":
            raise ValueError(f'outputs got {outputs!r}, "all" or a sequence of positions is needed.')
        return tuple(range(count))
    indices = tuple(int(index) for index in outputs)
    unknown = [index for index in indices if not -count <= index < count]
    if unknown or not indices:
        raise ValueError(f"outputs got {list(indices)}; the network has {count}: give positions from 0 to {count - 1}.")
    return tuple(index % count for index in indices)


def standard_deviations(sigma: Any, count: int) -> np.ndarray:
    """The standard deviation of every output, float64 ``[count]``.

    Args:
        sigma: a number for all, or one per output.
        count: how many outputs the network has.

    Raises:
        ValueError: if there are others, or one is not positive and finite.

    Example:
        >>> standard_deviations(2.0, 3).tolist()
        [2.0, 2.0, 2.0]
    """
    values = np.asarray(sigma, dtype=np.float64)
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"sigma has shape {values.shape}: give one number, or one per output of the network ({count})."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("sigma must be positive and finite: it is the standard deviation of each output.")
    return np.broadcast_to(values, (count,))
