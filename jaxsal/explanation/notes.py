"""What a reader must know about an explanation, in words."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsal.explanation.result import Explanation
from jaxsal.optim import Status

_FLIPPED = 0.1


class Note(NamedTuple):
    """A remark on one output.

    Attributes:
        output: its name.
        text: one or two sentences.
    """

    output: str
    text: str


def notes(explanation: Explanation) -> tuple[Note, ...]:
    """Remarks on the outputs whose maps should not be taken at face value."""
    found = []
    for row in explanation.table.to_dict("records"):
        texts = _remarks(row)
        if not math.isfinite(row["peak_x"]):
            texts.append(
                _why_empty(np.asarray(explanation.result.mask[explanation.output_names.index(row["output"]), 0]))
            )
        found += [Note(row["output"], text) for text in texts]
    return tuple(found)


def _why_empty(mask: np.ndarray) -> str:
    if np.ptp(mask) <= 1e-6 * np.abs(mask).max():
        return "The map is empty: the mask is the same everywhere, so no place stands out."
    return (
        f"The map is empty although the mask is not the same everywhere: its values reach from {mask.min():.3g} to "
        f"{mask.max():.3g}, and those that are kept, the largest, are zero."
    )


def _remarks(row: dict) -> list[str]:
    status = Status[row["status"].upper()]
    texts = []
    if status is Status.UNEXPLAINED:
        how = "more than one and a half times" if row["recovered"] > 1 else "less than half of"
        texts.append(
            f"The mask recovers {how} the prediction: it does not explain this output. Do not interpret the map."
        )
    elif status is Status.UNINFORMATIVE:
        texts.append(
            "The prediction hardly differs from that without any features: there is nothing to explain. "
            "Do not interpret the map."
        )
    elif status is Status.NOT_FINITE:
        texts.append("The optimisation met a NaN or infinite value. Do not interpret the map.")
    if row["negative_energy"] > _FLIPPED:
        texts.append(
            f"{share(row['negative_energy'])} of the mask's energy is negative: it reaches the prediction with flipped "
            "features, which explains little. Take the solver 'recommended' instead."
        )
    return texts


def quantity(value: float, unit: str = "1") -> str:
    """A number with four significant digits and its unit, for people.

    Example:
        >>> quantity(25613.2, "mm^3"), quantity(0.0123456), quantity(float("nan"))
        ('25613 mm³', '0.01235', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    # large numbers keep all their digits: 25613, not 2.561e+04
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return text if unit == "1" else f"{text} {unit.replace('^3', '³').replace('^2', '²')}"


def grouped(found: Sequence[Note]) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Remarks with the outputs that they are about: each text once."""
    texts = dict.fromkeys(note.text for note in found)
    return tuple((tuple(note.output for note in found if note.text == text), text) for text in texts)


def share(value: float) -> str:
    """A share as a percentage, for people; what is not finite is 'n/a'.

    Example:
        >>> share(0.983), share(-0.001), share(float("nan"))
        ('98 %', '0 %', 'n/a')
    """
    return f"{round(100 * value)} %" if math.isfinite(value) else "n/a"
