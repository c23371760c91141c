"""Spec types as Kubernetes takes schemas: one type a node, no references, no choice between shapes.

Where the file may say a thing in several ways, a resource says it in the long one: a list rather than one item, fields
rather than a short form, a number rather than its text. Defaults are left out: what an object does not say is decided
when it is read, by the release that reads it, and some of them follow from other fields. Unknown fields are refused or
pruned by the API server, so `additionalProperties` needs no mention.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from swell.spec.base import SpecModel

Schema = dict[str, Any]
Rule = tuple[str, str]
"""A condition in CEL that must hold for an object, and what is said where it does not."""
Rules = Mapping[str, Sequence[Rule]]
"""By the name of the spec type whose objects they are for."""

_LONGEST_FORM_FIRST: Final = ("array", "object", "number", "integer", "boolean", "string")
_KEPT: Final = ("description", "enum", "pattern", "minLength", "maxLength", "maxItems", "minItems", "maximum")
_SHORT_FORMS_SENTENCE: Final = " Short forms:"


def structural_schema(model: type[SpecModel], rules: Rules) -> Schema:
    """The structural schema of a spec type, by its real names. ValueError for what has none."""
    whole = model.model_json_schema()
    return _Flattening(whole.get("$defs", {}), rules).flatten(whole, model.__name__)


class _Flattening:
    def __init__(self, definitions: Mapping[str, Schema], rules: Rules) -> None:
        self._definitions = definitions
        self._rules = rules

    def flatten(self, schema: Schema, name: str = "") -> Schema:
        """`name` is that of the spec type, where the schema is one's."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._described(self.flatten(self._definitions[name], name), schema)
        if "anyOf" in schema:
            return self._described(self._one_of(schema["anyOf"], name), schema)
        found: Schema = {key: schema[key] for key in _KEPT if key in schema}
        if "enum" in found:
            found["enum"] = [str(value) for value in found["enum"]]  # enumerations, where pydantic was given them
        if "description" in found:
            found["description"] = found["description"].partition(_SHORT_FORMS_SENTENCE)[0]
        return {**found, **_lower_bound(schema), **self._typed(schema, name)}

    def _one_of(self, choices: Sequence[Schema], name: str) -> Schema:
        shapes = [self.flatten(choice, name) for choice in choices if choice.get("type") != "null"]
        longest = min(shapes, key=lambda shape: _LONGEST_FORM_FIRST.index(shape["type"]))
        alike = [shape for shape in shapes if shape["type"] == longest["type"]]
        if len(alike) == 1:
            return longest
        values = [{key: value for key, value in shape.items() if key != "type"} for shape in alike]
        return {"type": longest["type"], "anyOf": values}

    def _typed(self, schema: Schema, name: str) -> Schema:
        if "enum" in schema and "type" not in schema:
            return {"type": "string"}
        match schema["type"]:
            case "object" if "properties" in schema:
                return self._fields(schema, name)
            case "object":
                return {"type": "object", "additionalProperties": self.flatten(schema["additionalProperties"])}
            case "array":
                return {"type": "array", "items": self.flatten(schema["items"])}
            case "integer":
                return {"type": "integer", "format": "int64"}
            case str(simple):
                return {"type": simple}
            case several:
                raise ValueError(f"a structural schema has one type a node, not {several}")

    def _fields(self, schema: Schema, name: str) -> Schema:
        fields = {key: self.flatten(field) for key, field in schema["properties"].items()}
        found: Schema = {"type": "object", "properties": fields}
        if required := schema.get("required"):
            found["required"] = required
        if rules := self._rules.get(name):
            found["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
        return found

    @staticmethod
    def _described(found: Schema, schema: Schema) -> Schema:
        """A field says more of what it holds than its type does."""
        return found | {"description": schema["description"]} if "description" in schema else found


def _lower_bound(schema: Schema) -> Schema:
    """OpenAPI 3.0 has one lower bound, and a word on whether it is itself allowed."""
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    if above is None or (least is not None and least > above):
        return {} if least is None else {"minimum": least}
    return {"minimum": above, "exclusiveMinimum": True}
