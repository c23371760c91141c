"""YAML into plain values, with bounds: size, depth, and the number of values after aliases are followed.

Only what JSON can say is read (mappings, lists, text, numbers, booleans, null). Dates stay text. A key that is given
twice is refused instead of the last one winning.
"""

import re
from collections.abc import Hashable

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 100_000  # counted after aliases: a few lines of aliases can stand for billions

_PREFIX = "tag:yaml.org,2002:"
_TAGS = frozenset(_PREFIX + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge"))


class YamlError(Exception):
    """The text cannot be read; `line` and `column` count from 1, 0 where unknown."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.column = column


class WrittenFloat(float):
    """A number with a fraction, and as it is written: an amount of money must not become a binary fraction."""

    text: str


def _float_as_written(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> WrittenFloat:
    number = WrittenFloat(loader.construct_yaml_float(node))
    number.text = node.value
    return number


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Also of what is tagged `!!int`: ValueError where it is written in another base."""
    return int(node.value.replace("_", ""), 10)


class _Loader(yaml.SafeLoader):
    """SafeLoader without timestamps and the `=` value, which no spec needs, and with decimal numbers alone.

    YAML 1.1 reads 010 as eight, 0x10 as sixteen and 1:30 as ninety. Here these are text: a field that takes text has
    what was written, an amount of 010 is ten, and any other number is refused where it stands.
    """


_INT, _FLOAT = _PREFIX + "int", _PREFIX + "float"
_WRITTEN_DECIMAL = {
    _INT: re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"),
    _FLOAT: re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
    ),
}

_Loader.add_constructor(_FLOAT, _float_as_written)
_Loader.add_constructor(_INT, _decimal)

_Loader.yaml_implicit_resolvers = {
    first: [(tag, _WRITTEN_DECIMAL.get(tag, pattern)) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str) -> object:
    """The values in `text` (one document; empty text is an empty mapping). Raises YamlError only."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlError(f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        _check(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(problem or "is not YAML", *_place(mark)) from error
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise YamlError(f"is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:  # such as an integer of too many digits
        raise YamlError(f"holds a value that cannot be read: {str(error)[:200]}") from error


def _place(mark: yaml.Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _check(root: yaml.Node) -> None:
    """Refuse what is too much, in one walk that visits each node once however often it is aliased."""
    measured: dict[int, tuple[int, int]] = {}  # node id -> (values, depth) below and with it
    _measure(root, measured, open_nodes=set())


def _measure(node: yaml.Node, measured: dict[int, tuple[int, int]], open_nodes: set[int]) -> tuple[int, int]:
    if id(node) in measured:
        return measured[id(node)]
    place = _place(node.start_mark)
    if id(node) in open_nodes:
        raise YamlError("holds an alias that contains itself", *place)
    if len(open_nodes) >= MAX_DEPTH:
        raise YamlError(f"is nested more than {MAX_DEPTH} levels deep", *place)
    if node.tag not in _TAGS:
        raise YamlError(f"uses the tag {node.tag.replace(_PREFIX, '!!')[:60]}, which a spec cannot hold", *place)
    open_nodes.add(id(node))
    values, depth = 1, 1
    for child in _children(node):
        child_values, child_depth = _measure(child, measured, open_nodes)
        values += child_values
        depth = max(depth, child_depth + 1)
        if values > MAX_VALUES:
            raise YamlError(f"stands for more than {MAX_VALUES} values once its aliases are followed", *place)
        if depth > MAX_DEPTH:
            raise YamlError(f"is nested more than {MAX_DEPTH} levels deep", *place)
    open_nodes.discard(id(node))
    measured[id(node)] = values, depth
    return values, depth


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: set[Hashable] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError("has a key that is not plain text", *_place(key.start_mark))
        if (key.tag, key.value) in seen and not key.tag.endswith(":merge"):
            raise YamlError(f"gives {key.value[:60]!r} twice in one mapping; keep one", *_place(key.start_mark))
        seen.add((key.tag, key.value))
    return [child for pair in node.value for child in pair]
