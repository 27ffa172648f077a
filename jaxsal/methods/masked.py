"""What methods that optimise a mask have in common: what they tell, and when not to believe it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxsal.methods.record import Column, Found
from jaxsal.methods.wording import share

if TYPE_CHECKING:
    from jaxsal.masks import MaskResult, PerturbationResult

_FLIPPED = 0.1

RECOVERED_SHARE = Column(
    "recovered",
    "(masked - null) / (prediction - null); 1 for a mask that keeps all that matters",
    "share",
    "Recovered",
    brief=True,
)
VALUE = Column("value", "Objective at the end")
STEPS = Column("steps", "Updates of the mask", "count", "Steps", brief=True)
STATUS = Column(
    "status", "How the optimisation ended, or why the map should not be believed", "word", "Status", brief=True
)


def numbers(values: Any) -> Any:
    """Arrays as NumPy has them, for tables."""
    import numpy as np

    return np.asarray(values, dtype=float)


def meanings() -> dict[str, str]:
    """What the words in the column ``status`` mean."""
    from jaxsal.optim import Status

    return {status.name.lower(): status.message for status in Status}


def tell(
    result: "MaskResult | PerturbationResult",
    remark: Callable[[int, int], list[str]],
    mask: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
    meant: Mapping[str, str] | None = None,
) -> Found:
    """What optimised masks tell.

    Args:
        result: the masks.
        remark: of an output and an image, what is to be said of its mask.
        mask: for the record, beside the mask's shape.
        columns: of the table, beside those that every mask has.
        meant: words of the column ``status`` that mean something else here.
    """
    from jaxsal.masks.result import voxels

    words, grid = result.status_names, result.mask.shape[2:]
    return Found(
        maps=result.saliency,
        prediction=result.prediction,
        columns={
            "masked_prediction": result.masked_prediction,
            "null_prediction": result.null_prediction,
            "recovered": result.recovered,
            **(columns or {}),
            "value": result.value,
            **result.terms._asdict(),
            "steps": result.steps,
            "evaluations": result.evaluations,
            "status": words,
        },
        remarks=[
            [remark(o, b) + why_empty(result.saliency[o, b], result.mask[o, b]) for b in range(len(row))]
            for o, row in enumerate(words)
        ],
        about=f"mask of {voxels(grid)}",
        record={"mask": {"shape": list(grid), **mask}},
        meanings={**meanings(), **(meant or {})},
    )


def why_empty(saliency: Any, mask: Any) -> list[str]:
    """A remark on a map that is zero everywhere, by its mask; none on any other."""
    import numpy as np

    if np.asarray(saliency).any():
        return []
    mask = np.asarray(mask)
    if np.ptp(mask) <= 1e-6 * np.abs(mask).max():
        return ["The map is empty: the mask is the same everywhere, so no place stands out."]
    return [
        f"The map is empty although the mask is not the same everywhere: its values reach from {mask.min():.3g} to "
        f"{mask.max():.3g}, and those that are kept, the largest, are zero."
    ]


def flipped(energy: float) -> list[str]:
    """A remark on a mask whose energy lies, by this share, on negative values."""
    if not energy > _FLIPPED:
        return []
    return [
        f"{share(energy)} of the mask's energy is negative: it reaches the prediction with flipped "
        "features, which explains little. Take the solver 'recommended' instead."
    ]


NOT_FINITE = "The optimisation met a NaN or infinite value. Do not interpret the map."
