"""Networks of other frameworks brought in as jaxsal networks, proven equal."""

# imported as jaxsal.converters; relative to it, so that tools that only look at folders find the modules too

from .architectures import Architecture as Architecture
from .architectures import architectures as architectures
from .architectures import convert as convert
from .checking import Conversion as Conversion
from .exporting import from_torch as from_torch
from .keras_models import from_keras as from_keras
from .picturing import checked_on as checked_on
from .states import read_weights as read_weights
