"""Masks on the image itself: meaningful and extremal perturbation, for files and the command line."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jaxsal import citations
from jaxsal.citations import Citation
from jaxsal.methods.masked import NOT_FINITE, STATUS, STEPS, VALUE, numbers, tell
from jaxsal.methods.record import Column, Found, Method, Options, Task

if TYPE_CHECKING:
    from jaxsal.masks import PerturbationResult

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


# from 0.5 a mask reaches 0 or 1 in 5 steps of 0.1; all outputs of a scan should take minutes
_STEPS = 100
# deleting a part moves the output by this share further than deleting everything does: the mask itself is seen
_BEYOND = 0.5


def _listed(given: Any) -> Any:
    """``"0,2"`` of a command line as its parts."""
    return [part for part in given.split(",") if part.strip()] if isinstance(given, str) else given


class MeaningfulOptions(Options):
    """Options of meaningful perturbation, see :func:`jaxsal.meaningful_perturbation`.

    Attributes:
        preset: ``"jaxsal"`` suits any output; ``"fong"``, ``"fong-torch"``, ``"jacobgil"`` and ``"kan"`` are published
            constants for networks that tell classes. What is None below is the preset's.
        fill: what is put in place of what the mask deletes.
        score: what is explained: ``"closeness"`` of an output to what it is for the whole image, the ``"output"``
            itself, or the ``"probability"`` of a class.
        game: ``"deletion"`` looks for the smallest part without which the score falls, ``"preservation"`` for the one
            with which alone it stays.
        lam1: weight of the mask's size.
        lam2: weight of its roughness.
        factor: image voxels per voxel of the mask along an axis.
        jitter: largest shift of the image under the mask, in voxels.
        noise: standard deviation of noise on the perturbed image, in its units.
        max_steps: most updates for each output; None is 100, or a published preset's own number.
        batch_size: outputs at once, which bounds memory; None takes as many as fit.
        seed: of what is random: noise, jitter, a fill of noise.
    """

    preset: Literal["jaxsal", "fong", "fong-torch", "jacobgil", "kan"] = "jaxsal"
    fill: Literal["blur", "noise", "constant"] | None = None
    score: Literal["closeness", "output", "probability"] | None = None
    game: Literal["deletion", "preservation"] = "deletion"
    lam1: Weight | None = None
    lam2: Weight | None = None
    factor: Count | None = None
    jitter: Annotated[int, Field(ge=0)] | None = None
    noise: Weight | None = None
    max_steps: Count | None = None
    batch_size: Count | None = None
    seed: int = 0


class ExtremalOptions(Options):
    """Options of extremal perturbation, see :func:`jaxsal.extremal_perturbation`.

    Attributes:
        area: share of the image's voxels that the region has.
        game: ``"preservation"`` shows nothing but the region, ``"deletion"`` all but it, ``"dual"`` compares the two.
        score: as for meaningful perturbation.
        fill: what is shown elsewhere; None is the paper's blur.
        step: voxels from one parameter of the mask to the next.
        smoothness: width of the mask's kernels, in voxels.
        flip_axes: spatial axes, from 0, along which the image is flipped on every second step; none by default, for a
            flip takes the left side of a brain for the right one.
        max_steps: most updates for each output.
        batch_size: outputs at once, which bounds memory; None takes as many as fit.
        seed: of a fill of noise.
    """

    area: Annotated[float, Field(gt=0, lt=1)] = 0.1
    game: Literal["preservation", "deletion", "dual"] = "preservation"
    score: Literal["closeness", "output", "probability"] = "closeness"
    fill: Literal["blur", "noise", "constant"] | None = None
    step: Count = 7
    smoothness: Positive = 21.0
    flip_axes: Annotated[tuple[int, ...], BeforeValidator(_listed)] = ()
    max_steps: Count = 200
    batch_size: Count | None = None
    seed: int = 0


def _run_meaningful(task: Task) -> "PerturbationResult":
    import jax

    from jaxsal import masks

    options, preset = task.options.model_dump(exclude={"preset", "seed"}), task.options.preset
    if preset == "jaxsal" and options["max_steps"] is None:
        options["max_steps"] = _STEPS
    return masks.meaningful_perturbation(
        task.model,
        task.x,
        outputs=task.outputs,
        preset=None if preset == "jaxsal" else preset,
        sigma=task.sigma,
        key=jax.random.key(task.options.seed),
        progress=task.progress,
        **options,
    )


def _run_extremal(task: Task) -> "PerturbationResult":
    import jax

    from jaxsal import masks

    options = task.options.model_dump(exclude={"seed"})
    return masks.extremal_perturbation(
        task.model,
        task.x,
        outputs=task.outputs,
        sigma=task.sigma,
        key=jax.random.key(task.options.seed),
        progress=task.progress,
        **options,
    )


def _tell(result: "PerturbationResult") -> Found:
    words, recovered = result.status_names, numbers(result.recovered)
    return tell(
        result,
        lambda o, b: _remarks(words[o][b], recovered[o, b], result.game),
        mask={"game": result.game},
        meant=_MEANINGS,
    )


_MEANINGS = {
    "unexplained": "the mask does less than half of what it is to do: it does not explain the prediction",
    "uninformative": "the prediction hardly differs from that of an image with everything deleted",
}


def _remarks(word: str, recovered: float, game: str) -> list[str]:
    if word == "unexplained":
        amount = "more than one and a half times" if recovered > 1 else "less than half of"
        how = f"What the mask shows gives {amount} the prediction"
        if game == "deletion":
            how = "Without what the mask deletes, more than half of the prediction is left"
        return [f"{how}: the mask does not explain this output. Do not interpret the map."]
    if word == "uninformative":
        return [
            "The prediction hardly differs from that with everything deleted: there is nothing to explain. "
            "Do not interpret the map."
        ]
    if word != "not_finite" and game == "deletion" and recovered < -_BEYOND:
        return [
            f"Without what the mask deletes the output moves {1 - recovered:.1f} times as far as without everything: "
            "the network answers to the pattern of the mask, not only to what is missing. Compare other fills and "
            "the game 'preservation' before interpreting the map."
        ]
    return [NOT_FINITE] if word == "not_finite" else []


_COLUMNS = (
    Column("masked_prediction", "Of the network when the image is masked", "quantity", "Under the mask"),
    Column("null_prediction", "Of the network when all of the image is deleted", "quantity", "All deleted"),
    Column(
        "recovered",
        "(masked - null) / (prediction - null); about 0 for a mask that deletes, 1 for one that preserves",
        "share",
        "Remaining",
        brief=True,
    ),
    VALUE,
)
_ENDED = (STEPS, Column("evaluations", "Of the network with its gradient", "count"), STATUS)
_SCORE = Column("score", "Term of the objective: what the mask is to keep or to destroy")
_COMPARED = (
    "What is put in place of what is deleted decides the answer as much as the network does: a fill is itself "
    "something to be seen. Compare the maps of more than one."
)
_REMAINING = (
    "'Remaining' says how much of the prediction is left under the mask, between that of the whole image (100 %) and "
    "that with everything deleted (0 %): about 0 % is a good deletion, about 100 % a good preservation."
)


def _preset_papers(options: MeaningfulOptions) -> tuple[Citation, ...]:
    return (citations.KAN_2020,) if options.preset == "kan" else ()


def meaningful_perturbation() -> Method:
    """Record of meaningful perturbation."""
    return Method(
        name="meaningful-perturbation",
        title="Meaningful perturbation",
        family="mask",
        citations=(citations.FONG_2017,),
        cites=_preset_papers,
        cost="100 gradients per output; published presets: 300 to 500",
        reading=(
            "For each output, meaningful perturbation looks for the smallest, smoothest part of the image that decides "
            "over it: the part without which the output changes most (deletion), or with which alone it stays "
            "(preservation). That part is bright in the picture, from 0 to 1. The map is as coarse as the mask's grid.",
            _REMAINING,
            _COMPARED,
        ),
        options=MeaningfulOptions,
        run=_run_meaningful,
        tell=_tell,
        columns=(
            *_COLUMNS,
            _SCORE,
            Column("sparsity", "Term of the objective: share of the mask that deletes, or keeps"),
            Column("smoothness", "Term of the objective: roughness of the mask"),
            *_ENDED,
        ),
        headline=("status", "recovered"),
        caption="What the network predicts, and what is left of it under the mask",
        signed=False,
    )


def extremal_perturbation() -> Method:
    """Record of extremal perturbation."""
    return Method(
        name="extremal-perturbation",
        title="Extremal perturbation",
        family="mask",
        citations=(citations.FONG_2019,),
        cost="200 gradients per output",
        reading=(
            "For each output, extremal perturbation looks, among all smooth regions of one size, for the one that "
            "counts most: shown alone it keeps the prediction best (preservation), or hidden it changes it most "
            "(deletion). The region is bright in the picture, from 0 to 1; its size was asked for, not found.",
            _REMAINING,
            _COMPARED,
        ),
        options=ExtremalOptions,
        run=_run_extremal,
        tell=_tell,
        columns=(
            *_COLUMNS,
            _SCORE,
            Column("area", "Term of the objective: how far the mask is from the size that was asked for"),
            *_ENDED,
        ),
        headline=("status", "recovered"),
        caption="What the network predicts, and what is left of it under the mask",
        signed=False,
    )
