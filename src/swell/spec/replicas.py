"""How many replicas a model has."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, Count, SpecModel

MAX_REPLICAS = 10_000
_RANGE = re.compile(r"\s*(\d{1,9})\s*\.\.\s*(\d{1,9})\s*")


class ReplicaRange(SpecModel):
    """Fewest and most replicas. Short forms: `2` (exactly two) and `1..4`."""

    aliases: ClassVar[AliasTable] = {
        "min_replicas": ("min",),
        "max_replicas": ("max",),
        "minReplicas": ("min",),
        "maxReplicas": ("max",),
    }
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = (
        {"type": "integer", "minimum": 0, "maximum": MAX_REPLICAS},
        {"type": "string", "pattern": f"^{_RANGE.pattern}$"},
    )

    min: Annotated[Count, Field(ge=0, le=MAX_REPLICAS)] = 1
    max: Annotated[Count, Field(ge=0, le=MAX_REPLICAS)] = 1

    @classmethod
    def expand(cls, given: object) -> object:
        if isinstance(given, int) and not isinstance(given, bool):
            return {"min": given, "max": given}
        if isinstance(given, str) and (match := _RANGE.fullmatch(given)):
            return {"min": int(match[1]), "max": int(match[2])}
        return given

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        fewest, most = given.get("min"), given.get("max")
        if most is None and type(fewest) is int:
            given["max"] = max(1, fewest)
        if fewest is None and type(most) is int:
            given["min"] = 1 if most else 0
        return given

    def conflicts(self) -> list[Conflict]:
        if self.min <= self.max:
            return []
        return [("min", f"{self.min} is more than max ({self.max}); lower min or raise max")]


def leaves_a_choice(given: object) -> bool:
    """Whether `replicas`, as it was written, has a fewest and a most that differ; what is wrong with it has not."""
    try:
        found = ReplicaRange.model_validate(given)
    except ValidationError:
        return False
    return found.min < found.max
