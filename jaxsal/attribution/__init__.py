"""Which voxels a network's output depends on, told by its gradients."""

from jaxsal.attribution.pulling import Choice as Choice
from jaxsal.attribution.pulling import choose as choose
from jaxsal.attribution.pulling import pull as pull
from jaxsal.attribution.pulling import score as score
from jaxsal.attribution.pulling import seeds as seeds
