"""Networks on disk: one safetensors file, or an orbax directory; both carry the record."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from pydantic import ValidationError

from jaxsal.zoo.record import ModelRecord
from jaxsal.zoo.registry import build

_RECORD = "record.json"
_WEIGHTS = "weights"


class LoadedModel(NamedTuple):
    """A network ready to predict, and what it expects.

    Attributes:
        model: in evaluation mode.
        record: its identity card.
    """

    model: nnx.Module
    record: ModelRecord


def save(path: str | os.PathLike, model: nnx.Module, record: ModelRecord, *, dtype: Any = None) -> Path:
    """Write a network's weights and record, whole or not at all.

    Args:
        path: ``NAME.safetensors`` for one file, any other name for an orbax directory.
        model: the network; its ``Param`` and ``BatchStat`` variables are saved.
        record: what it expects and predicts.
        dtype: storage type of the weights (e.g. ``"float16"`` halves the file); None keeps them as they are.

    Returns:
        The path written.

    Raises:
        FileExistsError: if something else than a saved network lies there; only such a one is replaced.
        ValueError: if a weight is not finite, or too large for the storage type.
    """
    path = Path(path)
    _refuse_to_replace(path)
    flat = {name: _stored(name, value, dtype) for name, value in weights(model).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save as serialised

            # safetensors' own writer makes files that nobody else may read
            (staging / "file").write_bytes(serialised(flat, metadata={"record": record.model_dump_json()}))
            (staging / "file").replace(path)
        else:
            from orbax.checkpoint import v1 as ocp

            ocp.save(staging / "model" / _WEIGHTS, _nested(flat))  # type: ignore[arg-type]
            (staging / "model" / _RECORD).write_text(record.model_dump_json(indent=2))
            _put(staging / "model", path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def load(path: str | os.PathLike) -> LoadedModel:
    """Read a network and its record; no code is run from the file.

    Args:
        path: what :func:`save` wrote.

    Returns:
        The network in evaluation mode, weights in float32, and its record.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if it is not such a file, or its weights do not fit the recorded architecture: every
            missing, unknown and mis-shaped weight is named.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No network at {path}: give a .safetensors file or a directory that jaxsal saved.")
    flat, text = _read_directory(path) if path.is_dir() else _read_file(path)
    try:
        record = ModelRecord.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"The record in {path} is not valid: {error}") from None
    # shapes only: drawing initial weights to throw them away takes seconds
    model = nnx.eval_shape(lambda: build(record.architecture, record.config, len(record.outputs), record.input))
    model.eval()
    _fill(model, flat, path)
    return LoadedModel(model, record)


def weights(model: nnx.Module) -> dict[str, jax.Array]:
    """The saved variables of a network by dotted path, e.g. ``conv1.kernel``."""
    _, state, _ = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    return {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _refuse_to_replace(path: Path) -> None:
    """Only a network that was saved before, or nothing, may be replaced."""
    if path.suffix == ".safetensors":
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder, a file is to be written there: give another name.")
        return
    if path.exists() and not path.is_dir():
        raise FileExistsError(
            f"{path} is a file, a folder is to be written there: give a name that ends in .safetensors for one "
            "file, or another name for a folder."
        )
    found = {file.name for file in path.iterdir()} if path.is_dir() else set()
    others = sorted(found - {_RECORD, _WEIGHTS})
    if found and (others or _RECORD not in found):
        what = f"holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}" if others else "is not empty"
        raise FileExistsError(
            f"{path} is a folder that {what}{'' if _RECORD in found else f' and lacks {_RECORD}'}: it is not a "
            "network that jaxsal saved, and saving would replace the whole folder. Give the name of a new folder, "
            f"for example {path / 'network'}."
        )


def _stored(name: str, value: jax.Array, dtype: Any) -> np.ndarray:
    stored = np.asarray(value if dtype is None else value.astype(dtype))
    bad = int((~np.isfinite(stored)).sum())
    if bad and np.isfinite(np.asarray(value)).all():
        raise ValueError(
            f"The weight {name} reaches {float(np.abs(np.asarray(value)).max()):.4g}, which {stored.dtype} cannot hold "
            f"({bad} of {stored.size} values would be infinite): save it as float32 or bfloat16."
        )
    if bad:
        raise ValueError(
            f"The weight {name} holds {bad} NaN or infinite values of {stored.size}: such a network predicts nothing; "
            "look for where its training diverged."
        )
    return stored


def _put(folder: Path, path: Path) -> None:
    """Rename a folder to a path at which an older one may lie; when that fails the older one is put back."""
    if not path.is_dir():
        folder.replace(path)
        return
    # not in the staging folder: what cannot be put back must survive its removal
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-previous-", dir=path.parent))
    try:
        path.replace(aside / path.name)
        try:
            folder.replace(path)
        except BaseException:
            (aside / path.name).replace(path)
            raise
    except BaseException:
        if not any(aside.iterdir()):
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _fill(model: nnx.Module, flat: dict[str, np.ndarray], path: Path) -> None:
    _, state, _ = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    variables = {".".join(map(str, p)): leaf for p, leaf in nnx.to_flat_state(state)}
    problems = [f"missing {name}" for name in variables.keys() - flat.keys()]
    problems += [f"unknown {name}" for name in flat.keys() - variables.keys()]
    problems += [
        f"{name} has shape {flat[name].shape}, {variables[name].get_value().shape} is needed"
        for name in variables.keys() & flat.keys()
        if flat[name].shape != variables[name].get_value().shape
    ]
    if problems:
        raise ValueError(f"The weights in {path} do not fit the recorded network: {'; '.join(sorted(problems))}.")
    for name, variable in variables.items():
        variable.set_value(jax.numpy.asarray(flat[name], dtype=variable.get_value().dtype))
    nnx.update(model, state)


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("record")
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}). Weights of other kinds "
            "(.pth, .h5, .keras, model.json) are converted first: `jaxsal convert`, or jaxsal.converters in Python."
        ) from None
    if text is None:
        raise ValueError(f"{path} holds weights but no jaxsal record: save it with jaxsal.zoo.save.")
    return flat, text


def _read_directory(path: Path) -> tuple[dict[str, np.ndarray], str]:
    from orbax.checkpoint import v1 as ocp

    record = path / _RECORD
    if not record.is_file():
        raise ValueError(f"{path} is a directory without {_RECORD}: it is not a network that jaxsal saved.")
    text = record.read_text()
    try:
        json.loads(text)
        metadata = ocp.metadata(path / _WEIGHTS).metadata  # type: ignore[arg-type]
    except Exception as error:
        raise ValueError(f"The checkpoint in {path} cannot be read ({error}): it is incomplete or damaged.") from None
    like = jax.tree.map(lambda m: np.zeros(m.shape, m.dtype), metadata)
    tree = ocp.load(path / _WEIGHTS, like)  # type: ignore[arg-type]
    return {name: np.asarray(value) for name, value in _flat(tree)}, text


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for name, value in tree.items():
        items += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return items
