"""Masks that are optimised: on features (SMOCAM) and on the input, and what they are made of."""

from jaxsal.masks import fills as fills
from jaxsal.masks import penalties as penalties
from jaxsal.masks.axes import best_of as best_of
from jaxsal.masks.axes import smocam_grid as smocam_grid
from jaxsal.masks.axes import smocam_networks as smocam_networks
from jaxsal.masks.axes import smocam_restarts as smocam_restarts
from jaxsal.masks.extremal import extremal_perturbation as extremal_perturbation
from jaxsal.masks.group import group_mask as group_mask
from jaxsal.masks.perturbation import meaningful_perturbation as meaningful_perturbation
from jaxsal.masks.perturbed import ExtremalParts as ExtremalParts
from jaxsal.masks.perturbed import Parts as Parts
from jaxsal.masks.perturbed import PerturbationResult as PerturbationResult
from jaxsal.masks.presets import Recipe as Recipe
from jaxsal.masks.presets import preset as preset
from jaxsal.masks.result import MaskResult as MaskResult
from jaxsal.masks.result import SmocamConfig as SmocamConfig
from jaxsal.masks.result import Terms as Terms
from jaxsal.masks.smocam import smocam as smocam
from jaxsal.masks.smocam import smocam_objective as smocam_objective
from jaxsal.masks.smocam import uniform_mask as uniform_mask
from jaxsal.masks.upsample import keep_top as keep_top
from jaxsal.masks.upsample import upsample as upsample
