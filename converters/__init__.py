"""Networks of other frameworks brought in as jaxsal networks, proven equal."""

from jaxsal.converters.architectures import Architecture as Architecture
from jaxsal.converters.architectures import architectures as architectures
from jaxsal.converters.architectures import convert as convert
from jaxsal.converters.checking import Conversion as Conversion
from jaxsal.converters.exporting import from_torch as from_torch
from jaxsal.converters.keras_models import from_keras as from_keras
from jaxsal.converters.states import read_weights as read_weights
