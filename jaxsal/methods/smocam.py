"""SMOCAM, for files and the command line."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from jaxsal import citations
from jaxsal.methods.masked import NOT_FINITE, RECOVERED_SHARE, STATUS, STEPS, VALUE, flipped, numbers, tell
from jaxsal.methods.record import Column, Found, Method, Options, Task

if TYPE_CHECKING:
    import optax

    from jaxsal.masks import MaskResult


class SmocamOptions(Options):
    """Options of SMOCAM, see :func:`jaxsal.smocam`.

    Attributes:
        solver: ``"recommended"`` solves the mask problem with the network linearised, at or above zero; ``"paper"``
            takes the published step; ``"nonnegative"`` takes it and keeps the mask at or above zero.
        max_steps: most updates for each output.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: 0 to 100; how much of the map is set to zero.
    """

    solver: Literal["recommended", "paper", "nonnegative"] = "recommended"
    max_steps: Annotated[int, Field(ge=1)] = 2000
    lam: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    percentile: Annotated[float, Field(ge=0, le=100)] = 95.0


def _recommended() -> "optax.GradientTransformation":
    from jaxsal import optim

    return optim.nonnegative(optim.prox_linear())


def _paper() -> "optax.GradientTransformation":
    from jaxsal import optim

    return optim.armijo_once()


def _nonnegative() -> "optax.GradientTransformation":
    from jaxsal import optim

    return optim.nonnegative(optim.armijo_once())


SOLVERS: Mapping[str, Callable[[], "optax.GradientTransformation"]] = {
    "recommended": _recommended,
    "paper": _paper,
    "nonnegative": _nonnegative,
}


def _run(task: Task) -> "MaskResult":
    from jaxsal import masks

    options: SmocamOptions = task.options
    assert task.split is not None
    return masks.smocam(
        task.split,
        task.x,
        task.outputs,
        sigma=task.sigma,
        lam=options.lam,
        gamma=options.gamma,
        solver=SOLVERS[options.solver](),
        max_steps=options.max_steps,
        percentile=options.percentile,
        progress=task.progress,
    )


def _tell(result: "MaskResult") -> Found:
    words, recovered, energy = result.status_names, numbers(result.recovered), numbers(result.negative_energy)
    return tell(
        result,
        lambda o, b: _remarks(words[o][b], recovered[o, b], energy[o, b]),
        mask={"geometry_in_voxels": result.config.geometry._asdict()},
        columns={"negative_energy": result.negative_energy},
    )


def _remarks(word: str, recovered: float, energy: float) -> list[str]:
    texts = []
    if word == "unexplained":
        how = "more than one and a half times" if recovered > 1 else "less than half of"
        texts.append(
            f"The mask recovers {how} the prediction: it does not explain this output. Do not interpret the map."
        )
    elif word == "uninformative":
        texts.append(
            "The prediction hardly differs from that without any features: there is nothing to explain. "
            "Do not interpret the map."
        )
    elif word == "not_finite":
        texts.append(NOT_FINITE)
    return texts + flipped(energy)


def smocam() -> Method:
    """Its record."""
    return Method(
        name="smocam",
        title="SMOCAM",
        family="mask",
        citations=(citations.KONATE_2021,),
        needs=("layer",),
        cost="20 to 80 gradients of the layers behind per output",
        reading=(
            "For each output, SMOCAM looks for a smooth mask on the network's features that keeps the prediction where "
            "it is; a mask larger than a norm of 1 counts against it, by the weight lam. What the mask keeps is bright "
            "in the picture: the prediction can be made from there. The lower values of the map are cut off. The map "
            "is smooth because it is as coarse as the features are; its edges are not edges of anatomy.",
            "A bright place means that the network could make its prediction from there. It does not mean that the "
            "place is diseased, nor that the prediction is right.",
            "'Recovered' says how much of the prediction is left when the network sees only what the mask keeps: about "
            "100 % for a mask that explains it, below 50 % or above 150 % for one that does not.",
        ),
        options=SmocamOptions,
        run=_run,
        tell=_tell,
        columns=(
            Column(
                "masked_prediction",
                "Of the network when its features are masked",
                "quantity",
                "From the mask alone",
            ),
            Column("null_prediction", "Of the network when its features are all zero", "quantity"),
            RECOVERED_SHARE,
            Column(
                "negative_energy",
                "Share of the mask's energy on negative values; above 0.1 the mask flips features",
                "share",
            ),
            VALUE,
            Column("distance", "Term of the objective: |masked - prediction| / sigma"),
            Column("norm", "Term of the objective: departure from the mask's budget"),
            Column("smoothness", "Term of the objective: mean total variation"),
            STEPS,
            Column("evaluations", "Of the network's tail with its gradient", "count"),
            STATUS,
        ),
        headline=("status", "recovered"),
        caption="What the network predicts, and how much of it the mask recovers",
        signed=False,
    )
