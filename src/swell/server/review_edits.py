"""Changes to one model of a `swell.yaml` as edits of its text: comments, order and layout stay as they are.

A value is replaced where it stands, or a line is inserted below a neighbour. What the text looks like afterwards is
read again and must say exactly what was meant, for this model and for everything else; where it does not (anchors that
are shared, values over several lines, names of other stacks), the edit is refused and the file left to its owner.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from swell.errors import SpecError
from swell.spec import ModelSpec, ObjectivesSpec, ReplicaRange, ScalingSpec, parse_spec
from swell.spec.aliases import AliasTable
from swell.spec.objectives import SpotSpec

_PARTS: Mapping[str, AliasTable] = {
    "replicas": ReplicaRange.aliases, "objectives": ObjectivesSpec.aliases, "scaling": ScalingSpec.aliases,
    "spot": SpotSpec.aliases,
}  # fmt: skip
_NEIGHBOURS = ("spot", "accelerators", "replicas", "objectives", "engine", "source", "name")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NULL = "tag:yaml.org,2002:null"

Value = int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a model, by its path from the model's own mapping, and what it shall be."""

    path: tuple[str, ...]  # one or two names
    value: Value


class UnsafeEditError(Exception):
    """The text cannot be edited without a risk; the message says why."""


def changed(model: ModelSpec, changes: Sequence[Change]) -> ModelSpec:
    """The model with the changes, checked anew."""
    values = model.model_dump()
    for change in changes:
        name, *inner = change.path
        values[name] = {**(values[name] or {}), inner[0]: change.value} if inner else change.value
    return ModelSpec.model_validate(values)


def edited(text: str, model: str, changes: Sequence[Change], *, origin: str, base: Path | None) -> str:
    """The file's text with the changes to the model of that name. Raises UnsafeEditError."""
    before = parse_spec(text, origin=origin, base=base)
    models = tuple(changed(each, changes) if each.name == model else each for each in before.models)
    for change in changes:
        text = _with_change(text, model, change)
    try:
        after = parse_spec(text, origin=origin, base=base)
    except SpecError as error:
        raise UnsafeEditError("an edit of its lines would not be read back as it was meant") from error
    if after != before.model_copy(update={"models": models}):
        raise UnsafeEditError("an edit of its lines would change something else as well")
    return text


def snippet(model: ModelSpec, changes: Sequence[Change]) -> str:
    """The changes as lines of YAML to be put in by hand."""
    lines: dict[str, list[str]] = {}
    for change in changes:
        name, *inner = change.path
        lines.setdefault(name, []).append(f"{inner[0]}: {_text(change.value)}" if inner else _text(change.value))
    body = (f"    {name}: {'{' + ', '.join(v) + '}' if name in _PARTS else v[0]}" for name, v in lines.items())
    return "\n".join(["models:", f"  - name: {_text(model.name)}", *body]) + "\n"


# Finding


def _with_change(text: str, model: str, change: Change) -> str:
    root = _model_node(text, model)
    outer, *inner = change.path
    whole = next((alias for alias, target in ModelSpec.aliases.items() if target == change.path), "")
    if whole and _entry(root, whole):  # such as min_replicas, in place of replicas.min
        return _put(text, root, whole, change.value)
    name = next((alias for alias, to in ModelSpec.aliases.items() if to == (outer,) and _entry(root, alias)), outer)
    if not inner:
        return _put(text, root, name, change.value)
    there = _entry(root, name)
    if there is None or there[1].tag == _NULL:
        return _put(text, root, name, {inner[0]: change.value})
    if isinstance(there[1], yaml.MappingNode):
        aliases = _PARTS[outer]
        leaf = next((alias for alias, to in aliases.items() if to == (inner[0],) and _entry(there[1], alias)), inner[0])
        return _put(text, there[1], leaf, change.value)
    short = ReplicaRange.expand(yaml.safe_load(there[1].value)) if isinstance(there[1], yaml.ScalarNode) else None
    if outer != "replicas" or not isinstance(short, dict):
        raise UnsafeEditError(f"{outer} is written in a way that is not edited")
    return _put(text, root, name, {**short, inner[0]: change.value})


def _model_node(text: str, model: str) -> yaml.MappingNode:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    listed = (_entry(root, "models") or _entry(root, "model_list")) if isinstance(root, yaml.MappingNode) else None
    nodes: list[yaml.Node] = listed[1].value if listed and isinstance(listed[1], yaml.SequenceNode) else []
    for node in nodes:
        if not isinstance(node, yaml.MappingNode):
            continue
        named = _entry(node, "name") or _entry(node, "model_name")
        if named and named[1].value == model:
            return node
    raise UnsafeEditError(f"the model {model} is not written out in the list of models")


def _entry(mapping: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((key, value) for key, value in mapping.value if key.value == name), None)


# Changing


def _put(text: str, mapping: yaml.MappingNode, name: str, value: Value | dict[str, Any]) -> str:
    quoted = any(key.style == '"' for key, _ in mapping.value)  # a file in JSON stays one
    there = _entry(mapping, name)
    if there is not None:
        return _replaced(text, there[1], value, quoted=quoted)
    line = f"{json.dumps(name) if quoted else name}: {_text(value, quoted=quoted)}"
    if mapping.flow_style:
        last = mapping.value[-1][1] if mapping.value else None
        at = mapping.start_mark.index + 1 if last is None else last.end_mark.index
        return text[:at] + (", " if last else "") + line + text[at:]
    beside = next((found for each in _NEIGHBOURS if (found := _entry(mapping, each))), mapping.value[-1])
    return _inserted(text, _last_line(beside[1]), " " * beside[0].start_mark.column + line)


def _replaced(text: str, node: yaml.Node, value: Value | dict[str, Any], *, quoted: bool) -> str:
    begin, end = node.start_mark.index, node.end_mark.index
    span = text[begin:end]
    if span[:1] in tuple("&*!|>") and span:
        raise UnsafeEditError("a value has an anchor, an alias or a tag, or is a block of text")
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        if not isinstance(value, tuple):
            raise UnsafeEditError("a list stands where one value is expected")
        return _with_items(text, node, value, quoted=quoted)
    if "\n" in span and ("#" in span or not isinstance(node, yaml.SequenceNode)):
        raise UnsafeEditError("a value goes over several lines")
    return text[:begin] + (" " if begin == end else "") + _text(value, quoted=quoted) + text[end:]


def _with_items(text: str, node: yaml.SequenceNode, wanted: tuple[str, ...], *, quoted: bool) -> str:
    """A list with an item a line: lines that stay keep their comments, and comments of their own stay all."""
    lines = text.splitlines(keepends=True)
    kept: dict[str, str] = {}
    for item in node.value:
        line = lines[item.start_mark.line]
        if not isinstance(item, yaml.ScalarNode) or not line.lstrip(" ").startswith("- ") or item.value in kept:
            raise UnsafeEditError("a list is not written with one item a line")
        kept[item.value] = line
    first, last = node.value[0].start_mark.line, _last_line(node)
    dash = kept[node.value[0].value].split("-", 1)[0]
    comments = [line for line in lines[first : last + 1] if line not in kept.values()]
    if any(line.strip() and not line.lstrip().startswith("#") for line in comments):
        raise UnsafeEditError("a list is not written with one item a line")
    end = _line_end(text)
    items = [kept.get(name) or f"{dash}- {_text(name, quoted=quoted)}{end}" for name in wanted]
    items = [line if line.endswith(("\n", "\r")) else line + end for line in items]
    return "".join([*lines[:first], *comments, *items, *lines[last + 1 :]])


def _inserted(text: str, after_line: int, line: str) -> str:
    lines, end = text.splitlines(keepends=True), _line_end(text)
    if not lines[after_line].endswith(("\n", "\r")):
        lines[after_line] += end
    return "".join([*lines[: after_line + 1], line + end, *lines[after_line + 1 :]])


def _last_line(node: yaml.Node) -> int:
    """Where its text ends: a block's own end mark is where the next thing begins, comments in between."""
    if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">"):
        return int(node.end_mark.line)
    if isinstance(node, yaml.CollectionNode) and node.flow_style:
        return int(node.end_mark.line)
    if isinstance(node, yaml.CollectionNode) and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    raise UnsafeEditError("a block of text stands where a line would be put")


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _text(value: Value | Mapping[str, Any], *, quoted: bool = False) -> str:
    """A value as it is written on one line."""
    if isinstance(value, Mapping):
        parts = (f"{json.dumps(k) if quoted else k}: {_text(v, quoted=quoted)}" for k, v in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(each, quoted=quoted) for each in value) + "]"
    if isinstance(value, str):
        is_plain = not quoted and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value
        return value if is_plain else json.dumps(value)
    return f"{value:.1f}" if value in (0.0, 1.0) and isinstance(value, float) else f"{value:.10g}"
