"""What will be done to every scan, decided and checked once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from pydantic import BaseModel

from jaxsal.data import Volume
from jaxsal.explanation.referring import Reference, references_for
from jaxsal.methods import Method, all_methods, check_options, find_method
from jaxsal.models import ModelFile, fingerprint, locate
from jaxsal.splitting import Split, layers, split
from jaxsal.zoo import LoadedModel, ModelRecord, load


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A network, what is asked of it, and how; the same for every scan.

    Attributes:
        model: network and record.
        file: where the network comes from.
        method: of explanation.
        options: of the method, complete.
        outputs: positions of the outputs to explain.
        layer: where the network is split; None for methods that need no layer.
        split: its head and tail there; None likewise.
        references: scans to compare with, for methods that need them.
    """

    model: LoadedModel
    file: ModelFile
    method: Method
    options: BaseModel
    outputs: tuple[int, ...]
    layer: str | None
    split: Split | None
    references: tuple[Reference, ...] = ()

    @property
    def record(self) -> ModelRecord:
        """What the network expects and predicts."""
        return self.model.record

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs to explain, in order."""
        return tuple(self.record.outputs[index].name for index in self.outputs)

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of every output of the network, ``[k]``, each in its unit."""
        return np.array([output.sigma for output in self.record.outputs])

    @property
    def described(self) -> str:
        """The method, and where it looks."""
        return self.method.title if self.layer is None else f"{self.method.title} at {self.layer}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of :func:`jaxsal.explain` that repeat it, as plain data."""
        at = {} if self.layer is None else {"layer": self.layer}
        return {
            "method": self.method.name,
            "outputs": list(self.output_names),
            **at,
            **self.options.model_dump(mode="json"),
        }


def plan(
    model: str | os.PathLike | LoadedModel,
    method: str = "smocam",
    outputs: str | Sequence[str | int] = "all",
    layer: str | None = None,
    *,
    references: Sequence[str | os.PathLike | Volume] = (),
    **options: Any,
) -> Plan:
    """Decide what will be done; arguments as in :func:`jaxsal.explain`.

    Raises:
        FileNotFoundError: if there is no such network.
        ValueError: if the network cannot be read, or the method, an option or the layer does not exist.
        KeyError: if an output does not exist.
    """
    chosen = find_method(method)
    loaded, file = _loaded(model)
    record = loaded.record
    at = _layer(chosen, record, layer)
    checked = check_options(chosen, {**suited(record, at, method), **options})
    cut = None if at is None else _split(loaded, at)
    return Plan(
        loaded,
        file,
        chosen,
        checked,
        output_positions(record, outputs),
        at,
        cut,
        references_for(chosen, record.input, references),
    )


def _layer(method: Method, record: ModelRecord, layer: str | None) -> str | None:
    if "layer" in method.needs:
        return record.layer if layer is None else layer
    if layer is not None:
        at_layers = ", ".join(known.name for known in all_methods() if "layer" in known.needs)
        raise ValueError(
            f"{method.title} explains the image itself, not a layer, and a layer was given, {layer!r}: leave it out, "
            f"or take a method that has one: {at_layers}."
        )
    return None


def suited(record: ModelRecord, at: str | None, method: str) -> dict[str, Any]:
    """Options of a method that the network's record names: of one at a layer, at the network's own; none elsewhere.

    Raises:
        ValueError: if the record names a method or an option that does not exist, or a value out of its range.
    """
    for name, options in record.options.items():
        try:
            check_options(find_method(name), options)
        except ValueError as error:
            raise ValueError(
                f"The record of the network {record.name!r} names options that cannot be used: {error} Mend the "
                "record's `options` and save the network again."
            ) from None
    return dict(record.options.get(method, {})) if at in (None, record.layer) else {}


def output_positions(record: ModelRecord, outputs: str | Sequence[str | int]) -> tuple[int, ...]:
    """Positions of the outputs asked for, each once.

    Args:
        record: of the network.
        outputs: ``"all"``, one name, or a sequence of names and positions.

    Raises:
        KeyError: if one does not exist; those that do are listed.
        ValueError: if none is asked for.
    """
    if isinstance(outputs, str):
        outputs = record.output_names if outputs == "all" else [outputs]
    count = len(record.outputs)
    positions = []
    for output in outputs:
        if isinstance(output, str):
            positions.append(record.output_index(output))
        elif -count <= output < count:
            positions.append(int(output) % count)
        else:
            raise KeyError(f"The network {record.name!r} has {count} outputs, there is none at position {output}.")
    if not positions:
        raise ValueError(f'No output is asked for: give "all", or some of {", ".join(record.output_names)}.')
    return tuple(dict.fromkeys(positions))


def _loaded(model: str | os.PathLike | LoadedModel) -> tuple[LoadedModel, ModelFile]:
    if isinstance(model, LoadedModel):
        return model, ModelFile()
    if not isinstance(model, str | os.PathLike):
        raise TypeError(
            f"The model is a {type(model).__name__}; the name of a shipped network, a path, or a "
            "jaxsal.zoo.LoadedModel(model, record) is needed, for the record says what the network expects."
        )
    path = locate(model)
    return load(path), fingerprint(path)


def _split(loaded: LoadedModel, at: str) -> Split:
    spec = loaded.record.input
    example = jax.ShapeDtypeStruct((1, *spec.shape, spec.channels), np.float32)
    cut = split(loaded.model, example, at)
    table = layers(loaded.model, example)
    if not any(row.name == at and row.splits for row in table):
        possible = ", ".join(row.name for row in table if row.splits)
        raise ValueError(
            f"The output of layer {at!r} has no spatial axes, so no mask can lie on it. Layers that have them: "
            f"{possible}."
        )
    return cut
