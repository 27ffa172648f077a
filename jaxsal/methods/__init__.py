"""Methods of explanation by name, each with its options, papers and needs, for files and the command line."""

from jaxsal.methods.record import Column as Column
from jaxsal.methods.record import Found as Found
from jaxsal.methods.record import Method as Method
from jaxsal.methods.record import Options as Options
from jaxsal.methods.record import Task as Task
from jaxsal.methods.registry import all_methods as all_methods
from jaxsal.methods.registry import check_options as check_options
from jaxsal.methods.registry import find_method as find_method
from jaxsal.methods.registry import method_names as method_names
from jaxsal.methods.registry import register as register
from jaxsal.methods.smocam import SOLVERS as SOLVERS
from jaxsal.methods.smocam import SmocamOptions as SmocamOptions
from jaxsal.methods.summed import COLUMNS as COLUMNS
from jaxsal.methods.summed import COMPLETE_COLUMNS as COMPLETE_COLUMNS
from jaxsal.methods.summed import maps_by as maps_by
from jaxsal.methods.summed import tell as tell
