"""Solvers as optax transforms, stopping rules as pairs, the loop for one lane, and the queue for many."""

from jaxsal.optim.applied import Applied as Applied
from jaxsal.optim.armijo import armijo_once as armijo_once
from jaxsal.optim.interrupting import Interrupted as Interrupted
from jaxsal.optim.lanes import minimise_groups as minimise_groups
from jaxsal.optim.lanes import minimise_lanes as minimise_lanes
from jaxsal.optim.minimise import Lane as Lane
from jaxsal.optim.minimise import Objective as Objective
from jaxsal.optim.minimise import advance as advance
from jaxsal.optim.minimise import minimise as minimise
from jaxsal.optim.minimise import start as start
from jaxsal.optim.minimise import step as step
from jaxsal.optim.nonnegative import nonnegative as nonnegative
from jaxsal.optim.running import Lanes as Lanes
from jaxsal.optim.running import Usage as Usage
from jaxsal.optim.status import Status as Status
from jaxsal.optim.stopping import Progress as Progress
from jaxsal.optim.stopping import StoppingRule as StoppingRule
from jaxsal.optim.stopping import any_of as any_of
from jaxsal.optim.stopping import max_steps as max_steps
from jaxsal.optim.stopping import stagnation as stagnation
