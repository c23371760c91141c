"""Sizes of memory as people write them: 512MiB, 8GiB, 8Gi, 16GB, or a number of bytes."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.spec.base import Count

MAX_SIZE_BYTES = 64 * 1024**4
_BINARY, _DECIMAL = ("K", "M", "G", "T"), ("k", "M", "G", "T")
_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{letter}i{suffix}": 1024**power for suffix in ("", "B") for power, letter in enumerate(_BINARY, 1)},
    **{f"{letter}{suffix}": 1000**power for suffix in ("", "B") for power, letter in enumerate(_DECIMAL, 1)},
}
_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))? ?([A-Za-z]*)")


def parse_size(text: str) -> int | None:
    """Bytes; None for what is no size."""
    match = _SIZE.fullmatch(text)
    if match is None or match[3] not in _UNITS:
        return None
    unit, fraction = _UNITS[match[3]], match[2] or ""
    whole = int(match[1]) * unit
    return whole + int(fraction) * unit // int("1" + "0" * len(fraction)) if fraction else whole


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    parsed = parse_size(value)
    if parsed is None:
        raise PydanticCustomError("size", "is not a size such as 512MiB, 8GiB or 16GB")
    return parsed


Size = Annotated[
    Count,
    Field(ge=1024**2, le=MAX_SIZE_BYTES),
    BeforeValidator(_size),
    WithJsonSchema({"type": ["string", "integer"], "description": "Bytes, or text such as 8GiB"}, mode="validation"),
]
