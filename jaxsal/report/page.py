"""A report as one HTML file: pictures inside, nothing loaded from anywhere."""

import base64
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import NamedTuple

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Finding(NamedTuple):
    """What the report says about one output.

    Attributes:
        name: of the output.
        structure: what is measured, in words.
        prediction: with its unit.
        masked: prediction from what the mask keeps, with its unit.
        recovered: share, as text.
        steps: of the optimisation.
        status: in a word or two.
        meaning: of the status, in a sentence.
        place: of the map's peak, in words.
        remarks: warnings.
        picture: PNG.
    """

    name: str
    structure: str
    prediction: str
    masked: str
    recovered: str
    steps: int
    status: str
    meaning: str
    place: str
    remarks: tuple[str, ...]
    picture: bytes


class Page(NamedTuple):
    """Contents of a report; plain text, escaped when it is rendered.

    Attributes:
        title: of the page.
        facts: label and value, about the scan, the network and the run.
        findings: one for each output.
        warnings: names of the outputs that a text is about, and the text.
        reading: how to read the maps, one paragraph each.
        caveats: what the network was trained on and where it fails.
        credits: papers, data and licences.
        made_by: program and version.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    warnings: tuple[tuple[tuple[str, ...], str], ...]
    reading: tuple[str, ...]
    caveats: str
    credits: tuple[str, ...]
    made_by: str


def render(page: Page) -> str:
    """The page as HTML.

    Args:
        page: its contents.

    Returns:
        A whole document, UTF-8.
    """
    style = files("jaxsal.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            f"<header><h1>{escape(page.title)}</h1>\n{_facts(page.facts)}</header>",
            "<main>",
            _section("predictions", "Predictions", _table(page.findings)),
            _section("warnings", "Warnings", _warnings(page.warnings)),
            _section("reading", "How to read the maps", _paragraphs(page.reading)),
            _section("maps", "Maps", "\n".join(map(_figure, enumerate(page.findings, start=1)))),
            _section("network", "About the network", _paragraphs(_blocks(page.caveats))),
            _section("credits", "Credits and citation", _list(page.credits)),
            "</main>",
            f"<footer><p>Made by {escape(page.made_by)}. For research; not a medical device.</p></footer>",
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # no browser will load anything from elsewhere, whatever a record's text holds
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _section(name: str, title: str, content: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{content}\n</section>'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "\n".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts)
    return f"<dl>\n{rows}\n</dl>\n"


def _table(findings: Iterable[Finding]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row"><a href="#map-{number}">{escape(f.name)}</a></th><td class="number">'
        f'{escape(f.prediction)}</td><td class="number">{escape(f.masked)}</td><td class="number">'
        f'{escape(f.recovered)}</td><td class="number">{f.steps}</td><td>{escape(f.status)}'
        f"{' ⚠ see warnings' if f.remarks else ''}</td></tr>"
        for number, f in enumerate(findings, start=1)
    )
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Output", "Prediction", "From the mask alone", "Recovered", "Steps", "Status")
    )
    caption = "What the network predicts, and how much of it the mask recovers"
    return (
        f'<div class="scroll"><table>\n<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _warnings(warnings: Iterable[tuple[tuple[str, ...], str]]) -> str:
    items = [f"<li><strong>{escape(', '.join(names))}</strong>: {escape(text)}</li>" for names, text in warnings]
    return "<ul>\n" + "\n".join(items) + "\n</ul>" if items else "<p>None.</p>"


def _figure(numbered: tuple[int, Finding]) -> str:
    number, finding = numbered
    data = base64.b64encode(finding.picture).decode("ascii")
    about = f"{finding.name}{f' ({finding.structure})' if finding.structure else ''}"
    text = f"{about}: {finding.prediction}, recovered {finding.recovered}; {finding.place}"
    remarks = "".join(f'<p class="warning">⚠ {escape(remark)}</p>' for remark in finding.remarks)
    return (
        f'<figure id="map-{number}"><h3>{escape(about)}</h3>\n'
        f'<img src="data:image/png;base64,{data}" alt="Cuts through the saliency map on the scan. {escape(text)}.">\n'
        f"<figcaption>{escape(text)}. Status: {escape(finding.status)}, {escape(finding.meaning)}.</figcaption>"
        f"{remarks}</figure>"
    )


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts) or "<p>Its record says nothing.</p>"


def _blocks(text: str) -> list[str]:
    return [block.strip() for block in text.split("\n\n") if block.strip()]


def _list(items: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"
