"""Text into a checked `Spec`, once, at the edge. Every refusal is a `SpecError`; nothing below checks again."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swell.errors import SpecError
from swell.spec.document import Spec
from swell.spec.problems import Problem, SpecRefusedError, problems_of
from swell.spec.yaml_text import MAX_BYTES, YamlError, read_yaml


def parse_spec(text: str, *, origin: str, base: Path | None = None) -> Spec:
    """The spec in `text` (YAML or JSON). `origin` names it in messages; relative paths are taken from `base`."""
    try:
        values = read_yaml(text)
    except YamlError as error:
        place = f"{origin}:{error.line}:{error.column}" if error.line else origin
        raise SpecError("", f"{place}: {error.problem}") from error
    return check_spec(values, origin=origin, base=base)


def check_spec(values: object, *, origin: str, base: Path | None = None) -> Spec:
    """As `parse_spec`, for values that are already read from their text."""
    if not isinstance(values, dict):
        raise SpecRefusedError(origin, [Problem("", "must be a mapping that begins with models:")])
    try:
        return Spec.model_validate(values, context={"base": base})
    except ValidationError as error:
        raise SpecRefusedError(origin, problems_of(error, Spec)) from error


def load_spec(path: Path) -> Spec:
    """The spec in the file at `path`; relative paths in it are taken from its folder."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError as error:
        raise SpecError("", f"{path}: no such file; give another with -f, or leave -f out for the default") from error
    except OSError as error:
        raise SpecError("", f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        if len(content) <= MAX_BYTES or error.start < MAX_BYTES - 4:
            raise SpecError("", f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
        raise SpecError("", f"{path}: is larger than {MAX_BYTES // 1024} KiB") from error
    return parse_spec(text, origin=str(path), base=path.absolute().parent)


def with_server(spec: Spec, *, origin: str, **changes: Any) -> Spec:
    """`spec` with fields of its server replaced and checked anew, as command-line options do."""
    server = {**spec.server.model_dump(), **{name: value for name, value in changes.items() if value is not None}}
    values = {name: getattr(spec, name) for name in Spec.model_fields} | {"server": server}
    return check_spec(values, origin=origin)


def spec_json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, with real names only (aliases are accepted but not advertised)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
