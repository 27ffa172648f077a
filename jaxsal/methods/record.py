"""What is known of a method of explanation, whatever its family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from jaxsal.citations import Citation

if TYPE_CHECKING:  # the records of all methods are read without JAX: tables and citations are there at once
    import jax
    import numpy as np

    from jaxsal.model import Model
    from jaxsal.progress import Meter
    from jaxsal.splitting import Split

Family = Literal["mask", "gradient", "path", "backprop", "relevance", "cam", "response"]
Need = Literal["layer", "classification", "relu", "references", "key"]
Shown = Literal["quantity", "share", "count", "number", "word"]

FAMILIES: tuple[str, ...] = get_args(Family)
NEEDS: Mapping[Need, str] = {
    "layer": "a layer",
    "classification": "classes",
    "relu": "ReLU",
    "references": "reference images",
    "key": "random numbers",
}


class Options(BaseModel):
    """Options of a method: plain data, each with a default; derive a class and describe its attributes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(NamedTuple):
    """A number, or a word, that a method tells of every output.

    Attributes:
        name: of the column in ``predictions.tsv``.
        description: of it, in ``predictions.json``.
        shown: to people: ``"quantity"`` in the output's unit, ``"share"`` as a percentage, ``"count"``, ``"number"``
            or ``"word"``.
        heading: in the report's table; empty: not there.
        brief: whether it is in the short table of the command line.
    """

    name: str
    description: str
    shown: Shown = "number"
    heading: str = ""
    brief: bool = False


class Task(NamedTuple):
    """What a method is asked to explain.

    Attributes:
        model: the whole network, ``x[b, *space, c] -> y[b, k]``.
        x: images ``[b, *space, c]``.
        outputs: positions of the outputs to explain, ``o`` of them.
        sigma: standard deviation of every output of the network, ``[k]``.
        options: of the method, complete.
        split: the network cut at the layer; None for methods without one.
        references: images ``[n, *space, c]`` to compare with; None for methods without.
        progress: is told how far the work is.
    """

    model: "Model"
    x: "jax.Array"
    outputs: tuple[int, ...]
    sigma: "np.ndarray"
    options: Any
    split: "Split | None"
    references: "jax.Array | None"
    progress: "Meter"


class Found(NamedTuple):
    """What a method found out about ``o`` outputs of ``b`` images.

    Attributes:
        maps: ``[o, b, *space]`` on the grid of the images, signed where the method's record says so.
        prediction: ``[o, b]``, of what was explained.
        columns: ``[o, b]`` each, one for each :class:`Column` of the method's record, by name.
        remarks: ``[o][b]``, sentences on why a map should not be taken at face value.
        about: the run in a few words, e.g. the grid of the masks.
        record: plain data on the run for ``run.json``.
        meanings: of words in the column ``status``, in a sentence.
    """

    maps: Any
    prediction: Any
    columns: Mapping[str, Any]
    remarks: Any
    about: str = ""
    record: Mapping[str, Any] = {}
    meanings: Mapping[str, str] = {}


def _nothing(options: Any) -> tuple[Citation, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to explain a network; :func:`jaxsal.methods.register` makes it known.

    Attributes:
        name: on the command line: small letters, digits and hyphens.
        title: for people.
        family: that it belongs to.
        citations: of its papers, the first one where it was published.
        cites: the papers of particular options, ``options -> citations``.
        needs: what it cannot do without; one that needs a ``"key"`` has an option ``seed``.
        cost: in a few words, such as gradients of the network per output.
        reading: how its maps are to be read, in paragraphs.
        options: class of its options, see :class:`Options`.
        run: ``task -> result``; :func:`jaxsal.methods.maps_by` makes one of a function that returns maps.
        tell: ``result -> Found``.
        columns: what it tells of every output, in order.
        headline: columns that stand over the pictures.
        caption: of the report's table.
        signed: whether values below zero mean something: colours then diverge, and are symmetric about zero.
        brightest: percentile of the sizes of a map's values that takes the strongest colour in pictures. Below 100
            single voxels that are far larger than all others do not hide these.
    """

    name: str
    title: str
    family: Family
    citations: tuple[Citation, ...]
    cost: str
    reading: tuple[str, ...]
    run: Callable[[Task], Any]
    tell: Callable[[Any], Found]
    columns: tuple[Column, ...]
    options: type[BaseModel] = Options
    cites: Callable[[Any], tuple[Citation, ...]] = field(default=_nothing)
    needs: tuple[Need, ...] = ()
    headline: tuple[str, ...] = ()
    caption: str = "What the network predicts, and what the method says of it"
    signed: bool = True
    brightest: float = 100.0

    @property
    def label(self) -> str:
        """In file names, as BIDS has them: letters and digits only."""
        return self.name.replace("-", "")

    def cited(self, options: Any) -> tuple[Citation, ...]:
        """The papers of a run with some options."""
        return (*self.citations, *self.cites(options))
