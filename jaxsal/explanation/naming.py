"""Names of files, as BIDS derivatives have them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxsal.data import unique_stems

_BIDS = re.compile(r"(?P<entities>sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9]+)*)_(?P<suffix>[A-Za-z0-9]+)")


class Place(NamedTuple):
    """Where the files of one scan go, and how their names are made.

    Attributes:
        folder: relative to the output folder.
        prefix: entities that every name begins with.
        label: first part of the value of ``desc``, from the scan's own ``desc``.
    """

    folder: Path
    prefix: str
    label: str = ""

    def file(self, suffix: str, desc: str = "") -> Path:
        """Relative path of a file, e.g. ``suffix="smocam.nii.gz", desc="LeftHippocampus"``."""
        value = self.label + desc
        return self.folder / "_".join(filter(None, [self.prefix, value and f"desc-{value}", suffix]))


def place(stem: str) -> Place:
    """Where the derivatives of a scan lie.

    A scan named by BIDS keeps its entities, in ``sub-*/[ses-*/]anat``; its suffix becomes the entity ``mod``. Any
    other scan has a folder of its own.

    Args:
        stem: of the scan's file name, from :func:`jaxsal.data.bids_stem`.

    Example:
        >>> place("sub-01_ses-2_T1w").file("smocam.nii.gz", "LeftHippocampus").as_posix()
        'sub-01/ses-2/anat/sub-01_ses-2_mod-T1w_desc-LeftHippocampus_smocam.nii.gz'
        >>> place("brain").file("predictions.tsv").as_posix()
        'brain/brain_predictions.tsv'
    """
    match = _BIDS.fullmatch(stem)
    if match is None:
        return Place(Path(stem), stem)
    entities = match["entities"].split("_")
    label = "".join(entity.removeprefix("desc-") for entity in entities if entity.startswith("desc-"))
    folders = [entity for entity in entities if entity.startswith(("sub-", "ses-"))]
    kept = [entity for entity in entities if not entity.startswith(("desc-", "mod-"))]
    return Place(Path(*folders, "anat"), "_".join([*kept, f"mod-{match['suffix']}"]), label)


def places(paths: Sequence[str | os.PathLike]) -> tuple[Place, ...]:
    """A place for each of several scans, all different, whatever their case.

    Scans that differ only in entities which the names of derivatives do not keep have folders of their own.

    Example:
        >>> [where.file("run.json").as_posix() for where in places(["a/T1.nii", "b/T1.nii"])]
        ['a_T1/a_T1_run.json', 'b_T1/b_T1_run.json']
    """
    stems = unique_stems(paths)
    found = [place(stem) for stem in stems]
    folded = [where.file("run.json").as_posix().casefold() for where in found]
    return tuple(
        where if folded.count(name) == 1 else Place(Path(stem), stem)
        for where, stem, name in zip(found, stems, folded, strict=True)
    )


def labels(outputs: Sequence[str]) -> tuple[str, ...]:
    """Values of ``desc`` for output names: letters and digits only, all different, whatever their case.

    Example:
        >>> labels(["Left-Hippocampus", "CSF (total)", "CSF total"])
        ('LeftHippocampus', 'CSFTotal', 'CSFTotal3')
    """
    taken: set[str] = set()
    found = []
    for position, output in enumerate(outputs, start=1):
        words = re.findall(r"[A-Za-z0-9]+", output)
        label = "".join(word[0].upper() + word[1:] for word in words) or f"Output{position}"
        while label.casefold() in taken:
            label += str(position)
        taken.add(label.casefold())
        found.append(label)
    return tuple(found)
