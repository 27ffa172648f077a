"""What the report says about an explanation."""

from collections.abc import Sequence
from typing import Any

from jaxsal.data.coarsen import by
from jaxsal.explanation.notes import grouped, notes, quantity, share
from jaxsal.explanation.result import Explanation
from jaxsal.optim import Status
from jaxsal.report import Finding, Page


def page(explanation: Explanation, run: dict[str, Any], pictures: Sequence[bytes]) -> Page:
    """The report's contents.

    Args:
        explanation: what was found.
        run: from :func:`jaxsal.explanation.provenance.run_record`.
        pictures: PNG of every output, in order.
    """
    record, plan = explanation.record, explanation.plan
    remarks = notes(explanation)
    findings = tuple(
        _finding(explanation, row, picture, [note.text for note in remarks if note.output == row["output"]])
        for row, picture in zip(explanation.table.to_dict("records"), pictures, strict=True)
    )
    masks = by(explanation.result.mask.shape[2:])
    scan = explanation.volume
    facts = (
        ("Scan", f"{explanation.name}, {by(scan.shape)} voxels of {by(scan.zooms)} mm, axes {''.join(scan.axcodes)}"),
        ("Network", f"{record.name} ({record.architecture}, {len(record.outputs)} outputs)"),
        ("Method", f"{plan.method.title} at layer {plan.layer}, mask of {masks} voxels"),
        ("Options", ", ".join(f"{name} = {value}" for name, value in plan.options.model_dump().items())),
        ("Space", _space(explanation)),
        ("Grid", explanation.resampled),
        ("Date", run["date_utc"].replace("T", " ").replace("+00:00", " UTC")),
        ("Time", f"{sum(explanation.timing):.1f} s on {run['machine']['device']}"),
        ("Versions", ", ".join(f"{name} {value}" for name, value in run["versions"].items())),
        ("Image file", f"SHA-256 {run['image']['sha256']} (of its {run['image']['sha256_of']})"),
        ("Network file", f"SHA-256 {run['model']['sha256']} (of its {run['model']['sha256_of']})"),
    )
    credits = record.credits + ((f"Licence of the weights: {record.licence}",) if record.licence else ())
    return Page(
        title=f"{plan.method.title} of {explanation.name}",
        facts=facts,
        findings=findings,
        warnings=grouped(remarks),
        reading=(plan.method.reading, *_READING, *_units(explanation)),
        caveats=record.description,
        credits=(plan.method.citation, *credits),
        made_by=f"jaxsal {run['versions']['jaxsal']}",
    )


_READING = (
    "A bright place means that the network could make its prediction from there. It does not mean that the place is "
    "diseased, nor that the prediction is right.",
    "'Recovered' says how much of the prediction is left when the network sees only what the mask keeps: about 100 % "
    "for a mask that explains it, below 50 % or above 150 % for one that does not.",
    "The cuts go through the largest value of the map. Left and right are marked; the person's left is on the left.",
)


def _units(explanation: Explanation) -> tuple[str, ...]:
    cubic = any(explanation.record.outputs[index].unit == "mm^3" for index in explanation.plan.outputs)
    if not cubic or explanation.record.input.space == "native":
        return ()
    space = explanation.record.input.space
    return (
        f"Volumes in mm³ are those of the scan as it lies in {space} space. They are not volumes in the person's own "
        f"head: divide them by the scaling of the registration to {space} to compare with those.",
    )


def _space(explanation: Explanation) -> str:
    check = explanation.space
    if check.dice is None:
        return "native: the scan's own, no template to compare with"
    return f"{check.space}, overlap of the brain with the template's: Dice {check.dice:.2f}"


def _finding(explanation: Explanation, row: dict, picture: bytes, remarks: list[str]) -> Finding:
    output = explanation.record.outputs[explanation.record.output_index(row["output"])]
    peak = explanation.peak(row["output"])
    place = "the map is empty" if peak is None else "peak at x={:.0f}, y={:.0f}, z={:.0f} mm".format(*peak)
    return Finding(
        name=row["output"],
        structure=output.structure,
        prediction=quantity(row["prediction"], row["unit"]),
        masked=quantity(row["masked_prediction"], row["unit"]),
        recovered=share(row["recovered"]),
        steps=int(row["steps"]),
        status=row["status"].replace("_", " "),
        meaning=Status[row["status"].upper()].message,
        place=place,
        remarks=tuple(remarks),
        picture=picture,
    )
