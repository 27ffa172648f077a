"""HDF5 as far as Keras uses it: arrays that lie in the file itself and are there as a whole."""

import functools
import math
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .keras_errors import KerasError, told
from .keras_weights import Stored


class Held(NamedTuple):
    """Everything in a file, by its path from the root.

    Attributes:
        groups: as h5py gives them.
        datasets: likewise.
    """

    groups: dict[str, Any]
    datasets: dict[str, Any]


def h5py() -> Any:
    """The package.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Keras files are read with h5py, which is not installed: pip install 'jaxsal[keras]'."
        ) from None
    return h5py


def held(file: Any, where: str | os.PathLike) -> Held:
    """Walk a file.

    Args:
        file: open, of h5py.
        where: its path, for messages.

    Raises:
        KerasError: if something in it points elsewhere, which is not this model's to read, or stands there twice.
    """
    package = h5py()
    found = Held({}, {})
    seen, waiting = {_address(file)}, [("", file)]
    while waiting:
        above, group = waiting.pop()
        for name in group:
            path = f"{above}{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, package.HardLink):
                raise KerasError(
                    f"{where} has a link to another place for {path!r} ({type(link).__name__}), which is not followed: "
                    "save the model again."
                )
            here = group[name]
            if _address(here) in seen:
                raise KerasError(f"{where} has {path!r} under two names, as Keras never writes: save the model again.")
            seen.add(_address(here))
            if isinstance(here, package.Group):
                found.groups[path] = here
                waiting.append((f"{path}/", here))
            elif isinstance(here, package.Dataset):
                if here.external is not None or here.is_virtual:
                    raise KerasError(
                        f"{where} keeps {path!r} in another file, which is not read: save the model again."
                    )
                found.datasets[path] = here
    return found


def stored(dataset: Any, where: str | os.PathLike) -> Stored:
    """A dataset as a weight, to be read when it is known to be wanted.

    Args:
        dataset: of h5py.
        where: its path, for messages.
    """
    return Stored(tuple(dataset.shape or ()), functools.partial(_array, dataset, where))


def texts(group: Any, name: str, where: str | os.PathLike) -> list[str]:
    """An attribute that is a list of texts; Keras cuts one above 64 KB into ``name0``, ``name1``, ...

    Raises:
        KerasError: if there is none.
    """
    attributes = group.attrs
    parts: Sequence[str] = [name]
    if name not in attributes:
        count = next(i for i in range(len(attributes) + 1) if f"{name}{i}" not in attributes)
        parts = [f"{name}{i}" for i in range(count)]
    if not parts:
        raise KerasError(
            f"{where} has no list {name!r} in {group.name!r}: it is damaged, or its weights were not saved with the "
            "model. Save the whole model again, model.save('model.h5')."
        )
    return [text(value) for part in parts for value in np.atleast_1d(attributes[part])]


def text(value: Any) -> str:
    """Of an attribute."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(dataset: Any, where: str | os.PathLike) -> np.ndarray:
    """HDF5 gives zeros for what was never written; those are no weights."""
    with told(where):
        if dataset.dtype.kind not in "fiu":
            raise KerasError(
                f"{where} has {dataset.name!r} as {dataset.dtype}, numbers are needed: save the model in float32."
            )
        if dataset.chunks is None:
            whole = dataset.id.get_storage_size() >= dataset.nbytes
        else:
            whole = dataset.id.get_num_chunks() == math.prod(_grid(dataset))
        if not whole:
            raise KerasError(
                f"{where} states {dataset.name!r} with shape {dataset.shape} and does not hold all of it: it is "
                "damaged. Save the model again."
            )
        if dataset.chunks is not None and not _as_stated(dataset):
            raise KerasError(
                f"{where} packs {dataset.name!r} so that it would unpack to something else than its shape "
                f"{dataset.shape}: it is damaged, or made to fill the memory. Save the model without compression."
            )
        return np.asarray(dataset)


def _as_stated(dataset: Any) -> bool:
    """Whether all pieces unpack to what the shape says; HDF5 itself unpacks whatever there is, by any filters."""
    package = h5py()
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    deflate = package.h5z.FILTER_DEFLATE
    known = {deflate, package.h5z.FILTER_SHUFFLE, package.h5z.FILTER_FLETCHER32}
    if len(set(filters)) < len(filters) or not known.issuperset(filters):
        return False
    if any(k > n for n, k in zip(dataset.shape, dataset.chunks, strict=True)):
        return False
    least = math.prod(dataset.chunks) * dataset.dtype.itemsize
    most = least + 4  # with a checksum
    for index in np.ndindex(*_grid(dataset)):
        skipped, data = dataset.id.read_direct_chunk(tuple(i * k for i, k in zip(index, dataset.chunks, strict=True)))
        if deflate in filters and not skipped >> filters.index(deflate) & 1:
            data = zlib.decompressobj().decompress(data, most + 1)
        if not least <= len(data) <= most:
            return False
    return True


def _grid(dataset: Any) -> list[int]:
    """How many pieces there are along each axis."""
    return [math.ceil(n / k) for n, k in zip(dataset.shape, dataset.chunks, strict=True)]


def _address(each: Any) -> int:
    return h5py().h5o.get_info(each.id).addr
