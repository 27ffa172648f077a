"""The model card's tables, generated from the metrics that were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- generated tables: begin -->", "<!-- generated tables: end -->"
_TITLES = {
    "synthetic": "Unseen synthetic brains",
    "oasis_all": "OASIS, all people",
    "oasis_up_to_50": "OASIS, people up to 50 years",
}


def write(card: Path, metrics_file: Path, metrics: dict[str, Any]) -> None:
    """Write the metrics as JSON and put their tables between the card's two marker lines.

    Args:
        card: a Markdown file with the lines ``BEGIN`` and ``END``.
        metrics_file: the JSON file to write.
        metrics: from :func:`jaxsal.training.evaluate.evaluate`.

    Raises:
        ValueError: the card lacks a marker.
    """
    text = card.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{card} must hold the lines {BEGIN!r} and {END!r} once each: the tables go between them")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    metrics_file.write_text(json.dumps(metrics, indent=1) + "\n")
    card.write_text(f"{before}{BEGIN}\n\n{tables(metrics)}\n{END}{after}")


def tables(metrics: dict[str, Any]) -> str:
    """Markdown tables of every section."""
    return "\n".join(_section(title, metrics[name]) for name, title in _TITLES.items() if name in metrics)


def _section(title: str, section: dict[str, Any]) -> str:
    lines = [
        f"### {title} (n = {section['n']})",
        "",
        "| output | Pearson r | Spearman | ICC(A,1) | R^2 | R^2 calibrated | brain volume: r, R^2 cal."
        " | ventricle intensity: r, R^2 cal. |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in section["outputs"].items():
        network = row["network"]
        cells = [_with_interval(network[key]) for key in ("pearson", "spearman", "icc_a1", "r2", "r2_calibrated")]
        for baseline in ("brain_volume", "ventricle_intensity"):
            cells.append(f"{_number(row[baseline]['pearson'])}, {_number(row[baseline]['r2_calibrated'])}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| asymmetry (R - L) / (R + L) of | Pearson r |", "|---|---|"]
    lines += [f"| {name} | {_with_interval(row['pearson'])} |" for name, row in section["asymmetry"].items()]
    return "\n".join(lines) + "\n"


def _number(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f}"


def _with_interval(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
