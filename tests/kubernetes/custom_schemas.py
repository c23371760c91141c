"""Structural schemas for tests: what holds for every node, and random values that a schema takes."""

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

TYPES = {"array", "boolean", "integer", "number", "object", "string"}
VALUE_RULES = {"enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength"}
NOT_IN_RE2 = re.compile(r"\(\?[=!<]|\\[1-9]|\(\?P=|[*+?}]\+")  # looking around, looking back, possessive


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """The schema itself and everything below it that stands for a value, with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def closed(schema: Schema) -> Schema:
    """For a validator of JSON Schema: unknown fields refused, as an API server does in its strict mode."""
    found = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if found.pop("exclusiveMinimum", False):
        found["exclusiveMinimum"] = found.pop("minimum")
    if "properties" in found:
        found["properties"] = {name: closed(field) for name, field in found["properties"].items()}
        found["additionalProperties"] = False
    if "items" in found:
        found["items"] = closed(found["items"])
    return found


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that the schema takes: CEL's rules aside, which none of them need obey."""
    if schema.get("anyOf"):
        return st.one_of([values({**schema, "anyOf": None, **each}) for each in schema["anyOf"]])
    match schema["type"]:
        case "object":
            fields = {name: values(field) for name, field in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema.get("required", [])}
            return st.fixed_dictionaries(required, optional=fields)
        case "array":
            return st.lists(values(schema["items"]), max_size=min(3, schema.get("maxItems", 3)))
        case "integer":
            least, most = schema.get("minimum", -(2**53)), schema.get("maximum", 2**53)
            return st.integers(least, most) | st.integers(least, min(least + 5, most))
        case "number":
            least = schema.get("minimum", -1e12)
            excluded = bool(schema.get("exclusiveMinimum"))
            found = st.floats(least, schema.get("maximum", 1e12), exclude_min=excluded)
            return found if excluded else found | st.just(least)
        case "string":
            return _texts(schema)
    raise AssertionError(f"no values for {schema}")


def _texts(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("enum"):
        return st.sampled_from(schema["enum"])
    pattern, least, most = schema.get("pattern", ""), schema.get("minLength", 0), schema.get("maxLength", 4096)
    likely = ["hf://a/b", "a.gguf", "http://127.0.0.1:9", "80%", "forecast 100%", "month", "UTC", "throttle", "a", "b"]
    fitting = [text for text in likely if re.search(pattern, text) and least <= len(text) <= most]
    random = st.from_regex(pattern, fullmatch=False).map(lambda text: text.strip("\n")) if pattern else st.text()
    checked = random.filter(lambda text: least <= len(text) <= most and re.search(pattern, text) is not None)
    return st.sampled_from(fitting) | checked if fitting else checked
