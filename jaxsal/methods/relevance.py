"""Relevance and backprop, for files and the command line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from jaxsal import citations
from jaxsal.citations import Citation
from jaxsal.methods.gradient import Count, GradientOptions, attributed
from jaxsal.methods.path import Finite
from jaxsal.methods.record import Family, Method, Options, Task
from jaxsal.methods.summed import BRIGHTEST, COLUMNS, COMPLETE_COLUMNS, SUMMED, from_baseline, maps_by, tell

if TYPE_CHECKING:
    import jax

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RelevanceOptions(Options):
    """Options of methods that share an output's value among the voxels.

    Attributes:
        batch_size: outputs at once, which bounds memory; None takes one on a CPU, elsewhere all.
        start: ``"value"`` to share the output's value, ``"one"`` to share 1.
    """

    batch_size: Count | None = None
    start: Literal["one", "value"] = "value"


class LrpOptions(RelevanceOptions):
    """Options of layer-wise relevance propagation, see :func:`jaxsal.attribution.lrp`.

    Attributes:
        composite: which rules go where, see :mod:`jaxsal.composites`.
        epsilon: stabiliser of dense layers, and of all layers of the composite ``epsilon``; for those whose names begin
            with it.
        gamma: how much more counts what speaks for a layer's output, for ``gamma`` and ``epsilon-gamma-box``.
        alpha: weight of what excites, at least 1, for ``alpha-beta``; what inhibits has 1 less.
        low: least intensity of images, for ``epsilon-gamma-box``; None takes this image's.
        high: greatest intensity; None takes this image's.
    """

    composite: Literal[
        "epsilon-plus", "epsilon-plus-flat", "epsilon-alpha2-beta1", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box",
        "preset-a", "preset-a-flat", "preset-b", "preset-b-flat", "epsilon", "z", "z-plus", "gamma", "alpha-beta",
        "flat", "w-square",
    ] = "epsilon-plus"  # fmt: skip
    epsilon: Positive = 1e-6
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    alpha: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    low: Finite | None = None
    high: Finite | None = None

    @field_validator("epsilon", "gamma", "alpha", "low", "high")
    @classmethod
    def _of_the_composite(cls, value: float | None, info: ValidationInfo) -> float | None:
        composite, option = info.data.get("composite"), info.field_name or ""
        if composite and value != cls.model_fields[option].default and not _has(composite, option):
            told = {"composite": composite, "option": option}
            raise PydanticCustomError("composite", "the composite {composite} has no {option}", told)
        return value


class DeepTaylorOptions(RelevanceOptions):
    """Options of deep Taylor decomposition, see :func:`jaxsal.attribution.deep_taylor`.

    Attributes:
        bounded: share the first layer by the bounds of this image's intensities (rule z^B); without, by the squares of
            its weights alone.
    """

    bounded: bool = False


class DeepLiftOptions(Options):
    """Options of DeepLIFT, see :func:`jaxsal.attribution.deep_lift`.

    Attributes:
        baseline: intensity of the reference image, as the network sees it.
        batch_size: outputs at once, which bounds memory; None takes one on a CPU, elsewhere all.
    """

    baseline: Finite = 0.0
    batch_size: Count | None = None


def _has(composite: str, option: str) -> bool:
    """Whether a composite has rules that an option belongs to."""
    if option == "epsilon":
        return composite.startswith("epsilon")
    return composite in {"gamma": ("gamma", "epsilon-gamma-box"), "alpha": ("alpha-beta",)}.get(
        option, ("epsilon-gamma-box",)
    )


def _lrp_papers(options: LrpOptions) -> tuple[Citation, ...]:
    """Of a composite, besides the one that LRP is from."""
    if options.composite.startswith(("epsilon-plus", "epsilon-alpha2-beta1", "epsilon-gamma-box")):
        return (citations.KOHLBRENNER_2020,)
    return (citations.MONTAVON_2017,) if options.composite in ("z-plus", "w-square") else ()


def _composite(options: LrpOptions, x: "jax.Array") -> Any:
    from jaxsal.attribution import composites

    make = getattr(composites, options.composite.replace("-", "_"))
    if options.composite == "epsilon-gamma-box":
        low, high = _bounds(x, options.low, options.high)
        return make(low, high, options.epsilon, options.gamma)
    if options.composite == "gamma":
        return make(options.gamma)
    if options.composite == "alpha-beta":
        return make(options.alpha, options.alpha - 1)
    return make(options.epsilon) if options.composite.startswith("epsilon") else make()


def _bounds(x: "jax.Array", low: float | None = None, high: float | None = None) -> tuple[float, float]:
    return float(x.min()) if low is None else low, float(x.max()) if high is None else high


def _lrp(task: Task) -> Any:
    from jaxsal import attribution

    options = task.options
    composite = _composite(options, task.x)
    return attribution.lrp(
        task.model,
        task.x,
        outputs=task.outputs,
        batch_size=options.batch_size,
        composite=composite,
        start=options.start,
    )


def _deep_taylor(task: Task) -> Any:
    from jaxsal import attribution

    options = task.options
    bounds = _bounds(task.x) if options.bounded else None
    return attribution.deep_taylor(
        task.model,
        task.x,
        bounds=bounds,
        outputs=task.outputs,
        batch_size=options.batch_size,
        start=options.start,
    )


_SHARES = "1 gradient per output, of about twice the cost"


def _record(
    name: str,
    title: str,
    family: Family,
    paper: Citation,
    cost: str,
    reading: str,
    maps: Callable[[Task], Any],
    options: type[Options],
) -> Method:
    return Method(
        name=name,
        title=title,
        family=family,
        citations=(paper,),
        needs=("relu",) if name in _RELU else (),
        cost=cost,
        reading=(reading,),
        options=options,
        run=maps_by(maps),
        tell=tell,
        columns=COLUMNS,
        caption=SUMMED,
        brightest=BRIGHTEST,
    )


_RELU = frozenset(("deconvnet", "guided-backprop", "deep-taylor", "excitation-backprop",
                   "contrastive-excitation-backprop"))  # fmt: skip


def backprop() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        _record(
            "deconvnet",
            "DeconvNet",
            "backprop",
            citations.ZEILER_2014,
            "1 gradient per output",
            "What the image must hold for the output's units to be excited, projected back through the network's "
            "filters: red where it fits, blue where its opposite would. It shows edges of the image whatever the "
            "output is: compare the maps of several outputs before reading one of them.",
            attributed("deconvnet"),
            GradientOptions,
        ),
        _record(
            "guided-backprop",
            "Guided backprop",
            "backprop",
            citations.SPRINGENBERG_2014,
            "1 gradient per output",
            "The gradient along paths on which everything excites and nothing inhibits: red where a brighter voxel "
            "raises the output along them, blue where it lowers it. It shows edges of the image whatever the output "
            "is: compare the maps of several outputs before reading one of them.",
            attributed("guided_backprop"),
            GradientOptions,
        ),
        _record(
            "excitation-backprop",
            "Excitation backprop",
            "backprop",
            citations.ZHANG_2018,
            _SHARES,
            "The output's value, shared among what excites it, layer by layer: bright where much of it ends. What "
            "inhibits the output has no share.",
            attributed("excitation_backprop"),
            RelevanceOptions,
        ),
        _record(
            "contrastive-excitation-backprop",
            "Contrastive excitation backprop",
            "backprop",
            citations.ZHANG_2018,
            _SHARES,
            "Excitation backprop for the output less that for its opposite: red where more speaks for the output, blue "
            "where more speaks against it; what speaks for everything cancels.",
            attributed("contrastive_excitation_backprop"),
            RelevanceOptions,
        ),
    )


def _deep_lift(name: str, title: str, function: str, cost: str, more: str = "") -> Method:
    return Method(
        name=name,
        title=title,
        family="relevance",
        citations=(citations.SHRIKUMAR_2017,),
        cost=cost,
        reading=(
            "What each voxel adds to the output, compared with a reference image of one intensity: red adds, blue "
            f"takes away. The map adds up to the difference of the two predictions.{more}",
        ),
        options=DeepLiftOptions,
        run=maps_by(attributed(function), from_baseline),
        tell=tell,
        columns=COMPLETE_COLUMNS,
        caption=SUMMED,
        brightest=BRIGHTEST,
    )


def relevance() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        Method(
            name="lrp",
            title="Layer-wise relevance propagation",
            family="relevance",
            citations=(citations.BACH_2015,),
            cites=_lrp_papers,
            cost=_SHARES,
            reading=(
                "The output's value, shared back layer by layer among what made it: red where a voxel's share has the "
                "sign of the value, blue where it has the other. Biases and stabilisers take a part; the sum of the "
                "map beside the prediction tells how much is left.",
            ),
            options=LrpOptions,
            run=maps_by(_lrp),
            tell=tell,
            columns=COLUMNS,
            caption=SUMMED,
            brightest=BRIGHTEST,
        ),
        _record(
            "deep-taylor",
            "Deep Taylor decomposition",
            "relevance",
            citations.MONTAVON_2017,
            _SHARES,
            "The output's value, shared back among what excites it, with the image compared to one that would not: "
            "voxels have the sign of the output, but where the network adds values of both signs to one another, as "
            "residual networks do. For networks of ReLUs.",
            _deep_taylor,
            DeepTaylorOptions,
        ),
        _deep_lift(
            "deep-lift",
            "DeepLIFT",
            "deep_lift",
            "1 gradient per output, of twice the images",
        ),
        _deep_lift(
            "reveal-cancel",
            "DeepLIFT, what raises and what lowers apart",
            "reveal_cancel",
            "1 gradient per output, of four times the images",
            " What cancels within the network counts too, on both sides.",
        ),
    )
