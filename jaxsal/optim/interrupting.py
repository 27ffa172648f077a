"""Ctrl-C between two pieces of work instead of within one."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run that was stopped by Ctrl-C, with what was finished.

    A ``KeyboardInterrupt``: programs that do not ask for the rest stop as they always do.

    Attributes:
        lanes: as the run would have returned them. Jobs that had ended are whole; those at work have status
            ``RUNNING`` and are where they were; those never begun have status ``RUNNING``, no evaluations and NaN.
    """

    def __init__(self, lanes: Any) -> None:
        super().__init__("interrupted; what was finished is in the exception's attribute `lanes`")
        self.lanes = lanes


@contextlib.contextmanager
def interruption_held_back() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C instead of raising it; the second one raises as usual.

    In a thread other than the main one, or where the program handles the signal itself, nothing is changed.

    Yields:
        A function that tells whether Ctrl-C was pressed.

    Example:
        >>> with interruption_held_back() as interrupted:
        ...     print(interrupted())
        False
    """
    pressed: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield lambda: bool(pressed)
        return

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, usual)
