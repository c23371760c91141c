"""What is wrong with a spec, as sentences: path, the offending value, what is allowed, the nearest valid name."""

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from swell.errors import SpecError
from swell.spec.base import CONTRADICTION, SpecModel

MAX_SHOWN = 20
MAX_VALUE_LENGTH = 60
_SECRET = re.compile(r"key|secret|token$|password|credential|authorization", re.I)
_SECRET_VALUE = re.compile(r"^(sk-|hf_|ghp_|AKIA)|://[^/]*@")
_REWORDED = {
    "Input should be a valid tuple": "must be a list",
    "Input should be a valid string": "must be text; put it in quotes",
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a valid boolean": "must be true or false",
    "String should": "must",
    "Input should": "must",
    "Tuple should": "must",
}

Location = Sequence[str | int]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `path` is such as `models[0].replicas.max`; empty for the file as a whole."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class SpecRefusedError(SpecError):
    """A refused spec with everything found wrong in it. `path` is that of the first problem."""

    def __init__(self, origin: str, problems: Sequence[Problem]) -> None:
        if len(problems) == 1:
            message = f"{origin}: {problems[0]}"
        else:
            lines = [f"{origin} has {len(problems)} problems:", *(f"  {problem}" for problem in problems[:MAX_SHOWN])]
            if len(problems) > MAX_SHOWN:
                lines.append(f"  … and {len(problems) - MAX_SHOWN} more")
            message = "\n".join(lines)
        super().__init__("", message)
        self.path = problems[0].path
        self.problems = tuple(problems)


def problems_of(error: ValidationError, root: type[SpecModel]) -> list[Problem]:
    """Every problem in `error`, in the file's order of reading, each once."""
    found = [problem for detail in error.errors(include_url=False) for problem in _explain(detail, root)]
    return list(dict.fromkeys(found))


def shorten(value: object, field: str = "") -> str:
    """`value` as it may stand in a message: short, printable, and hidden where it could be a secret."""
    if isinstance(value, str) and (_SECRET.search(field) or _SECRET_VALUE.search(value)):
        return "(hidden)"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a very large number"
    if isinstance(value, StrEnum):
        value = str(value)
    return clip(repr(value))


def clip(text: str) -> str:
    """`text` cut to a length for messages, without characters a terminal cannot print."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"


def path_of(location: Location) -> str:
    """`("models", 0, "name")` as `models[0].name`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            name = step if re.fullmatch(r"[\w.-]{1,60}", step, re.ASCII) else clip(repr(step))
            path += f".{name}" if path else name
    return path


def _explain(detail: Any, root: type[SpecModel]) -> Iterator[Problem]:
    location = tuple(step for step in detail["loc"] if step != "[key]")
    kind, value = detail["type"], detail.get("input")
    path = path_of(location)
    field = next((step for step in reversed(location) if isinstance(step, str)), "")
    if kind == CONTRADICTION:
        for inner, sentence in detail["ctx"]["conflicts"]:
            yield Problem(f"{path}.{inner}" if path and inner else path or inner, sentence)
    elif kind == "missing":
        yield Problem(path, f"is missing; {_MISSING.get(field, 'give it')}")
    elif kind == "extra_forbidden":
        yield Problem(path, _unknown_field(root, location, value))
    elif kind == "enum":
        names = [name.strip().strip("'") for name in re.split(r",| or ", detail["ctx"]["expected"])]
        yield Problem(path, f"{shorten(value, field)} is not one of {', '.join(names)}{_nearest(value, names)}")
    elif kind == "invalid_key":
        yield Problem(path, "is not a field name; names are text")
    else:
        yield Problem(path, f"{shorten(value, field)} {_reword(detail['msg'], field)}")


def _reword(message: str, field: str) -> str:
    if message.startswith("Input should be a valid dictionary"):
        return "must be a mapping, or min..max such as 1..4" if field == "replicas" else "must be a mapping of fields"
    if "should match pattern" in message:
        return _PATTERNS.get(field, "has characters that are not allowed here")
    for original, ours in _REWORDED.items():
        if message.startswith(original):
            rest = message.removeprefix(original)
            return ours + re.sub(r"^ be\b", " be", rest)
    return message


_PATTERNS = {
    "name": "is not a name: begin with a letter or digit, then letters, digits, '.', '_' and '-' "
    "(models also org/name and name:tag)",
    "model_name": "is not a model name",
    "sha256": "must be 64 hexadecimal digits",
    "health_path": "must begin with / and have no spaces, query or fragment",
    "api_key_env": "must be the name of an environment variable, not the key itself",
}


_MISSING = {
    "models": "list at least one model, such as models: [{name: chat, source: hf://org/name}]",
    "name": "give it a name",
}


def _unknown_field(root: type[SpecModel], location: Location, value: object) -> str:
    model, name = model_at(root, location[:-1]), str(location[-1])
    if model is None:
        return "is not a known field"
    if name in model.aliases:
        real = ".".join(model.aliases[name])
        return f"{shorten(value, name)} means the same as {real}, which is given too; keep one of them"
    names = [*model.model_fields, *model.aliases]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(model.model_fields)}"
    return f"is not a known field (its value is {shorten(value, name)}){hint}"


def _nearest(value: object, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(value.lower()[:100], names, n=1, cutoff=0.5) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def model_at(root: type[SpecModel], location: Location) -> type[SpecModel] | None:
    """The spec type that stands at `location`, found by its fields' annotations."""
    model: type[SpecModel] | None = root
    for step in location:
        if isinstance(step, str):
            field = model.model_fields.get(step) if model else None
            model = _spec_type(field.annotation) if field else None
    return model


def _spec_type(annotation: object) -> type[SpecModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, SpecModel):
        return annotation
    found = (_spec_type(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)
