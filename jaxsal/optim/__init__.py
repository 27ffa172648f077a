"""Solvers as optax transforms, stopping rules as pairs, and the loop for one lane."""

from jaxsal.optim.armijo import armijo_once as armijo_once
from jaxsal.optim.minimise import Lane as Lane
from jaxsal.optim.minimise import advance as advance
from jaxsal.optim.minimise import minimise as minimise
from jaxsal.optim.minimise import start as start
from jaxsal.optim.minimise import step as step
from jaxsal.optim.nonnegative import nonnegative as nonnegative
from jaxsal.optim.status import Status as Status
from jaxsal.optim.stopping import Progress as Progress
from jaxsal.optim.stopping import StoppingRule as StoppingRule
from jaxsal.optim.stopping import any_of as any_of
from jaxsal.optim.stopping import max_steps as max_steps
from jaxsal.optim.stopping import stagnation as stagnation
