"""Weights by name: what is missing, unknown or of another shape is told all at once."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Where a weight comes from.

    Attributes:
        source: its name there.
        laid: brings the source's array to the order of axes that is needed here.
    """

    source: str
    laid: Callable[[np.ndarray], np.ndarray]


def matched(
    pairs: Mapping[str, Pair],
    shapes: Mapping[str, tuple[int, ...]],
    given: Mapping[str, np.ndarray],
    where: str | os.PathLike,
    ignored: Callable[[str], bool] = lambda name: name.endswith("num_batches_tracked"),
) -> dict[str, np.ndarray]:
    """The weights of a network from those of a file.

    Args:
        pairs: of every weight of the network, where it comes from.
        shapes: of every weight of the network.
        given: of the file, by its own names.
        where: the file, for the message.
        ignored: names of the file that say nothing about predictions.

    Raises:
        ValueError: if weights are missing in the file, unknown to the network or of another shape; all are named.

    Example:
        >>> import numpy as np
        >>> pairs = {"dense.kernel": Pair("fc.weight", np.transpose)}
        >>> matched(pairs, {"dense.kernel": (2, 3)}, {"fc.weight": np.ones((3, 2))}, "a.pth")["dense.kernel"].shape
        (2, 3)
        >>> matched(pairs, {"dense.kernel": (2, 3)}, {"fc.bias": np.ones(3)}, "a.pth")
        Traceback (most recent call last):
        ...
        ValueError: The weights in a.pth do not fit the network: missing fc.weight; unknown fc.bias. ...
    """
    missing = [pair.source for pair in pairs.values() if pair.source not in given]
    known = {pair.source for pair in pairs.values()}
    extra = [name for name in given if name not in known and not ignored(name)]
    found, wrong = {}, []
    for name, (source, laid) in pairs.items():
        if source not in given:
            continue
        try:
            array = laid(np.asarray(given[source]))
        except (ValueError, IndexError):
            array = None
        if array is None or array.shape != tuple(shapes[name]):
            wrong.append(f"{source} has shape {given[source].shape}, for {name} of shape {tuple(shapes[name])}")
        else:
            found[name] = array
    refuse(where, missing, extra, wrong)
    return found


def refuse(where: str | os.PathLike, missing: Sequence[str], extra: Sequence[str], wrong: Sequence[str]) -> None:
    """Raise if there is anything to tell.

    Args:
        where: the file.
        missing: names of weights that the network needs.
        extra: names of weights that it does not have.
        wrong: sentences about shapes.
    """
    problems = [f"missing {name}" for name in sorted(missing)]
    problems += [f"unknown {name}" for name in sorted(extra)]
    problems += sorted(wrong)
    if problems:
        raise ValueError(
            f"The weights in {where} do not fit the network: {'; '.join(problems)}. Give the file of this "
            "architecture, or name the architecture that the file is of."
        )
