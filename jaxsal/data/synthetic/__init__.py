"""A synthetic cohort made from real anatomy: deformed, grown, shrunk and re-contrasted brains with known volumes."""

from jaxsal.data.synthetic.anatomy import OUTPUTS as OUTPUTS
from jaxsal.data.synthetic.anatomy import Anatomy as Anatomy
from jaxsal.data.synthetic.anatomy import load_anatomy as load_anatomy
from jaxsal.data.synthetic.appearance import Appearance as Appearance
from jaxsal.data.synthetic.appearance import paint as paint
from jaxsal.data.synthetic.appearance import random_appearance as random_appearance
from jaxsal.data.synthetic.cohort import Brain as Brain
from jaxsal.data.synthetic.cohort import mirror as mirror
from jaxsal.data.synthetic.cohort import random_brain as random_brain
from jaxsal.data.synthetic.shape import Deformed as Deformed
from jaxsal.data.synthetic.shape import Shape as Shape
from jaxsal.data.synthetic.shape import deform as deform
from jaxsal.data.synthetic.shape import identity_shape as identity_shape
from jaxsal.data.synthetic.shape import occupancy as occupancy
from jaxsal.data.synthetic.shape import random_shape as random_shape
from jaxsal.data.synthetic.shape import volumes as volumes
