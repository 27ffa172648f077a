"""Methods by name."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from jaxsal.methods.cam import cams
from jaxsal.methods.gradient import gradients
from jaxsal.methods.path import paths
from jaxsal.methods.perturbation import extremal_perturbation, meaningful_perturbation
from jaxsal.methods.record import FAMILIES, NEEDS, Method
from jaxsal.methods.relevance import backprop, relevance
from jaxsal.methods.response import responses
from jaxsal.methods.smocam import smocam

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# columns that every table has, whatever the method
_COMMON = ("output", "unit", "prediction", "sigma", "seconds", "peak_x", "peak_y", "peak_z")


@functools.cache
def _known() -> dict[str, Method]:
    masks = (smocam(), meaningful_perturbation(), extremal_perturbation())
    shipped = (*masks, *gradients(), *paths(), *backprop(), *relevance(), *cams(), *responses())
    return {method.name: method for method in shipped}


def all_methods() -> Iterator[Method]:
    """The methods that there are, in order of their families."""
    return iter(sorted(_known().values(), key=lambda method: FAMILIES.index(method.family)))


def method_names() -> tuple[str, ...]:
    """Their names."""
    return tuple(method.name for method in all_methods())


def register(method: Method, *, replace: bool = False) -> Method:
    """Make a method known to :func:`jaxsal.explain`, for as long as the program runs.

    Args:
        method: its record.
        replace: whether it may take the name of another one.

    Returns:
        The method.

    Raises:
        ValueError: if its record contradicts itself, or the name is taken.

    Example:
        >>> register(find_method("smocam"), replace=True).title
        'SMOCAM'
    """
    problem = _contradiction(method) or ("" if replace else _taken(method))
    if problem:
        raise ValueError(f"The method {method.name!r} cannot be registered: {problem}")
    _known()[method.name] = method
    return method


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        ValueError: if there is none of that name; those that exist are listed.
    """
    if name not in _known():
        raise ValueError(f"Unknown method {name!r}. There is: {', '.join(method_names())}.")
    return _known()[name]


def check_options(method: Method, given: Mapping[str, Any]) -> BaseModel:
    """A method's options with its defaults filled in.

    Raises:
        ValueError: if one is unknown or out of its range; every one is named.

    Example:
        >>> check_options(find_method("smocam"), {"max_steps": 5}).max_steps
        5
    """
    try:
        return method.options(**given)
    except ValidationError as error:
        problems = [_problem(method, item) for item in error.errors()]
        raise ValueError(f"Options of {method.name}: {'; '.join(problems)}.") from None


def _problem(method: Method, item: Any) -> str:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"there is no option {name!r}, there are: {', '.join(method.options.model_fields) or 'none'}"
    text = item["msg"]
    return f"{name} got {item['input']!r}; {text[:1].lower()}{text[1:]}"


def _taken(method: Method) -> str:
    for known in _known().values():
        if known.label == method.label:
            return f"there is {known.name!r} ({known.title}) already; take another name, or replace=True."
    return ""


def _contradiction(method: Method) -> str:
    names = [column.name for column in method.columns]
    clashing = sorted({name for name in names if name in _COMMON or names.count(name) > 1})
    unknown = sorted(set(method.needs) - set(NEEDS))
    if not _NAME.fullmatch(method.name):
        return "a name has small letters, digits and single hyphens between them."
    if method.family not in FAMILIES:
        return f"its family is {method.family!r}; there is: {', '.join(FAMILIES)}."
    if unknown:
        return f"it needs {', '.join(unknown)}; a need is one of {', '.join(NEEDS)}."
    if not method.citations:
        return "it has no citation: those who use it should be able to say whose it is."
    if clashing:
        return f"the columns {', '.join(clashing)} are there already."
    if set(method.headline) - set(names):
        return f"its headline has {', '.join(sorted(set(method.headline) - set(names)))}, which is no column."
    if not 0 < method.brightest <= 100:
        return f"brightest is {method.brightest}, a percentile above 0 and up to 100 is needed."
    if not method.options.model_config.get("frozen"):
        return "its options can be changed: derive them from jaxsal.methods.Options."
    required = [name for name, field in method.options.model_fields.items() if field.is_required()]
    if required:
        return f"the options {', '.join(required)} have no default."
    if "key" in method.needs and "seed" not in method.options.model_fields:
        return "it draws random numbers, and its options have no seed to repeat them by."
    return ""
