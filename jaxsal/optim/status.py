"""How an optimisation ended, as a number per lane and as a sentence."""

import enum


class Status(enum.IntEnum):
    """Why a lane is no longer optimised, and whether its mask can be believed."""

    RUNNING = 0
    STAGNATED = 1
    MAX_STEPS = 2
    NOT_FINITE = 3
    UNEXPLAINED = 4
    UNINFORMATIVE = 5
    CONVERGED = 6
    TARGET_REACHED = 7

    @property
    def message(self) -> str:
        """What it means for the user."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "still being optimised",
    Status.STAGNATED: "the objective no longer falls: the usual, good end",
    Status.MAX_STEPS: "the number of steps was used up; increase max_steps if the objective still falls",
    Status.NOT_FINITE: "the objective or its gradient became NaN or infinite; the mask at which it did is returned",
    Status.UNEXPLAINED: (
        "the mask recovers less than half of the prediction, or more than one and a half of it: it does not explain it"
    ),
    Status.UNINFORMATIVE: "the prediction hardly differs from that without features: there is nothing to explain",
    Status.CONVERGED: "the gradient vanishes: a good end",
    Status.TARGET_REACHED: "the objective reached the value that was asked for",
}
