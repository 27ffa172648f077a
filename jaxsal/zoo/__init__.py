"""The networks of the papers, in Flax NNX, and their records."""

from jaxsal.zoo.morphometry import ConvBlock as ConvBlock
from jaxsal.zoo.morphometry import MorphometryVGG as MorphometryVGG
from jaxsal.zoo.record import InputSpec as InputSpec
from jaxsal.zoo.record import ModelRecord as ModelRecord
from jaxsal.zoo.record import Output as Output
from jaxsal.zoo.record import Scaling as Scaling
from jaxsal.zoo.registry import register as register
from jaxsal.zoo.store import LoadedModel as LoadedModel
from jaxsal.zoo.store import load as load
from jaxsal.zoo.store import save as save
from jaxsal.zoo.store import weights as weights
