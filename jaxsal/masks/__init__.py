"""Masks that are optimised: SMOCAM and what it is made of."""

from jaxsal.masks.axes import best_of as best_of
from jaxsal.masks.axes import smocam_grid as smocam_grid
from jaxsal.masks.axes import smocam_networks as smocam_networks
from jaxsal.masks.axes import smocam_restarts as smocam_restarts
from jaxsal.masks.result import MaskResult as MaskResult
from jaxsal.masks.result import SmocamConfig as SmocamConfig
from jaxsal.masks.result import Terms as Terms
from jaxsal.masks.smocam import smocam as smocam
from jaxsal.masks.smocam import smocam_objective as smocam_objective
from jaxsal.masks.smocam import uniform_mask as uniform_mask
from jaxsal.masks.upsample import keep_top as keep_top
from jaxsal.masks.upsample import upsample as upsample
