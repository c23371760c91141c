"""Names that other serving stacks use for what a spec already says, rewritten to the one real name.

An alias is moved only where the real name is free. Where both are given the alias stays in place, is met as an
unknown field and refused there: two sources for one value are a contradiction, even when they agree.
"""

from collections.abc import Mapping
from typing import Any

AliasTable = Mapping[str, tuple[str, ...]]
"""Alias -> path of the real field from the same mapping, one or two names deep."""


def apply_aliases(given: Mapping[Any, Any], aliases: AliasTable) -> dict[Any, Any]:
    """A copy of `given` with every alias moved to its real place; an alias whose place is taken stays."""
    result = {key: value for key, value in given.items() if key not in aliases}
    for alias, target in aliases.items():
        if alias in given and not _place(result, target, given[alias]):
            result[alias] = given[alias]
    return result


def _place(result: dict[Any, Any], target: tuple[str, ...], value: object) -> bool:
    outer, *inner = target
    if not inner:
        if result.get(outer) is not None:
            return False
        result[outer] = value
        return True
    nested = result.get(outer)
    if nested is None:
        nested = {}
    if not isinstance(nested, Mapping) or nested.get(inner[0]) is not None:
        return False
    result[outer] = {**nested, inner[0]: value}
    return True
