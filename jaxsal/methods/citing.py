"""The papers behind methods, and behind results."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxsal.citations import Citation, bibliography, of_jaxsal
from jaxsal.methods.registry import check_options, find_method, method_names


def cited(used: Iterable[str], version: str) -> str:
    """BibTeX of what was used, and of jaxsal itself, each once.

    Args:
        used: names of methods; folders that ``jaxsal explain`` wrote, or their ``run.json`` files.
        version: of jaxsal.

    Raises:
        ValueError: if one is neither.

    Example:
        >>> cited(["smocam"], "1.0").count("@"), cited([], "1.0").startswith("@software{jaxsal,")
        (2, True)
    """
    return bibliography([*(citation for name in used for citation in _citations(name)), of_jaxsal(version)])


def _citations(name: str) -> Iterator[Citation]:
    if name in method_names():
        method = find_method(name)
        yield from method.cited(method.options())
        return
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"{name!r} is neither a method nor a file or folder of results. Methods: {', '.join(method_names())}."
        )
    records = [path] if path.is_file() else sorted(path.rglob("*run.json"))
    if not records:
        raise ValueError(f"{name} holds no run.json: give a folder that `jaxsal explain` wrote.")
    for record in records:
        yield from _citations_of_run(record)


def _citations_of_run(path: Path) -> Iterator[Citation]:
    try:
        parameters: Any = json.loads(path.read_text(encoding="utf-8"))["parameters"]
        method = find_method(parameters["method"])
        given = {key: value for key, value in parameters.items() if key in method.options.model_fields}
        yield from method.cited(check_options(method, given))
    except (KeyError, TypeError, UnicodeError, json.JSONDecodeError):
        raise ValueError(f"{path} cannot be read as the record of a run: give a run.json that jaxsal wrote.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
