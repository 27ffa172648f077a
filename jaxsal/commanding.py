"""Options on the command line that only the method of explanation knows."""

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand

_KEY = "jaxsal.options_of_method"


class OptionsOfMethod(TyperCommand):
    """A command that keeps the long options that it does not know for the method to check."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take them out, with their values, before the others are read."""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        rest, ctx.meta[_KEY] = _sorted_out(args, known)
        return super().parse_args(ctx, rest)


def options_of_method(context: typer.Context) -> dict[str, str]:
    """What was taken out, by the option's name in Python."""
    return dict(context.meta.get(_KEY, {}))


def _sorted_out(args: Iterable[str], known: set[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments without unknown long options, and these: ``--name value``, ``--name=value``, or ``--name`` for true.

    Example:
        >>> _sorted_out(["a.nii", "--preset", "kan", "--model", "m", "--area=0.2", "--on"], {"--model"})
        (['a.nii', '--model', 'm'], {'preset': 'kan', 'area': '0.2', 'on': 'true'})
    """
    rest: list[str] = []
    found: dict[str, str] = {}
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *waiting], found
        if not name.startswith("--") or name in known:
            rest.append(word)
            continue
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        found[name[2:].replace("-", "_")] = value
    return rest, found
