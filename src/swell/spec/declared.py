"""What shall be served: the file's spec and the resources beside it, as one spec, checked by the file's own parser.

A resource that is wrong is refused by itself, with its reason, and everything else is served. What is wrong with it
alone is found first; what is wrong with it beside the others is found by its path in what the parser says of the whole.
Where no path tells, the first resource (by age) with which the whole is wrong is the one that is refused.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from swell.errors import SpecError
from swell.spec.custom_resources import KINDS, MODELS, SERVER_SECRETS, TENANTS, TYPES
from swell.spec.document import Spec
from swell.spec.models import MAX_MODELS
from swell.spec.parse import check_spec
from swell.spec.problems import SpecRefusedError, problems_of
from swell.spec.tenants import MAX_TENANTS
from swell.spec.yaml_text import WrittenFloat

MAX_ROUNDS: Final = 64  # of refusing what does not fit; whatever is left then is refused together
MAX_PROBLEMS: Final = 5  # of one resource that are told

NAME_TAKEN, INVALID, UNAVAILABLE = "NameTaken", "Invalid", "Unavailable"
_LIMITS: Final = {MODELS: MAX_MODELS, TENANTS: MAX_TENANTS}
_PLACE: Final = re.compile(rf"({MODELS}|{TENANTS})\[(\d+)\]\.?")

Key = tuple[str, str]
"""A resource: `models` or `tenants`, and its name in the cluster."""


class Declared(msgspec.Struct, frozen=True, order=True):
    """A resource as it was read. In the order of age."""

    created: str  # as the cluster writes times: in their order
    plural: str
    name: str
    uid: str
    generation: int
    content: str  # its spec, as JSON

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.plural, self.name


@dataclass(frozen=True)
class Refusal:
    """Why a resource is not served. `reason` is one word for programs."""

    reason: str
    message: str


@dataclass(frozen=True)
class Wanted:
    """A spec, the file's part of it, and what became of each resource."""

    spec: Spec
    of_file: Spec
    declared: tuple[Declared, ...] = ()
    refusals: Mapping[Key, Refusal] = field(default_factory=dict)
    served: Mapping[Key, str] = field(default_factory=dict)  # names as clients know them, of those that are accepted

    def resource_of(self, model: str) -> Key | None:
        """Whose the model of that name is; None where it is the file's."""
        return next((key for key, name in self.served.items() if key[0] == MODELS and name == model), None)


def merge(
    of_file: Spec,
    declared: Sequence[Declared],
    *,
    refused: Mapping[Key, Refusal] | None = None,
    check: Callable[[Spec], None] = lambda spec: None,
) -> Wanted:
    """The file with every resource that can be served beside it. `of_file` must be fit to be served by itself.

    `refused` are known to be unfit already. `check` is what a spec must hold beyond being one: it raises SpecError.
    """
    merging = _Merging(of_file, sorted(declared), dict(refused or {}), check)
    return merging.run()


class _Merging:
    def __init__(
        self, of_file: Spec, declared: list[Declared], refused: dict[Key, Refusal], check: Callable[[Spec], None]
    ) -> None:
        self._of_file = of_file
        self._declared = declared
        self._check = check
        self._refusals = refused
        self._names: dict[Key, str] = {}
        self._values: dict[Key, Any] = {}

    def run(self) -> Wanted:
        for each in self._declared:
            if each.key not in self._refusals:
                self._take(each)
        for _ in range(MAX_ROUNDS):
            left = [each for each in self._declared if each.key not in self._refusals]
            found = self._whole(left)
            if isinstance(found, Spec):
                return self._wanted(found, left)
            self._blame(found, left)
        for each in self._declared:
            self._refusals.setdefault(each.key, Refusal(INVALID, "too much is wrong with the resources beside it"))
        return self._wanted(self._of_file, [])

    def _wanted(self, spec: Spec, served: Sequence[Declared]) -> Wanted:
        names = {each.key: self._names[each.key] for each in served}
        return Wanted(spec, self._of_file, tuple(self._declared), self._refusals, names)

    def _take(self, item: Declared) -> None:
        """Look at a resource by itself."""
        values, problem = _values_of(item)
        if not problem:
            try:
                checked: Any = TYPES[item.plural].model_validate(values)
                self._names[item.key], self._values[item.key] = checked.name, values
                problem = self._clash(item, checked.name)
            except ValidationError as error:
                found = problems_of(error, TYPES[item.plural])
                problem = Refusal(INVALID, _sentences([_sentence(each.path, each.text) for each in found]))
        if problem:
            self._refusals[item.key] = problem

    def _clash(self, item: Declared, name: str) -> Refusal | None:
        field_name, limit = item.plural, _LIMITS[item.plural]
        known = getattr(self._of_file, field_name)
        if any(each.name == name for each in known):
            kind = KINDS[item.plural].lower()
            return Refusal(NAME_TAKEN, f"{name!r} is the name of a {kind} in the server's file; choose another")
        for other in self._declared:
            if other.key == item.key:
                break
            if other.plural == item.plural and self._names.get(other.key) == name and other.key not in self._refusals:
                return Refusal(
                    NAME_TAKEN, f"{name!r} is the name of {KINDS[other.plural]} {other.name}, which is older"
                )
        taken = sum(key[0] == item.plural and key not in self._refusals for key in self._names)
        if len(known) + taken > limit:
            return Refusal(INVALID, f"there are {limit} {field_name} already, which is the most")
        return None

    def _whole(self, left: Sequence[Declared]) -> Spec | SpecError:
        """The file with these resources, or what is wrong with that."""
        if not left:
            return self._of_file
        added = {plural: [self._values[each.key] for each in left if each.plural == plural] for plural in KINDS}
        values: dict[str, Any] = {name: getattr(self._of_file, name) for name in Spec.model_fields}
        values |= {plural: [*values[plural], *items] for plural, items in added.items()}
        try:
            spec = check_spec(values, origin="the file with the resources")
            self._check(spec)
        except SpecError as error:
            return error
        return spec

    def _blame(self, error: SpecError, left: Sequence[Declared]) -> None:
        """Refuse who is named by a path; where nobody is, the first one with whom it is wrong."""
        by_place: dict[tuple[str, int], Declared] = {}
        for plural in KINDS:
            offset = len(getattr(self._of_file, plural))
            own = [each for each in left if each.plural == plural]
            by_place |= {(plural, offset + i): each for i, each in enumerate(own)}
        found: dict[Key, list[str]] = {}
        for path, text in _problems(error):
            match = _PLACE.match(path)
            item = by_place.get((match[1], int(match[2]))) if match else None
            if match and item is not None:
                found.setdefault(item.key, []).append(_sentence(path[match.end() :], text))
        if found:
            for key, sentences in found.items():
                self._refusals[key] = Refusal(INVALID, _sentences(sentences))
            return
        good, bad = 0, len(left)  # with the first `good` all is well, with the first `bad` it is not
        while bad - good > 1:
            middle = (good + bad) // 2
            if isinstance(self._whole(left[:middle]), Spec):
                good = middle
            else:
                bad = middle
        self._refusals[left[bad - 1].key] = Refusal(INVALID, f"cannot be served beside the others: {error.message}")


def _values_of(item: Declared) -> tuple[Any, Refusal | None]:
    try:
        values = _DECODER.decode(item.content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, Refusal(INVALID, "spec: cannot be read")
    if not isinstance(values, dict):
        return None, Refusal(INVALID, "spec: must be a mapping of fields")
    secret = next((name for name in SERVER_SECRETS if item.plural == MODELS and values.get(name) is not None), "")
    if secret:
        advice = "a resource may not name one; declare the model in the server's file"
        return None, Refusal(INVALID, f"spec.{secret}: names a secret of the server's, and {advice}")
    aliases = [alias for alias, real in TYPES[item.plural].aliases.items() if real == ("name",)]
    if not any(values.get(name) is not None for name in ("name", *aliases)):
        values["name"] = item.name
    return values, None


def _written(text: str) -> WrittenFloat:
    number = WrittenFloat(text)
    number.text = text
    return number


_DECODER: Final = msgspec.json.Decoder(float_hook=_written)


def _problems(error: SpecError) -> list[tuple[str, str]]:
    if isinstance(error, SpecRefusedError):
        return [(each.path, each.text) for each in error.problems]
    return [(error.path, error.message.removeprefix(f"{error.path}: "))]


def _sentence(path: str, text: str) -> str:
    return f"spec.{path}: {text}" if path else f"spec: {text}"


def _sentences(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MAX_PROBLEMS} more" if len(texts) > MAX_PROBLEMS else ""
    return "; ".join(texts[:MAX_PROBLEMS]) + more
