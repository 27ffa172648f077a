"""What a reader must know about an explanation, in words."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxsal.explanation.result import Explanation


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
    return tuple(
        Note(name, text)
        for name, remarks in zip(explanation.output_names, explanation.found.remarks, strict=True)
        for text in remarks[0]
    )


def grouped(found: Sequence[Note]) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Remarks with the outputs that they are about: each text once."""
    texts = dict.fromkeys(note.text for note in found)
    return tuple((tuple(note.output for note in found if note.text == text), text) for text in texts)
