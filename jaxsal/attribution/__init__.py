"""Which voxels a network's output depends on, told by its gradients."""

from jaxsal.attribution import quadrature as quadrature
from jaxsal.attribution.blurring import blurred as blurred
from jaxsal.attribution.completing import Completeness as Completeness
from jaxsal.attribution.completing import completeness as completeness
from jaxsal.attribution.expected import expected_gradients as expected_gradients
from jaxsal.attribution.gradients import input_x_gradient as input_x_gradient
from jaxsal.attribution.gradients import saliency as saliency
from jaxsal.attribution.guided_paths import guided_integrated_gradients as guided_integrated_gradients
from jaxsal.attribution.paths import blur_integrated_gradients as blur_integrated_gradients
from jaxsal.attribution.paths import integrated_gradients as integrated_gradients
from jaxsal.attribution.paths import interior_gradients as interior_gradients
from jaxsal.attribution.paths import path_integrated_gradients as path_integrated_gradients
from jaxsal.attribution.pulling import Choice as Choice
from jaxsal.attribution.pulling import choose as choose
from jaxsal.attribution.pulling import pull as pull
from jaxsal.attribution.pulling import score as score
from jaxsal.attribution.pulling import seeds as seeds
from jaxsal.attribution.smoothing import smooth_grad as smooth_grad
from jaxsal.attribution.smoothing import smooth_grad_squared as smooth_grad_squared
from jaxsal.attribution.smoothing import var_grad as var_grad
