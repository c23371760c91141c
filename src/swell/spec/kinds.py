"""Lists whose entries are of several kinds, each checked as the kind that it names.

Pydantic's own way puts the kind into the path of what is wrong and names unknown fields by the first kind.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from swell.spec.base import CONTRADICTION, Conflict, SpecModel
from swell.spec.problems import model_at


def of_its_kind(
    kinds: Mapping[str, type[SpecModel]], *, shared: type[SpecModel], default: str | None = None
) -> Callable[[object, ValidationInfo], object]:
    """A validator that runs before pydantic's. `default` is the kind of an entry that names none, if that may be.

    The fields of `shared`, which all kinds have, are named last where known fields are listed.
    """

    def check(value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Mapping):
            return value
        kind = value.get("kind", default)
        if kind is None and "kind" not in value:
            problem = PydanticCustomError(
                CONTRADICTION, "no kind", _says(f"is missing; give one of {', '.join(kinds)}")
            )
        elif not isinstance(kind, str) or kind not in kinds:
            problem = PydanticCustomError("enum", "unknown kind", {"expected": ", ".join(kinds)})
        else:
            try:
                return kinds[kind].model_validate(value, context=info.context)
            except ValidationError as error:
                details = [_in_own_words(detail, kinds[kind], shared) for detail in error.errors(include_url=False)]
                raise ValidationError.from_exception_data(kind, details) from error
        raise ValidationError.from_exception_data("entry", [InitErrorDetails(type=problem, loc=("kind",), input=kind)])

    return check


def _in_own_words(detail: Any, model: type[SpecModel], shared: type[SpecModel]) -> InitErrorDetails:
    kind, message, context = detail["type"], detail["msg"], detail.get("ctx")
    field = detail["loc"][-1] if detail["loc"] else ""
    model = model_at(model, detail["loc"][:-1]) or model  # the field may be one of a part
    if kind == "extra_forbidden" and field not in model.aliases:
        own = sorted(model.model_fields, key=shared.model_fields.__contains__)  # what all have comes last
        near = difflib.get_close_matches(str(field), [*model.model_fields, *model.aliases], n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(own)}"
        # Its value is not shown: it could be a secret that was meant for the field next to it.
        kind, message, context = CONTRADICTION, "unknown field", _says(f"is not a known field; {hint}")
    elif kind == "extra_forbidden":
        real = ".".join(model.aliases[field])
        sentence = f"means the same as {real}, which is given too; keep one of them"
        kind, message, context = CONTRADICTION, "given twice", _says(sentence)
    return InitErrorDetails(
        type=PydanticCustomError(kind, message, context), loc=detail["loc"], input=detail["input"], ctx={}
    )


def _says(sentence: str) -> dict[str, list[Conflict]]:
    return {"conflicts": [("", sentence)]}
