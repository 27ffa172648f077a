"""A report as one HTML file: pictures inside, nothing loaded from anywhere."""

import base64
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import NamedTuple

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Heading(NamedTuple):
    """Of a column of the table.

    Attributes:
        text: a few words.
        number: whether numbers stand under it.
    """

    text: str
    number: bool = True


class Finding(NamedTuple):
    """What the report says about one output.

    Attributes:
        name: of the output.
        structure: what is measured, in words.
        cells: of its row in the table, one under each heading.
        summary: the most important of them, in words.
        outcome: how the run ended, in a sentence; empty for none.
        place: of the map's peak, in words.
        remarks: warnings.
        picture: PNG.
    """

    name: str
    structure: str
    cells: tuple[str, ...]
    summary: str
    outcome: str
    place: str
    remarks: tuple[str, ...]
    picture: bytes


class Page(NamedTuple):
    """Contents of a report; plain text, escaped when it is rendered.

    Attributes:
        title: of the page.
        facts: label and value, about the scan, the network and the run.
        caption: of the table.
        headings: of its columns after the first, which names the output.
        findings: one for each output.
        warnings: names of the outputs that a text is about, and the text.
        reading: how to read the maps, one paragraph each.
        caveats: what the network was trained on and where it fails.
        credits: papers, data and licences.
        made_by: program and version.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    caption: str
    headings: tuple[Heading, ...]
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
            _section("predictions", "Predictions", _table(page)),
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


def _table(page: Page) -> str:
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("Output", *(h.text for h in page.headings)))
    rows = "\n".join(_row(number, finding, page.headings) for number, finding in enumerate(page.findings, start=1))
    return (
        f'<div class="scroll"><table>\n<caption>{escape(page.caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _row(number: int, finding: Finding, headings: tuple[Heading, ...]) -> str:
    texts = [escape(cell) for cell in finding.cells]
    texts[-1] += " ⚠ see warnings" if finding.remarks else ""
    cells = "".join(
        f'<td class="number">{text}</td>' if heading.number else f"<td>{text}</td>"
        for text, heading in zip(texts, headings, strict=True)
    )
    return f'<tr><th scope="row"><a href="#map-{number}">{escape(finding.name)}</a></th>{cells}</tr>'


def _warnings(warnings: Iterable[tuple[tuple[str, ...], str]]) -> str:
    items = [f"<li><strong>{escape(', '.join(names))}</strong>: {escape(text)}</li>" for names, text in warnings]
    return "<ul>\n" + "\n".join(items) + "\n</ul>" if items else "<p>None.</p>"


def _figure(numbered: tuple[int, Finding]) -> str:
    number, finding = numbered
    data = base64.b64encode(finding.picture).decode("ascii")
    about = f"{finding.name}{f' ({finding.structure})' if finding.structure else ''}"
    text = f"{about}: {finding.summary}; {finding.place}"
    outcome = f" {escape(finding.outcome)}" if finding.outcome else ""
    remarks = "".join(f'<p class="warning">⚠ {escape(remark)}</p>' for remark in finding.remarks)
    return (
        f'<figure id="map-{number}"><h3>{escape(about)}</h3>\n'
        f'<img src="data:image/png;base64,{data}" alt="Cuts through the saliency map on the scan. {escape(text)}.">\n'
        f"<figcaption>{escape(text)}.{outcome}</figcaption>"
        f"{remarks}</figure>"
    )


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts) or "<p>Its record says nothing.</p>"


def _blocks(text: str) -> list[str]:
    return [block.strip() for block in text.split("\n\n") if block.strip()]


def _list(items: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"
