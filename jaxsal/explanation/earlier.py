"""What an earlier run left at a place, so that one person's results never mix with another's."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxsal.data.files import refuse_overwrite
from jaxsal.explanation.naming import Place


def earlier_files(
    directory: Path,
    where: Place,
    run: dict[str, Any],
    *,
    overwrite: bool = False,
    inputs: Iterable = (),
) -> tuple[Path, ...]:
    """Files of an earlier run at a place that a new one may replace.

    The very same run (the same scan and network by SHA-256, the same parameters, the same files) may always be
    repeated. Any other is replaced only on request, and nothing but the files that its ``run.json`` lists.

    Args:
        directory: output folder.
        where: place of the scan in it.
        run: what will be done: ``image``, ``model``, ``parameters`` and ``files`` of its ``run.json``.
        overwrite: whether a run that differs may be replaced.
        inputs: files that are never written to.

    Returns:
        Those that exist.

    Raises:
        FileExistsError: if the place holds another run, or files of which no run knows.
        ValueError: if a file to be written is an input.
    """
    new = [directory / name for name in run["files"]]
    for path in new:
        refuse_overwrite(path, inputs)
    record = directory / where.file("run.json")
    old = _read(record)
    listed = [record, *_listed(old, directory, where)] if record.exists() else []
    if record.exists() and not overwrite:
        found = _differences(old, run)
        if found:
            raise FileExistsError(
                f"{record} is of another run, whose results would be replaced: {'; '.join(found)}. Give another output "
                "folder (-o DIR), or replace that run with --overwrite (from Python: overwrite=True)."
            )
    strangers = [path for path in new if path.exists() and path not in listed]
    if strangers:
        raise FileExistsError(
            f"{strangers[0]} exists and no {record.name} there lists it, so nobody knows whose it is: give another "
            "output folder (-o DIR), or move that file away."
        )
    existing = tuple(dict.fromkeys(path for path in listed if path.is_file()))
    for path in existing:
        refuse_overwrite(path, inputs)
    return existing


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _listed(record: dict[str, Any], directory: Path, where: Place) -> list[Path]:
    """Only names that this place can have: a list in a file is no licence to remove whatever it says."""
    names = record.get("files")
    paths = [PurePosixPath(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    folder = PurePosixPath(where.folder.as_posix())
    return [directory / path for path in paths if path.parent == folder and path.name.startswith(f"{where.prefix}_")]


def _differences(old: dict[str, Any], run: dict[str, Any]) -> list[str]:
    if not all(isinstance(old.get(key), dict) for key in ("image", "model", "parameters")):
        return ["it cannot be read as the record of a run"]
    found = [
        f"its {kind} is {_known(old[key])}, this one is {_known(run[key])}"
        for key, kind in (("image", "scan"), ("model", "network"))
        if old[key].get("sha256") != run[key]["sha256"]
    ]
    parameters = json.loads(json.dumps(run["parameters"]))
    # the options of another method would only repeat that it is another one
    same_method = old["parameters"].get("method") == parameters["method"]
    keys = [*parameters, *(old["parameters"].keys() - parameters.keys())] if same_method else ["method", "outputs"]
    for key in keys:
        before, now = old["parameters"].get(key), parameters.get(key)
        if before != now:
            found.append(f"its {key} is {_text(before)}, this one's is {_text(now)}")
    if _hashes(old) != _hashes(run):
        found.append("its reference scans are others")
    if not found and (more := set(map(str, old.get("files") or [])) - set(run["files"])):
        found.append(f"it holds {len(more)} files that this one would not write, for example {min(more)}")
    return found


def _hashes(run: dict[str, Any]) -> list[Any]:
    references = run.get("references")
    return [item.get("sha256") for item in references if isinstance(item, dict)] if isinstance(references, list) else []


def _known(record: dict[str, Any]) -> str:
    return f"{record.get('file') or record.get('name')} (SHA-256 {str(record.get('sha256'))[:12]}...)"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
