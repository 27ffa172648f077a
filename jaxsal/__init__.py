"""Which voxels does this number depend on? Explaining 2-D and 3-D medical-image networks in JAX.

    >>> import jaxsal
    >>> from jaxsal import zoo
    >>> from flax import nnx
    >>> import jax.numpy as jnp
    >>> block = zoo.ConvBlock(4, kernel=3, pool=2)
    >>> model = zoo.MorphometryVGG(2, shape=(12, 12), blocks=[block], dense=(8,), rngs=nnx.Rngs(0))
    >>> model.eval()
    >>> x = jnp.ones((1, 12, 12, 1)).at[:, 3:6, 3:6].set(2.0)
    >>> jaxsal.smocam(jaxsal.split(model, x, "relu1"), x, max_steps=3).saliency.shape
    (2, 1, 12, 12)

Names are imported when they are first used, so that ``import jaxsal`` and the command line start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsal import attribution as attribution
    from jaxsal import data as data
    from jaxsal import masks as masks
    from jaxsal import methods as methods
    from jaxsal import optim as optim
    from jaxsal import zoo as zoo
    from jaxsal.attribution import AttentiveResponse as AttentiveResponse
    from jaxsal.attribution import ClassResponse as ClassResponse
    from jaxsal.attribution import Completeness as Completeness
    from jaxsal.attribution import attentive_response as attentive_response
    from jaxsal.attribution import blur_integrated_gradients as blur_integrated_gradients
    from jaxsal.attribution import blurred as blurred
    from jaxsal.attribution import clear as clear
    from jaxsal.attribution import completeness as completeness
    from jaxsal.attribution import composites as composites
    from jaxsal.attribution import conservation as conservation
    from jaxsal.attribution import contrastive_excitation_backprop as contrastive_excitation_backprop
    from jaxsal.attribution import deconvnet as deconvnet
    from jaxsal.attribution import deep_lift as deep_lift
    from jaxsal.attribution import deep_taylor as deep_taylor
    from jaxsal.attribution import eigen_cam as eigen_cam
    from jaxsal.attribution import excitation_backprop as excitation_backprop
    from jaxsal.attribution import expected_gradients as expected_gradients
    from jaxsal.attribution import grad_cam as grad_cam
    from jaxsal.attribution import grad_cam_plus_plus as grad_cam_plus_plus
    from jaxsal.attribution import guided_backprop as guided_backprop
    from jaxsal.attribution import guided_grad_cam as guided_grad_cam
    from jaxsal.attribution import guided_integrated_gradients as guided_integrated_gradients
    from jaxsal.attribution import hires_cam as hires_cam
    from jaxsal.attribution import input_x_gradient as input_x_gradient
    from jaxsal.attribution import integrated_gradients as integrated_gradients
    from jaxsal.attribution import interior_gradients as interior_gradients
    from jaxsal.attribution import layer_cam as layer_cam
    from jaxsal.attribution import lrp as lrp
    from jaxsal.attribution import path_integrated_gradients as path_integrated_gradients
    from jaxsal.attribution import reveal_cancel as reveal_cancel
    from jaxsal.attribution import rules as rules
    from jaxsal.attribution import saliency as saliency
    from jaxsal.attribution import score_cam as score_cam
    from jaxsal.attribution import smooth_grad as smooth_grad
    from jaxsal.attribution import smooth_grad_squared as smooth_grad_squared
    from jaxsal.attribution import var_grad as var_grad
    from jaxsal.attribution import weighted_cam as weighted_cam
    from jaxsal.attribution import xgrad_cam as xgrad_cam
    from jaxsal.chaining import Chain as Chain
    from jaxsal.chaining import at_input as at_input
    from jaxsal.chaining import chain as chain
    from jaxsal.data import Volume as Volume
    from jaxsal.engine.geometry import Geometry as Geometry
    from jaxsal.engine.geometry import geometry as geometry
    from jaxsal.engine.lower import lower as lower
    from jaxsal.engine.narrow import in_precision as in_precision
    from jaxsal.engine.rewire import rewire as rewire
    from jaxsal.engine.rewire import sites as sites
    from jaxsal.explanation import Explanation as Explanation
    from jaxsal.explanation import explain as explain
    from jaxsal.grids import GridSearch as GridSearch
    from jaxsal.grids import grid_search as grid_search
    from jaxsal.masks import JointResult as JointResult
    from jaxsal.masks import LayersResult as LayersResult
    from jaxsal.masks import MaskResult as MaskResult
    from jaxsal.masks import PerturbationResult as PerturbationResult
    from jaxsal.masks import extremal_perturbation as extremal_perturbation
    from jaxsal.masks import group_mask as group_mask
    from jaxsal.masks import meaningful_perturbation as meaningful_perturbation
    from jaxsal.masks import smocam as smocam
    from jaxsal.masks import smocam_joint as smocam_joint
    from jaxsal.masks import smocam_layers as smocam_layers
    from jaxsal.models import load_model as load_model
    from jaxsal.splitting import Split as Split
    from jaxsal.splitting import layers as layers
    from jaxsal.splitting import split as split

__version__ = "0.1.0"

_WHERE = {
    "AttentiveResponse": "jaxsal.attribution",
    "Chain": "jaxsal.chaining",
    "ClassResponse": "jaxsal.attribution",
    "Completeness": "jaxsal.attribution",
    "Explanation": "jaxsal.explanation",
    "Geometry": "jaxsal.engine.geometry",
    "GridSearch": "jaxsal.grids",
    "JointResult": "jaxsal.masks",
    "LayersResult": "jaxsal.masks",
    "MaskResult": "jaxsal.masks",
    "PerturbationResult": "jaxsal.masks",
    "Split": "jaxsal.splitting",
    "Volume": "jaxsal.data",
    "at_input": "jaxsal.chaining",
    "attentive_response": "jaxsal.attribution",
    "blur_integrated_gradients": "jaxsal.attribution",
    "blurred": "jaxsal.attribution",
    "chain": "jaxsal.chaining",
    "clear": "jaxsal.attribution",
    "completeness": "jaxsal.attribution",
    "conservation": "jaxsal.attribution",
    "contrastive_excitation_backprop": "jaxsal.attribution",
    "deconvnet": "jaxsal.attribution",
    "deep_lift": "jaxsal.attribution",
    "deep_taylor": "jaxsal.attribution",
    "eigen_cam": "jaxsal.attribution",
    "excitation_backprop": "jaxsal.attribution",
    "expected_gradients": "jaxsal.attribution",
    "explain": "jaxsal.explanation",
    "extremal_perturbation": "jaxsal.masks",
    "geometry": "jaxsal.engine.geometry",
    "grad_cam": "jaxsal.attribution",
    "grad_cam_plus_plus": "jaxsal.attribution",
    "grid_search": "jaxsal.grids",
    "group_mask": "jaxsal.masks",
    "guided_backprop": "jaxsal.attribution",
    "guided_grad_cam": "jaxsal.attribution",
    "guided_integrated_gradients": "jaxsal.attribution",
    "hires_cam": "jaxsal.attribution",
    "in_precision": "jaxsal.engine.narrow",
    "input_x_gradient": "jaxsal.attribution",
    "integrated_gradients": "jaxsal.attribution",
    "interior_gradients": "jaxsal.attribution",
    "layer_cam": "jaxsal.attribution",
    "layers": "jaxsal.splitting",
    "load_model": "jaxsal.models",
    "lower": "jaxsal.engine.lower",
    "lrp": "jaxsal.attribution",
    "meaningful_perturbation": "jaxsal.masks",
    "path_integrated_gradients": "jaxsal.attribution",
    "reveal_cancel": "jaxsal.attribution",
    "rewire": "jaxsal.engine.rewire",
    "saliency": "jaxsal.attribution",
    "score_cam": "jaxsal.attribution",
    "sites": "jaxsal.engine.rewire",
    "smocam": "jaxsal.masks",
    "smocam_joint": "jaxsal.masks",
    "smocam_layers": "jaxsal.masks",
    "smooth_grad": "jaxsal.attribution",
    "smooth_grad_squared": "jaxsal.attribution",
    "split": "jaxsal.splitting",
    "var_grad": "jaxsal.attribution",
    "weighted_cam": "jaxsal.attribution",
    "xgrad_cam": "jaxsal.attribution",
}
_PACKAGES = {
    "attribution": "jaxsal.attribution",
    "composites": "jaxsal.attribution.composites",
    "converters": "jaxsal.converters",
    "data": "jaxsal.data",
    "engine": "jaxsal.engine",
    "masks": "jaxsal.masks",
    "optim": "jaxsal.optim",
    "rules": "jaxsal.attribution.rules",
    "testing": "jaxsal.testing",
    "zoo": "jaxsal.zoo",
}

__all__ = [*_WHERE, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(_PACKAGES[name])
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"jaxsal has no attribute {name!r}; it has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
