"""How many lanes fit into memory, by asking the compiler."""

from collections.abc import Callable
from typing import Any

# the share of a device's memory that lanes may take: the rest is for what the caller still does with it
_SHARE = 0.8
# on a CPU more lanes gain nothing, and a long queue keeps few lanes busier than many; an accelerator needs many to be
# busy at all
_MOST = {"cpu": 16}
_MOST_ELSEWHERE = 256
# lanes whose largest arrays together exceed this leave a CPU's cache, and then cost more each the more they are
_CACHE = 4 * 2**20


def lanes_for(
    waiting: int,
    lanes: int | None,
    memory: int | None,
    bytes_needed: Callable[[int], int],
    working_set: Callable[[], int],
    device: Any,
) -> int:
    """The number of lanes of a row: as given, or as many as are useful and fit.

    Args:
        waiting: jobs that could run side by side.
        lanes: the caller's number, or None.
        memory: the caller's budget of bytes, or None for most of the device's memory where it tells that.
        bytes_needed: memory of the compiled program with a number of lanes.
        working_set: bytes of the largest array that a lane computes in each step.
        device: on which they run.

    Raises:
        TypeError: if ``lanes`` is not a whole number.
        ValueError: if ``lanes`` is below 1, or one lane does not fit.
    """
    if lanes is not None:
        return min(at_least_one("lanes", lanes), waiting)
    useful = min(_most(device), waiting)
    if useful > 1 and device.platform == "cpu":
        useful = min(useful, max(_CACHE // max(working_set(), 1), 1))
    if memory is None and (useful == 1 or _of_device(device) is None):
        return useful
    return min(fitting(_budget(memory, device), bytes_needed), useful)


def rows_for(
    groups: int,
    rows: int | None,
    lanes: int,
    memory: int | None,
    bytes_needed: Callable[[int], int],
    device: Any,
) -> int:
    """The number of rows: as given, or as many as make up for groups of few jobs, and fit.

    Args:
        groups: that could run side by side.
        rows: the caller's number, or None.
        lanes: of a row.
        memory: the caller's budget of bytes, see :func:`lanes_for`.
        bytes_needed: memory of the compiled program of one row with a number of lanes.
        device: on which they run.
    """
    if rows is not None:
        return min(at_least_one("rows", rows), groups)
    useful = min(max(_most(device) // lanes, 1), groups)
    if useful == 1 or (memory is None and _of_device(device) is None):
        return useful
    return min(useful, max(_budget(memory, device) // max(bytes_needed(lanes), 1), 1))


def at_least_one(name: str, number: Any) -> int:
    """A number that counts something.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is below 1.
    """
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} got {number!r}, a whole number is needed.")
    if number < 1:
        raise ValueError(f"{name} got {number}, at least 1 is needed.")
    return int(number)


def fitting(budget: int, bytes_needed: Callable[[int], int]) -> int:
    """The most lanes within a budget, from the memory of one lane and of two.

    ``bytes(n) = bytes(1) + (n - 1) (bytes(2) - bytes(1))``.

    Raises:
        ValueError: if one lane does not fit.

    Example:
        >>> fitting(1000, lambda lanes: 300 + 100 * lanes)
        7
    """
    one = bytes_needed(1)
    if one > budget:
        raise ValueError(
            f"memory got {budget} bytes, one lane needs {one}: give more, or make the objective smaller, "
            "e.g. by a split at a deeper layer."
        )
    each = max(bytes_needed(2) - one, 1)
    return 1 + (budget - one) // each


def compiled_bytes(compiled: Any) -> int:
    """Most memory of a compiled program: arguments, results and what it computes in between.

    Raises:
        ValueError: if the platform does not tell.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise ValueError("This platform does not tell what a program needs: give the number of lanes.")
    kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return kept + found.temp_size_in_bytes


def _most(device: Any) -> int:
    return _MOST.get(device.platform, _MOST_ELSEWHERE)


def _budget(memory: int | None, device: Any) -> int:
    budget = _of_device(device) if memory is None else memory
    assert budget is not None
    return budget


def _of_device(device: Any) -> int | None:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(_SHARE * limit)
