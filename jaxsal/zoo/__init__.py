"""The networks of the papers, in Flax NNX, and their records."""

from jaxsal.zoo.layers import Composition as Composition
from jaxsal.zoo.morphometry import ConvBlock as ConvBlock
from jaxsal.zoo.morphometry import MorphometryVGG as MorphometryVGG
from jaxsal.zoo.naming import channels_last as channels_last
from jaxsal.zoo.naming import torchvision_names as torchvision_names
from jaxsal.zoo.record import InputSpec as InputSpec
from jaxsal.zoo.record import ModelRecord as ModelRecord
from jaxsal.zoo.record import Output as Output
from jaxsal.zoo.record import Scaling as Scaling
from jaxsal.zoo.records import head_circumference_record as head_circumference_record
from jaxsal.zoo.registry import build as build
from jaxsal.zoo.registry import register as register
from jaxsal.zoo.resnet import KERAS_RESNET50 as KERAS_RESNET50
from jaxsal.zoo.resnet import RegressionResNet50 as RegressionResNet50
from jaxsal.zoo.store import LoadedModel as LoadedModel
from jaxsal.zoo.store import load as load
from jaxsal.zoo.store import save as save
from jaxsal.zoo.store import weights as weights
from jaxsal.zoo.vgg import VGG16_BLOCKS as VGG16_BLOCKS
from jaxsal.zoo.vgg import RegressionVGG16 as RegressionVGG16
