"""Class activation maps, for files and the command line."""

from collections.abc import Callable
from typing import Any, Literal

from jaxsal import citations
from jaxsal.citations import Citation
from jaxsal.methods.gradient import Count
from jaxsal.methods.path import Finite
from jaxsal.methods.record import Method, Options, Task
from jaxsal.methods.summed import BRIGHTEST, POSITIVE, SIGNED, maps_by, tell_signs


class CamOptions(Options):
    """Options of class activation maps, see :func:`jaxsal.attribution.grad_cam`.

    Attributes:
        counterfactual: show what speaks against the output: gradients are negated.
        positive: set values below zero to zero, as the papers do for classes; a regression's map may then be empty.
        batch_size: outputs at once, which bounds memory; None takes one on a CPU, elsewhere all.
    """

    counterfactual: bool = False
    positive: bool = False
    batch_size: Count | None = None


class ScoreOptions(Options):
    """Options of Score-CAM, see :func:`jaxsal.attribution.score_cam`.

    Attributes:
        baseline: image of nothing, shown where a channel is dark: an intensity as the network sees it.
        weigh: a channel by the ``"increase"`` that it makes, in standard deviations, of either sign; or by the
            ``"softmax"`` of all increases, as the paper does for classes.
        positive: set values below zero to zero, as the paper does for classes.
        batch_size: images at once, which bounds memory.
    """

    baseline: Finite = 0.0
    weigh: Literal["increase", "softmax"] = "increase"
    positive: bool = False
    batch_size: Count = 16


class EigenOptions(Options):
    """Options of Eigen-CAM: none."""


class GuidedOptions(CamOptions):
    """Options of guided Grad-CAM, see :func:`jaxsal.attribution.guided_grad_cam`.

    Attributes:
        positive: take what Grad-CAM finds above zero alone, as the paper does.
    """

    positive: bool = True


def _guided(task: Task) -> Any:
    from jaxsal.attribution import guided_grad_cam

    assert task.split is not None
    return guided_grad_cam(task.split, task.x, outputs=task.outputs, **task.options.model_dump())


def _by_gradient(function: str, sigma: bool = False) -> Callable[[Task], Any]:
    def maps(task: Task) -> Any:
        from jaxsal import attribution

        unit = {"sigma": task.sigma} if sigma else {}
        options = task.options.model_dump()
        return getattr(attribution, function)(task.split, task.x, outputs=task.outputs, **unit, **options)

    return maps


def _score(task: Task) -> Any:
    import jax

    from jaxsal import attribution

    options = task.options.model_dump()
    options["weigh"] = jax.nn.softmax if options["weigh"] == "softmax" else None
    assert task.split is not None
    return attribution.score_cam(task.split, task.x, outputs=task.outputs, sigma=task.sigma, **options)


def _eigen(task: Task) -> Any:
    import jax.numpy as jnp

    from jaxsal import attribution

    assert task.split is not None
    maps = attribution.eigen_cam(task.split, task.x)
    return jnp.broadcast_to(maps[None], (len(task.outputs), *maps.shape))


def _cam(
    name: str,
    title: str,
    paper: Citation,
    reading: str,
    maps: Callable[[Task], Any],
    cost: str = "1 gradient of the layers behind per output",
    options: type[Options] = CamOptions,
) -> Method:
    return Method(
        name=name,
        title=title,
        family="cam",
        citations=(paper,),
        needs=("layer",),
        cost=cost,
        reading=(reading, _COARSE),
        options=options,
        run=maps_by(maps),
        tell=tell_signs,
        columns=(POSITIVE,),
        caption=SIGNED,
    )


_COARSE = (
    "The map is as coarse as the features of the layer are and is interpolated between the middles of what they see; "
    "its edges are not edges of anatomy. What a layer shows in one place it may have seen some way off."
)
_SIGNS = "red raises the output, blue lowers it"


def cams() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        _cam(
            "grad-cam",
            "Grad-CAM",
            citations.SELVARAJU_2017,
            f"The features of a layer, each channel weighed by its mean gradient over the image: {_SIGNS}. Where a "
            "place matters is lost in that mean, so a channel that counts in one place is shown wherever it is active.",
            _by_gradient("grad_cam"),
        ),
        _cam(
            "grad-cam-plus-plus",
            "Grad-CAM++",
            citations.CHATTOPADHAY_2018,
            "The features of a layer, each channel weighed by its positive gradients: bright where something raises "
            "the output. What lowers it is not shown; the option counterfactual shows it instead.",
            _by_gradient("grad_cam_plus_plus", sigma=True),
        ),
        _cam(
            "hires-cam",
            "HiResCAM",
            citations.DRAELOS_2020,
            f"The features of a layer times their gradients, voxel by voxel: {_SIGNS}. A place that the layers behind "
            "do not read is zero.",
            _by_gradient("hires_cam"),
        ),
        _cam(
            "layer-cam",
            "LayerCAM",
            citations.JIANG_2021,
            "The features of a layer times their positive gradients, voxel by voxel: bright where something raises the "
            "output. What lowers it is not shown; the option counterfactual shows it instead.",
            _by_gradient("layer_cam"),
        ),
        _cam(
            "xgrad-cam",
            "XGrad-CAM",
            citations.FU_2020,
            f"The features of a layer, each channel weighed by its gradient where it is active: {_SIGNS}.",
            _by_gradient("xgrad_cam"),
        ),
        _cam(
            "score-cam",
            "Score-CAM",
            citations.WANG_2020,
            "The features of a layer, each channel weighed by how much the part of the image that it shows raises the "
            f"output above that of an image of nothing: {_SIGNS}. No gradients are taken.",
            _score,
            "1 prediction per channel of the layer, for all outputs together",
            ScoreOptions,
        ),
        Method(
            name="guided-grad-cam",
            title="Guided Grad-CAM",
            family="cam",
            citations=(citations.SELVARAJU_2017,),
            cites=lambda options: (citations.SPRINGENBERG_2014,),
            needs=("layer", "relu"),
            cost="1 gradient of the network and 1 of the layers behind per output",
            reading=(
                "Guided backprop, weighed at every voxel by Grad-CAM: fine details where the layer's features count. "
                "Its details are edges of the image whatever the output is: trust it no further than Grad-CAM.",
            ),
            options=GuidedOptions,
            run=maps_by(_guided),
            tell=tell_signs,
            columns=(POSITIVE,),
            caption=SIGNED,
            brightest=BRIGHTEST,
        ),
        _cam(
            "eigen-cam",
            "Eigen-CAM",
            citations.MUHAMMAD_2020,
            "The features of a layer along their main direction: what the layer shows most of. The map is the same for "
            "every output and tells nothing of what an output depends on.",
            _eigen,
            "1 singular value decomposition, for all outputs together",
            EigenOptions,
        ),
    )
