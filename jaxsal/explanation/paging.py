"""What the report says about an explanation."""

from collections.abc import Sequence
from typing import Any

from jaxsal.data.coarsen import by
from jaxsal.explanation.notes import grouped, notes
from jaxsal.explanation.result import Explanation
from jaxsal.explanation.showing import headline, shown
from jaxsal.methods.wording import quantity
from jaxsal.report import Finding, Heading, Page


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
    method = plan.method
    at = "" if plan.layer is None else f" at layer {plan.layer}"
    about = f", {explanation.found.about}" if explanation.found.about else ""
    compared = tuple(
        ("Compared with", f"{reference.source['file'] or 'an image in memory'}, SHA-256 {reference.source['sha256']}")
        for reference in plan.references
    )
    scan = explanation.volume
    facts = (
        ("Scan", f"{explanation.name}, {by(scan.shape)} voxels of {by(scan.zooms)} mm, axes {''.join(scan.axcodes)}"),
        ("Network", f"{record.name} ({record.architecture}, {len(record.outputs)} outputs)"),
        ("Method", f"{method.title}{at}{about}"),
        ("Options", ", ".join(f"{name} = {value}" for name, value in plan.options.model_dump().items()) or "none"),
        *compared,
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
        title=f"{method.title} of {explanation.name}",
        facts=facts,
        caption=method.caption,
        headings=(
            Heading("Prediction"),
            *(Heading(column.heading, column.shown != "word") for column in method.columns if column.heading),
        ),
        findings=findings,
        warnings=grouped(remarks),
        reading=(*method.reading, _CUTS, *_units(explanation)),
        caveats=record.description,
        credits=(*(citation.text for citation in method.cited(plan.options)), *credits),
        made_by=f"jaxsal {run['versions']['jaxsal']}",
    )


_CUTS = "The cuts go through the largest value of the map. Left and right are marked; the person's left is on the left."


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
    method, found = explanation.plan.method, explanation.found
    prediction = quantity(row["prediction"], row["unit"])
    cells = [shown(column, row[column.name], row["unit"]) for column in method.columns if column.heading]
    numbers = headline(method, row, words=False)
    status = str(row.get("status", ""))
    return Finding(
        name=row["output"],
        structure=output.structure,
        cells=(prediction, *cells),
        summary=", ".join([prediction, *numbers]),
        outcome=f"Status: {status.replace('_', ' ')}, {found.meanings.get(status, 'see the table')}." if status else "",
        place=place,
        remarks=tuple(remarks),
        picture=picture,
    )
