"""Methods as people read of them: a table, and a page on each."""

import inspect
import re
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from jaxsal.methods.record import NEEDS, Method
from jaxsal.methods.registry import all_methods

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_HEADINGS = ("name", "family", "paper", "needs", "cost")


def table() -> "Table":
    """All methods, for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for heading in _HEADINGS:
        shown.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for method in all_methods():
        shown.add_row(*map(Text, _row(method)))
    return shown


def markdown_table() -> str:
    """All methods, as Markdown."""
    rows = [[f"`{name}`", *rest] for name, *rest in map(_row, all_methods())]
    lines = [_HEADINGS, ["---"] * len(_HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def described(method: Method) -> "RenderableType":
    """What there is to know of one method, for a terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    # plain text throughout: what a record says is no markup
    parts: list[Any] = [Text(f"{method.name}: {method.title}", "bold"), Text()]
    parts += [Text(citation.text) for citation in method.citations]
    parts += [Text(f"Family: {method.family}. Needs: {needs(method)}. Cost: {method.cost}."), Text()]
    parts += [Padding(Text(paragraph), (0, 0, 1, 0)) for paragraph in method.reading]
    parts.append(Text("Options, on the command line and in Python:" if method.options.model_fields else "No options."))
    texts = option_texts(method)
    for name, field in method.options.model_fields.items():
        option = f"--{name.replace('_', '-')} ({_kind(field.annotation)}, default {_default(field.default)})"
        parts.append(Padding(Text(option, "bold"), (0, 0, 0, 2)))
        parts.append(Padding(Text(texts.get(name, "")), (0, 0, 0, 6)))
    parts += [Text(), Text("predictions.tsv, besides the prediction:")]
    parts += [Padding(Text(f"{column.name}: {column.description}"), (0, 0, 0, 2)) for column in method.columns]
    return Group(*parts)


def needs(method: Method) -> str:
    """What a method cannot do without, in words."""
    return ", ".join(NEEDS[need] for need in method.needs) or "nothing"


def option_texts(method: Method) -> dict[str, str]:
    """What the options are, from the docstrings of their class and those that it is derived from."""
    found: dict[str, str] = {}
    for cls in reversed(method.options.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
            found |= re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in found.items()}


def _row(method: Method) -> list[str]:
    paper = "; ".join(f"{citation.who} {citation.year}" for citation in method.citations)
    return [method.name, method.family, paper, needs(method), method.cost]


def _kind(annotation: Any) -> str:
    """A type in words: ``Literal["a", "b"] | None`` is ``a|b``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (Union, UnionType):
        return "|".join(_kind(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        inner = [argument for argument in arguments if argument is not ...]
        return ",".join(map(_kind, inner)) + (",..." if ... in arguments else "")
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _default(value: Any) -> str:
    return "none" if value in (None, ()) else str(value)
