"""The files of an explanation, each whole or not at all."""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxsal import __version__
from jaxsal.data import Volume, bids_stem, write_atomic, write_text_atomic
from jaxsal.data.files import refuse_overwrite
from jaxsal.explanation.earlier import earlier_files
from jaxsal.explanation.naming import Place, labels, place
from jaxsal.explanation.paging import page
from jaxsal.explanation.planning import Plan
from jaxsal.explanation.provenance import identity, run_record
from jaxsal.explanation.result import Explanation
from jaxsal.explanation.showing import headline
from jaxsal.methods.wording import quantity
from jaxsal.progress import Meter, reporting
from jaxsal.report import cuts_png, render

_URL = "https://github.com/jaxsal/jaxsal"
_BEFORE = {
    "output": "Name of the network's output",
    "unit": "Of the prediction",
    "prediction": "Of the whole network",
    "sigma": "Standard deviation of the output over the training population, in its unit",
}
_AFTER = {
    "seconds": "Share of the time that all {masks} took together, compilation included",
    "peak_x": "Where the map is largest: millimetres to the right",
    "peak_y": "Where the map is largest: millimetres to the front",
    "peak_z": "Where the map is largest: millimetres upwards",
}


def describe_dataset(directory: str | os.PathLike) -> Path:
    """Make the output folder and write its ``dataset_description.json``.

    Raises:
        NotADirectoryError: if the folder is a file.
        FileExistsError: if the folder holds a data set that is not jaxsal's.
    """
    path = Path(directory) / "dataset_description.json"
    if path.exists() and "jaxsal" not in _generators(path):
        raise FileExistsError(
            f"{path.parent} is the folder of another data set ({path.name} does not name jaxsal): "
            f"write into a folder of its own, for example {path.parent / 'derivatives' / 'jaxsal'}."
        )
    return _write_json(
        path,
        {
            "Name": "Saliency maps by jaxsal",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "jaxsal", "Version": __version__, "CodeURL": _URL}],
        },
    )


def check_place(
    plan: Plan,
    image: str | os.PathLike | Volume,
    directory: str | os.PathLike,
    where: Place,
    *,
    name: str,
    one_file: bool = False,
    inputs: Iterable[str | os.PathLike] = (),
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Refuse to mix the results of a run with those of another; arguments as in :func:`write`.

    Returns:
        Files of an earlier run that will be replaced.

    Raises:
        FileExistsError: if the place holds another run, or files of which no run knows.
        ValueError: if a file would overwrite an input.
    """
    run = identity(plan, image, name, planned_files(plan, where, one_file=one_file))
    return earlier_files(Path(directory), where, run, overwrite=overwrite, inputs=inputs)


def planned_files(plan: Plan, where: Place, *, one_file: bool = False) -> tuple[Path, ...]:
    """The files that a run writes for one scan, relative to the output folder, the report last."""
    method, values = plan.method.label, labels(plan.output_names)
    endings = [] if one_file else ["nii.gz"]
    own = [where.file(f"{method}.{ending}", value) for value in values for ending in (*endings, "png")]
    joint = [where.file(f"{method}.{ending}") for ending in ("nii.gz", "json")] if one_file else []
    rest = ("run.json", "predictions.tsv", "predictions.json", "report.html")
    return (*own, *joint, *(where.file(suffix) for suffix in rest))


def write(
    explanation: Explanation,
    directory: str | os.PathLike,
    *,
    where: Place | None = None,
    one_file: bool = False,
    inputs: Iterable[str | os.PathLike] = (),
    overwrite: bool = False,
    command: str | None = None,
    progress: Meter | None = None,
) -> tuple[Path, ...]:
    """Write maps, pictures, table, run record and report.

    The very same run (scan and network by SHA-256, parameters, files) may be repeated into the same folder; the
    results of any other are replaced on request only.

    Args:
        explanation: what to write.
        directory: output folder, made when it does not exist.
        where: place in it; None follows from the scan's file name, see :func:`jaxsal.explanation.naming.place`.
        one_file: one 4-D map with a list of its outputs instead of one 3-D map for each.
        inputs: files that must not be overwritten, besides the scan itself.
        overwrite: remove what another run left at this place: the files that its ``run.json`` lists, no others.
        command: for the record, the command line without folders.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        The files written, the report last.

    Raises:
        NotADirectoryError: if the folder is a file.
        FileExistsError: if the folder holds a data set that is not jaxsal's, or the place holds another run.
        ValueError: if a file would overwrite an input.
    """
    directory, plan = Path(directory), explanation.plan
    own = () if explanation.volume.source is None else (explanation.volume.source,)
    protected = (*inputs, *own)
    where = place(bids_stem(explanation.name)) if where is None else where
    record = run_record(explanation, command, planned_files(plan, where, one_file=one_file))
    old = earlier_files(directory, where, record, overwrite=overwrite, inputs=protected)
    written = [describe_dataset(directory)]
    if overwrite:
        for path in old:
            path.unlink()
    # first, so that what an interruption leaves behind is known to be this run's
    written.append(_write_json(directory / where.file("run.json"), record, protected))
    names, total = explanation.output_names, len(explanation.output_names)
    pictures: list[bytes] = []
    frames: list[np.ndarray] = []
    with reporting(progress, "writing") as meter:
        for done, (name, label) in enumerate(zip(names, labels(names), strict=True)):
            meter(done, total, "writing maps and pictures")
            saliency = explanation.map(name)
            if one_file:
                frames.append(saliency.array)
            else:
                path = directory / where.file(f"{plan.method.label}.nii.gz", label)
                written.append(_write_map(path, saliency, name, protected))
            picture = cuts_png(
                explanation.volume,
                saliency,
                explanation.peak(name),
                _title(explanation, name),
                signed=plan.method.signed,
                brightest=plan.method.brightest,
            )
            pictures.append(picture)
            path = directory / where.file(f"{plan.method.label}.png", label)
            written.append(
                write_atomic(path, lambda file, picture=picture: file.write_bytes(picture), inputs=protected)
            )
        meter(total, total, "writing the report")
    if one_file:
        written += _write_frames(explanation, directory, where, frames, protected)
    table = explanation.table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.7g", lineterminator="\n")
    described = _described(plan)
    columns = {column: {"Description": described[column]} for column in explanation.table.columns}
    return (
        *written,
        write_text_atomic(directory / where.file("predictions.tsv"), table, inputs=protected),
        _write_json(directory / where.file("predictions.json"), columns, protected),
        write_text_atomic(
            directory / where.file("report.html"), render(page(explanation, record, pictures)), inputs=protected
        ),
    )


def _described(plan: Plan) -> dict[str, str]:
    own = {column.name: column.description for column in plan.method.columns}
    masks = "masks" if plan.method.family == "mask" else "maps"
    return {**_BEFORE, **own, **{name: text.format(masks=masks) for name, text in _AFTER.items()}}


def _title(explanation: Explanation, name: str) -> str:
    row = explanation.table.set_index("output").loc[name]
    parts = [quantity(row["prediction"], row["unit"]), *headline(explanation.plan.method, row)]
    return f"{name}: {' · '.join(parts)}"


def _write_map(path: Path, saliency: Volume, name: str, protected: tuple) -> Path:
    refuse_overwrite(path, protected)
    return saliency.save(path, intent_name=name)


def _write_frames(
    explanation: Explanation, directory: Path, where: Place, frames: list[np.ndarray], protected: tuple
) -> list[Path]:
    method = explanation.plan.method
    saliency = dataclasses.replace(explanation.volume, array=np.stack(frames, axis=-1))
    listing = {"Description": f"{method.title} saliency, one output in each frame", "Outputs": explanation.output_names}
    return [
        _write_map(directory / where.file(f"{method.label}.nii.gz"), saliency, method.title, protected),
        _write_json(directory / where.file(f"{method.label}.json"), listing, protected),
    ]


def _write_json(path: Path, content: Any, protected: tuple = ()) -> Path:
    return write_text_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", inputs=protected)


def _generators(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [str(item.get("Name")) for item in content.get("GeneratedBy", [])]
    except (ValueError, AttributeError, TypeError):
        return []
