"""Trained networks by name: those that come with jaxsal, and files."""

import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jaxsal.zoo import LoadedModel, load

_SUFFIX = ".safetensors"


class ModelFile(NamedTuple):
    """Where a network comes from, as far as others can check it.

    Attributes:
        name: file name without folders; None for a network made in memory.
        sha256: of the file, or of all files of the directory; None for a network made in memory.
    """

    name: str | None = None
    sha256: str | None = None


def shipped() -> dict[str, Path]:
    """The networks that come with jaxsal: name -> file."""
    folder = Path(str(files("jaxsal.zoo").joinpath("weights")))
    return {path.name.removesuffix(_SUFFIX): path for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def default_model() -> str:
    """Name of the network that ``jaxsal demo`` explains.

    Raises:
        FileNotFoundError: if this installation has none.
    """
    names = tuple(shipped())
    if not names:
        raise FileNotFoundError("This installation of jaxsal has no trained network: install it again.")
    return names[0]


def locate(model: str | os.PathLike) -> Path:
    """The file or directory of a network.

    Args:
        model: name of a shipped network, or path of a ``.safetensors`` file or directory that
            :func:`jaxsal.zoo.save` wrote.

    Raises:
        FileNotFoundError: if it is neither; the message lists the shipped networks.
    """
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    path = Path(model)
    if path.exists():
        return path
    names = ", ".join(known) or "none in this installation"
    raise FileNotFoundError(
        f"Unknown model {str(model)!r}: it is neither a file or folder nor a network that comes with jaxsal. "
        f"Those are: {names}. Give one of these names, or the path of a network saved by jaxsal.zoo.save."
    )


def load_model(model: str | os.PathLike) -> LoadedModel:
    """A trained network and its record.

    Args:
        model: see :func:`locate`.

    Returns:
        The network in evaluation mode and what it expects and predicts.

    Raises:
        FileNotFoundError: if there is no such network.
        ValueError: if the file cannot be read; see :func:`jaxsal.zoo.load`.
    """
    return load(locate(model))


def fingerprint(path: Path) -> ModelFile:
    """Name and SHA-256 of a network's file; a directory's files count with their names, in their order."""
    if path.is_file():
        return ModelFile(path.name, file_sha256(path))
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return ModelFile(path.resolve().name, digest.hexdigest())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
