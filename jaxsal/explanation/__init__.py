"""From a scan and a trained network to maps, a table and a report."""

from jaxsal.explanation.explaining import explain as explain
from jaxsal.explanation.explaining import run as run
from jaxsal.explanation.naming import Place as Place
from jaxsal.explanation.naming import place as place
from jaxsal.explanation.naming import places as places
from jaxsal.explanation.planning import Plan as Plan
from jaxsal.explanation.planning import plan as plan
from jaxsal.explanation.result import Explanation as Explanation
from jaxsal.explanation.result import Timing as Timing
from jaxsal.explanation.writing import check_place as check_place
from jaxsal.explanation.writing import describe_dataset as describe_dataset
from jaxsal.explanation.writing import write as write
