"""What every part of a spec shares: frozen, closed to unknown fields, aliases first, several problems at once."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from swell.spec.aliases import AliasTable, apply_aliases

CONTRADICTION = "contradiction"  # pydantic error type that carries `Conflict`s in its context
MAX_TEXT_LENGTH = 4096  # characters in any one value

Count = Annotated[int, Strict()]
Seconds = Annotated[float, Strict(), Field(gt=0, le=7 * 24 * 3600)]
Switch = Annotated[bool, Strict()]
Text = Annotated[
    str, Strict(), StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Conflict = tuple[str, str]
"""Field inside the model that is checked (empty: the model itself), and a sentence."""


class SpecModel(BaseModel):
    """Base of every spec type. Values are checked when built; nothing below checks them again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    aliases: ClassVar[AliasTable] = {}
    short_forms: ClassVar[Sequence[JsonSchemaValue]] = ()  # that `expand` takes, as JSON Schemas

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        """Fill defaults that follow from other fields. Runs before checking, so values may be of any type."""
        return given

    @classmethod
    def expand(cls, given: object) -> object:
        """Turn a short form, such as `replicas: 2`, into a mapping; anything else comes back as it is."""
        return given

    def conflicts(self) -> list[Conflict]:
        """Every contradiction between fields that are each valid."""
        return []

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        if not cls.short_forms:
            return handler(schema)
        return {"anyOf": [handler.resolve_ref_schema(handler(schema)), *cls.short_forms]}

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, given: object) -> object:
        given = cls.expand(given)
        if not isinstance(given, Mapping):
            return given
        known = cls.model_fields.keys() | cls.aliases.keys()
        stated = {key: value for key, value in given.items() if value is not None or key not in known}
        return cls.complete(apply_aliases(stated, cls.aliases))

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "SpecModel":
        conflicts = self.conflicts()
        if conflicts:
            raise PydanticCustomError(CONTRADICTION, "contradictory fields", {"conflicts": conflicts})
        return self


class OneOrSeveral:
    """Beside a tuple's type: an item by itself may stand for a list of it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list | tuple) else [value], handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        several = handler(schema)
        return {"anyOf": [several, several["items"]]}


def _beside_the_file(value: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    return str(Path(base, Path(value).expanduser())) if base is not None else value


LocalPath = Annotated[Text, AfterValidator(_beside_the_file)]
"""A path on this machine; relative ones are taken from the folder of the file that names them."""


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without brackets, can only be this machine."""
    if host == "localhost" or host == "::1":
        return True
    return re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
