"""Which of a network's outputs are explained."""

from collections.abc import Sequence


def output_indices(outputs: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The outputs asked for, as positions.

    Args:
        outputs: ``"all"`` or a sequence of positions; negative ones count from the end.
        count: how many outputs the network has.

    Raises:
        ValueError: if one does not exist, or none was asked for.

    Example:
        >>> output_indices("all", 3), output_indices([0, -1], 3)
        ((0, 1, 2), (0, 2))
    """
    if isinstance(outputs, str):
        if outputs != "all":
            raise ValueError(f'outputs got {outputs!r}, "all" or a sequence of positions is needed.')
        return tuple(range(count))
    indices = tuple(int(index) for index in outputs)
    unknown = [index for index in indices if not -count <= index < count]
    if unknown or not indices:
        raise ValueError(f"outputs got {list(indices)}; the network has {count}: give positions from 0 to {count - 1}.")
    return tuple(index % count for index in indices)
