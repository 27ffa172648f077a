"""A method's columns, as people see them."""

from collections.abc import Mapping
from typing import Any

from jaxsal.methods import Column, Method
from jaxsal.methods.wording import quantity, share


def shown(column: Column, value: Any, unit: str) -> str:
    """A value of a column as text.

    Args:
        column: what it is.
        value: of one output.
        unit: of that output.

    Example:
        >>> shown(Column("recovered", "", "share"), 0.5, "mm^3"), shown(Column("mean", "", "quantity"), 0.5, "mm^3")
        ('50 %', '0.5 mm³')
    """
    if column.shown == "word":
        return str(value).replace("_", " ")
    if column.shown == "count":
        return str(int(value))
    return share(value) if column.shown == "share" else quantity(value, unit if column.shown == "quantity" else "1")


def headline(method: Method, row: Mapping[str, Any], *, words: bool = True) -> list[str]:
    """What stands over a picture besides the prediction: words as they are, numbers with the column's name.

    Args:
        method: whose headline.
        row: of the table.
        words: whether words are wanted too.
    """
    columns = {column.name: column for column in method.columns}
    texts = []
    for name in method.headline:
        text = shown(columns[name], row[name], row["unit"])
        if columns[name].shown != "word":
            texts.append(f"{name.replace('_', ' ')} {text}")
        elif words:
            texts.append(text)
    return texts
