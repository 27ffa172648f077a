"""Names of layers, from the modules that operations come from."""

from collections.abc import Sequence
from typing import Any


def layer_tags(nodes: Sequence[Any], output: Any) -> dict[str, tuple[str, ...]]:
    """Of each operation, the layers whose one output it is, the innermost first.

    A layer that is called again has ``@1``, ``@2`` behind its name; one that gives several arrays, or whose inner
    values are used outside it, has no tag.

    Args:
        nodes: of an exported graph, in order.
        output: the node that is its result.
    """
    members: dict[str, list[Any]] = {}
    names: dict[str, str] = {}
    for node in nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            if path and not path.startswith("_empty"):
                again = key.rpartition("@")[2] if "@" in key else ""
                names[key] = path.partition("@")[0] + (f"@{again}" if again else "")
                members.setdefault(key, []).append(node)
    found: dict[str, list[tuple[int, str]]] = {}
    for key, inside in members.items():
        own = set(inside)
        leaving = [node for node in inside if node is output or any(user not in own for user in node.users)]
        leaving = [node for node in leaving if _is_image(node)]
        if len(leaving) == 1 and not _picked_apart(leaving[0]):
            found.setdefault(leaving[0].name, []).append((len(inside), names[key]))
    # a layer around another one has more operations, or as many and the shorter name
    return {
        node: tuple(name for _, name in sorted(each, key=lambda pair: (pair[0], -len(pair[1]))))
        for node, each in found.items()
    }


def _is_image(node: Any) -> bool:
    value = node.meta.get("val")
    return getattr(value, "is_floating_point", lambda: False)() and value.ndim > 1


def _picked_apart(node: Any) -> bool:
    return isinstance(node.meta.get("val"), list | tuple)
