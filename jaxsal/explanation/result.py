"""An explanation: what was found, on the scan's own grid, and how far to believe it."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxsal.data import SpaceCheck, Volume
from jaxsal.data.coarsen import by, told
from jaxsal.explanation.planning import Plan
from jaxsal.methods import Column, Found
from jaxsal.zoo import ModelRecord

if TYPE_CHECKING:
    import pandas

Point = tuple[float, float, float]


class Timing(NamedTuple):
    """Wall-clock seconds.

    Attributes:
        prepare: reading, checking and resampling the scan.
        masks: optimising all masks, or making all maps, compilation included.
    """

    prepare: float
    masks: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Which voxels of a scan a network used for its outputs.

    Attributes:
        name: of the scan.
        volume: the scan, on its own grid.
        plan: network, method, outputs and layer.
        result: of the method, e.g. :class:`jaxsal.MaskResult`; one image.
        space: how the scan lies in the network's space.
        timing: of the work.
    """

    name: str
    volume: Volume
    plan: Plan
    result: Any
    space: SpaceCheck
    timing: Timing

    @functools.cached_property
    def found(self) -> Found:
        """What the method found out, in the form that all methods have in common."""
        found, expected = self.plan.method.tell(self.result), [column.name for column in self.plan.method.columns]
        if list(found.columns) != expected:
            raise ValueError(
                f"The method {self.plan.method.name!r} tells {', '.join(found.columns) or 'nothing'}, its record "
                f"describes {', '.join(expected) or 'nothing'}: its `tell` must give the record's columns, in order."
            )
        return found

    @property
    def record(self) -> ModelRecord:
        """What the network expects and predicts."""
        return self.plan.record

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that were explained, in order."""
        return self.plan.output_names

    @property
    def resampled(self) -> str:
        """How the scan came to the network's grid, in a sentence."""
        spec = self.record.input
        affine = np.asarray(spec.affine, dtype=float)
        grid = f"the network's grid of {by(spec.shape)} voxels of {by(_sizes(affine))} mm"
        return told(self.volume, affine, grid)

    def map(self, output: str) -> Volume:
        """The saliency of one output on the scan's own grid; made anew at every call.

        Args:
            output: its name.

        Returns:
            float32, with the scan's affine and header.

        Raises:
            KeyError: if it was not explained; those that were are listed.
        """
        moved = self._on_network_grid(self._lane(output)).on_grid_of(self.volume)
        return moved.like(moved.array.astype(np.float32))

    def maps(self) -> Iterator[tuple[str, Volume]]:
        """Name and map of every output, one at a time."""
        return ((name, self.map(name)) for name in self.output_names)

    def peak(self, output: str) -> Point | None:
        """Where the saliency of an output is largest, in RAS millimetres; None for an empty map."""
        lane = self._on_network_grid(self._lane(output))
        if not lane.array.any():
            return None
        voxel = np.unravel_index(int(np.abs(lane.array).argmax()), lane.shape)
        x, y, z = (lane.affine @ [*voxel, 1])[:3]
        return float(x), float(y), float(z)

    @functools.cached_property
    def table(self) -> "pandas.DataFrame":
        """One row per output: its prediction and what the method tells of it.

        Columns:
            output, unit, prediction, sigma, those of the method's record (for SMOCAM masked_prediction,
            null_prediction, recovered, negative_energy, value, distance, norm, smoothness, steps, evaluations, status),
            seconds (all outputs run together; shared in proportion to their evaluations, where these are counted),
            peak_x, peak_y, peak_z (RAS millimetres).
        """
        import pandas

        found = self.found
        outputs = [self.record.outputs[index] for index in self.plan.outputs]
        counted = _numbers(found.columns["evaluations"]) if "evaluations" in found.columns else np.ones(len(outputs))
        peaks = [self.peak(name) or (np.nan,) * 3 for name in self.output_names]
        x, y, z = np.array(peaks, dtype=float).T
        return pandas.DataFrame(
            {
                "output": [output.name for output in outputs],
                "unit": [output.unit for output in outputs],
                "prediction": _numbers(found.prediction),
                "sigma": [output.sigma for output in outputs],
                **{column.name: _cells(column, found.columns[column.name]) for column in self.plan.method.columns},
                "seconds": self.timing.masks * counted / max(counted.sum(), 1),
                "peak_x": x,
                "peak_y": y,
                "peak_z": z,
            }
        )

    def save(self, directory: str | os.PathLike, **options: Any) -> tuple[Path, ...]:
        """Write maps, pictures, table, run record and report; see :func:`jaxsal.explanation.write`."""
        from jaxsal.explanation.writing import write

        return write(self, directory, **options)

    def __repr__(self) -> str:
        title = f"Explanation of {self.name} by {self.record.name} ({self.plan.described})"
        brief = [column.name for column in self.plan.method.columns if column.brief]
        return "\n".join([title, self.table[["output", "prediction", "unit", *brief]].to_string(index=False)])

    def _lane(self, output: str) -> int:
        if output not in self.output_names:
            raise KeyError(f"The output {output!r} was not explained; those are: {', '.join(self.output_names)}.")
        return self.output_names.index(output)

    def _on_network_grid(self, lane: int) -> Volume:
        affine = np.asarray(self.record.input.affine, dtype=float)
        return Volume(np.asarray(self.found.maps[lane, 0]), affine)


def _sizes(affine: np.ndarray) -> np.ndarray:
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def _cells(column: Column, values: Any) -> Any:
    if column.shown == "word":
        return [row[0] for row in values]
    numbers = _numbers(values)
    return numbers.astype(int) if column.shown == "count" else numbers


def _numbers(lanes: Any) -> np.ndarray:
    return np.asarray(lanes, dtype=float)[:, 0]
