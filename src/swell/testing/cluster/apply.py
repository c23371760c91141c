"""Server-side apply in small: who owns which fields, what is taken away with them, and who is in whose way.

Fields are paths of keys. Items of a list that have a `name` are told apart by it, as Kubernetes' schemas do for
containers, variables, volumes and mounts' volumes; every other list is one value.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

Path = tuple[str, ...]
_IDENTITY = frozenset(
    {("apiVersion",), ("kind",), *(("metadata", each) for each in ("name", "namespace", "uid", "resourceVersion"))}
)


class ConflictError(Exception):
    """A field belongs to another manager, who wants another value."""

    def __init__(self, manager: str, path: Path) -> None:
        super().__init__(f'conflict with "{manager}": .{".".join(path)}')


def apply(
    live: dict[str, Any] | None,
    managed: dict[str, set[Path]],
    manifest: Mapping[str, Any],
    *,
    manager: str,
    force: bool,
) -> dict[str, Any]:
    """The object after `manager` applied `manifest`; `managed`, the owners of its fields, is brought up to date."""
    wanted = {path: value for path, value in _leaves(manifest, ()) if path not in _IDENTITY}
    result: dict[str, Any] = deepcopy(live) if live is not None else {}
    current = dict(_leaves(result, ()))
    for other, paths in managed.items():
        if other == manager:
            continue
        for path in sorted(paths & wanted.keys()):
            if current.get(path) != wanted[path]:
                if not force:
                    raise ConflictError(other, path)
                paths.discard(path)
    elsewhere = {path for other, paths in managed.items() if other != manager for path in paths}
    for path in managed.get(manager, set()) - wanted.keys() - elsewhere:
        _remove(result, path)
    managed[manager] = set(wanted)
    _merge(result, deepcopy(dict(manifest)))
    return result


def take_over(old: Mapping[str, Any], new: Mapping[str, Any], managed: dict[str, set[Path]], *, manager: str) -> None:
    """Who writes another value than there was, without applying, owns it from then on, alone."""
    before = dict(_leaves(old, ()))
    changed = {path for path, value in _leaves(new, ()) if before.get(path) != value}
    for paths in managed.values():
        paths.difference_update(changed)
    managed.setdefault(manager, set()).update(changed)


def merge_patch(live: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396."""
    result = dict(live)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merge_patch(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result


def _is_named(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "name" in each for each in value)


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif _is_named(value):
        for each in value:
            yield from _leaves(each, (*path, f"name={each['name']}"))
    else:
        yield path, value


def _remove(target: Any, path: Path) -> None:
    step, rest = path[0], path[1:]
    if isinstance(target, list):
        found = next((each for each in target if isinstance(each, dict) and step == f"name={each.get('name')}"), None)
        if found is not None and rest:
            _remove(found, rest)
            if found.keys() <= {"name"}:
                target.remove(found)
    elif isinstance(target, dict) and step in target:
        if rest:
            _remove(target[step], rest)
        if not rest or target[step] in ({}, []):
            del target[step]


def _merge(target: dict[str, Any], manifest: dict[str, Any]) -> None:
    for key, value in manifest.items():
        below = target.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _merge(below, value)
        elif _is_named(value) and _is_named(below):
            known = {each["name"]: each for each in below or ()}
            for each in value:
                if each["name"] in known:
                    _merge(known[each["name"]], each)
                else:
                    below.append(each)  # type: ignore[union-attr]  # a list, by the test above
        else:
            target[key] = value
